"""What a sweep leaves at the end: a table of what was swept, a figure, the failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from robust_erm.reports.curves import LINES, curves
from robust_erm.reports.ends import differ
from robust_erm.reports.style import save
from robust_erm.reports.tables import as_row, grouped, read_curves, varying
from robust_erm.reports.terminal import folders, output, say, show
from robust_erm.store.config import Run
from robust_erm.store.files import write_whole
from robust_erm.store.identity import as_data, names
from robust_erm.store.run_folder import folder_of

_SHOWN = 40  # rows of the printed table, and failures


@dataclass(frozen=True)
class Failure:
    """A run that has no result: why, in one line, and the traceback where there is one."""

    cause: str
    traceback: str = ""


Result = dict[str, Any] | Failure


@dataclass(frozen=True)
class Point:
    """A point of a sweep: its run's id, folder and config (as config.yaml has it; needed where it has a result)."""

    id: str
    folder: Path
    config: dict[str, Any]

    @staticmethod
    def of(run: Run) -> Point:
        """The point of a run at hand."""
        return Point(run.id, folder_of(run), {"names": names(run), **as_data(run)})


def report(points: Sequence[Point], results: Sequence[Result], folder: Path) -> None:
    """Print the table and the failures; leave table.csv and curves.png / .pdf in ``folder``."""
    pairs = _once(points, results)
    done = [(point, result) for point, result in pairs if isinstance(result, dict)]
    if done:
        frame = pd.DataFrame([as_row(point.config, summary, point.folder) for point, summary in done])
        keys = varying(frame)
        table, keys_shown = grouped(frame, keys)
        show(table.head(_SHOWN), keys_shown, differ(frame))
        if len(table) > _SHOWN:
            output.print(f"... and {len(table) - _SHOWN} more rows")
        elif "folder" in table:
            folders(table)
    failures(points, results)
    if done:
        chosen = frame.merge(table[keys_shown].head(LINES), on=keys_shown) if keys_shown else frame
        try:
            _leave(frame, curves(read_curves(chosen), keys), folder)
        except OSError as error:
            say(f"no figure and table: {folder}: {error.strerror}")
            return
        some = f" ({LINES} of {len(table)} rows)" if len(table) > LINES else ""
        say(f"figure: {folder / 'curves.png'}{some}")
        say(f"table:  {folder / 'table.csv'}")


def failures(points: Sequence[Point], results: Sequence[Result]) -> None:
    """Say which runs have no result, and why."""
    pairs = _once(points, results)
    failed = [(point, result) for point, result in pairs if isinstance(result, Failure)]
    for point, failure in failed[:_SHOWN]:
        say(f"failed: {point.folder}: {failure.cause}")
    if len(failed) > _SHOWN:
        output.print(f"failed: ... and {len(failed) - _SHOWN} more")
    if failed:
        output.print(f"{len(failed)} of {len(pairs)} runs failed; the same line tries them again")


def _once(points: Sequence[Point], results: Sequence[Result]) -> list[tuple[Point, Result]]:
    return list({point.id: (point, result) for point, result in zip(points, results, strict=True)}.values())


def _leave(frame: pd.DataFrame, figure: Figure, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "table.csv", frame.to_csv(index=False).encode())
    save(figure, folder / "curves")
