"""Run folders as tidy tables, from Python (``load``, ``read_curves``) and from the command line.

python -m robust_erm.results outputs --where optimizer=sd eps=0.2 --csv table.csv
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.tables import known, load, read_curves, varying, where
from robust_erm.reports.terminal import folders, output, show
from robust_erm.store.files import write_whole

__all__ = ["load", "read_curves", "where"]

_WIDE = 6  # config columns that fit on a terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="robust_erm.results", description="Run folders as one table.")
    parser.add_argument("paths", nargs="*", default=["outputs"], help="run folders, or folders of them")
    parser.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="keep runs with this config")
    parser.add_argument("--columns", nargs="+", default=[], metavar="COLUMN", help="show these, not what differs")
    parser.add_argument("--csv", type=Path, help="write the table, all columns, as CSV")
    parser.add_argument("--parquet", type=Path, help="write the table, all columns, as parquet")
    options = parser.parse_args(arguments)
    try:
        frame = load(options.paths)
        require(len(frame) > 0, "paths", " ".join(map(str, options.paths)), "no run has ended there yet")
        frame = where(frame, options.where)
        require(len(frame) > 0, "--where", " ".join(options.where), "no run matches")
        for column in options.columns:
            known(frame, "--columns", column)
        for path, write in ((options.csv, frame.to_csv), (options.parquet, frame.to_parquet)):
            if path is not None:
                require(path.absolute().parent.is_dir(), f"--{path.suffix[1:] or 'csv'}", path, "its folder is missing")
                buffer = io.BytesIO()
                write(buffer, index=False)
                write_whole(path, buffer.getvalue())
    except ConfigError as error:
        print(f"robust_erm: {error}", file=sys.stderr)
        return 2
    keys = options.columns or varying(frame)
    show(frame, keys[:_WIDE])
    if len(keys) > _WIDE:
        output.print(f"also different: {', '.join(keys[_WIDE:])} (--columns chooses)", soft_wrap=True)
    folders(frame)
    return 0


def command() -> None:
    """The console command ``robust-erm-results``."""
    sys.exit(main())


if __name__ == "__main__":
    command()
