"""Run folders as tidy tables, from Python (``load``, ``read_curves``, ``snapshots``) and from the command line.

python -m robust_erm.results outputs --where optimizer=sd eps=0.2 --csv table.csv
python -m robust_erm.results outputs --compare optimizer --metric test_robust_acc
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.answer import answer
from robust_erm.reports.compare import compare, setting_of
from robust_erm.reports.dots import picture
from robust_erm.reports.ends import differ
from robust_erm.reports.query import as_parquet, known, where
from robust_erm.reports.tables import load, read_curves, snapshots, varying
from robust_erm.reports.terminal import WIDE, folders, say, show, told
from robust_erm.store.files import write_output
from robust_erm.sweeps.exits import Parser, ended_cleanly

__all__ = ["load", "read_curves", "snapshots", "where"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(prog="robust_erm.results", description="Run folders as one table.")
    parser.add_argument("paths", nargs="*", default=["outputs"], help="run folders, or folders of them")
    parser.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="keep runs with this config")
    parser.add_argument("--columns", nargs="+", default=[], metavar="COLUMN", help="show these, not what differs")
    parser.add_argument("--compare", metavar="KEY", help="which value of KEY is better: differences by seed")
    parser.add_argument("--metric", default="test_robust_acc", metavar="COLUMN", help="compared (default: %(default)s)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="with --compare: a dot plot, .png, .pdf or .svg")
    parser.add_argument("--csv", type=Path, help="write the table, all columns; with --compare, differences")
    parser.add_argument("--parquet", type=Path, help="write the table, all columns, as parquet")
    options = parser.parse_args(arguments)
    damaged: list[str] = []
    try:
        frame = load(options.paths, damaged.append)
        require(len(frame) > 0, "paths", " ".join(map(str, options.paths)), _nothing(damaged))
        frame = where(frame, options.where)
        require(len(frame) > 0, "--where", " ".join(options.where), "no run matches")
        for column in options.columns:
            known(frame, "--columns", column)
        require(options.compare or not options.figure, "--figure", options.figure, "is of --compare KEY; name a KEY")
        compared = compare(frame, options.compare, options.metric) if options.compare else None
        if options.csv is not None:
            table = frame if compared is None else compared
            write_output("--csv", options.csv, table.to_csv(index=False).encode())
        if options.figure is not None and compared is not None:
            kind = options.figure.suffix[1:]
            require(kind in ("png", "pdf", "svg"), "--figure", options.figure, "must end in .png, .pdf or .svg")
            drawn = picture(compared, options.metric, setting_of(compared), kind)
            write_output("--figure", options.figure, drawn)
        if options.parquet is not None:
            write_output("--parquet", options.parquet, as_parquet(frame))
    except ConfigError as error:
        return told([*damaged, str(error)], 2)
    if compared is not None:
        answer(frame, compared, options.compare, options.metric)
        if options.figure is not None:
            say(f"figure: {options.figure}")
        return told(damaged, 1 if damaged else 0)
    keys = options.columns or varying(frame)
    show(frame, keys[:WIDE], differ(frame))
    if len(keys) > WIDE:
        say(f"also different: {', '.join(keys[WIDE:])} (--columns chooses)")
    folders(frame)
    return told(damaged, 1 if damaged else 0)


def _nothing(damaged: list[str]) -> str:
    return "no run has ended there yet" if not damaged else "no run there can be read"


def command() -> None:
    """The console command ``robust-erm-results``."""
    with ended_cleanly():
        sys.exit(main())


if __name__ == "__main__":
    command()
