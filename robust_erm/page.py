"""One self-contained HTML page of a sweep: table, curves, gaps and heatmap; opens without a network.

python -m robust_erm.page outputs --where optimizer=sd --out page.html
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.page import comparison, content, expand, not_ended, page
from robust_erm.reports.query import where
from robust_erm.reports.tables import load, with_curves
from robust_erm.reports.terminal import told
from robust_erm.store.files import write_output
from robust_erm.sweeps.exits import Parser, ended_cleanly


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(prog="robust_erm.page", description="One self-contained HTML page of many runs.")
    parser.add_argument("paths", nargs="*", default=["outputs"], help="run folders, folders of them, sweeps' folders")
    parser.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="keep runs with this config")
    parser.add_argument("--compare", metavar="KEY", help="which value of KEY is better: differences by seed")
    parser.add_argument("--metric", default="test_robust_acc", metavar="COLUMN", help="compared (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("page.html"), help="the page (default: page.html)")
    options = parser.parse_args(arguments)
    damaged: list[str] = []
    try:
        paths = expand(options.paths)
        frame = load(paths, damaged.append)
        nothing = "no run has ended there yet" if not damaged else "no run there can be read"
        require(len(frame) > 0, "paths", " ".join(map(str, options.paths)), nothing)
        frame = frame[~frame["folder"].map(lambda folder: Path(folder).resolve()).duplicated()]
        frame = where(frame, options.where)
        require(len(frame) > 0, "--where", " ".join(options.where), "no run matches")
        frame = with_curves(frame, damaged.append)
        require(len(frame) > 0, "paths", " ".join(map(str, options.paths)), "no run there can be read")
        unfinished = not_ended(paths)
        section = comparison(frame, options.compare, options.metric) if options.compare else ""
        data = page(content(frame, " ".join([*map(str, options.paths), *options.where]), unfinished), section)
        write_output("--out", options.out, data)
    except ConfigError as error:
        return told([*damaged, str(error)], 2)
    others = f"; {unfinished} folders hold a run that has not ended" if unfinished else ""
    print(f"{options.out}: {len(frame)} runs, {len(data) / 1e6:.1f} MB{others}")
    return told(damaged, 1 if damaged else 0)


def command() -> None:
    """The console command ``robust-erm-page``."""
    with ended_cleanly():
        sys.exit(main())


if __name__ == "__main__":
    command()
