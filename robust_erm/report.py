"""What a sweep leaves at the end: a table of its runs, a figure, the failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robust_erm.config import Run
from robust_erm.figures.curves import curves, save
from robust_erm.results import as_row, read_curves, varying
from robust_erm.run_folder import folder_of, write_whole
from robust_erm.terminal import output, show


def report(runs: Sequence[Run], results: Sequence[dict[str, Any] | BaseException], folder: Path) -> None:
    """Print the table and the failures; leave table.csv and curves.png / .pdf in ``folder``."""
    done = [(run, result) for run, result in zip(runs, results, strict=True) if isinstance(result, dict)]
    failed = [(run, result) for run, result in zip(runs, results, strict=True) if isinstance(result, BaseException)]
    if done:
        frame = pd.DataFrame([as_row(run, summary) for run, summary in done])
        keys = varying(frame)
        show(frame, keys)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "table.csv", frame.to_csv(index=False).encode())
        paths = save(curves(read_curves(frame), keys), folder / "curves")
        output.print(f"figure: {paths[0]}", soft_wrap=True, highlight=False)
        output.print(f"table:  {folder / 'table.csv'}", soft_wrap=True, highlight=False)
    for run, error in failed:
        first = (str(error) or "no message").splitlines()[0]
        output.print(f"failed: {folder_of(run)}: {type(error).__name__}: {first}", soft_wrap=True, highlight=False)
