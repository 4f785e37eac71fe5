"""What a user sees at the end: a table of the runs, a figure, the failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from robust_erm.config import Run
from robust_erm.results import as_row, read_curves, varying
from robust_erm.run_folder import folder_of, write_whole

console = Console(stderr=True)
output = Console()

# column of the summary: heading
SHOWN = {
    "status": "status",
    "step": "step",
    "train_clean_acc": "train clean",
    "train_robust_acc": "train robust",
    "test_clean_acc": "test clean",
    "test_robust_acc": "test robust",
    "margin_robust": "margin",
    "margin_robust_l1": "/l1^L",
    "margin_robust_l2": "/l2^L",
    "margin_robust_linf": "/linf^L",
}


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
        from robust_erm.figures.curves import curves, save

        paths = save(curves(read_curves(frame), keys), folder / "curves")
        output.print(f"figure: {paths[0]}", soft_wrap=True, highlight=False)
        output.print(f"table:  {folder / 'table.csv'}", soft_wrap=True, highlight=False)
    for run, error in failed:
        first = (str(error) or "no message").splitlines()[0]
        output.print(f"failed: {folder_of(run)}: {type(error).__name__}: {first}", soft_wrap=True, highlight=False)


def show(frame: pd.DataFrame, keys: list[str]) -> None:
    """The terminal's table: what differs between the runs, then what was measured."""
    table = Table(show_edge=False, pad_edge=False)
    for key in keys:
        table.add_column(key, style="bold", overflow="fold")
    columns = [c for c in SHOWN if c in frame and c not in keys and frame[c].notna().any()]
    for column in columns:
        table.add_column(SHOWN[column], justify="right")
    table.add_column("folder", overflow="fold")
    for record in frame.to_dict("records"):
        values = [cell(record[c], percent=c.endswith("_acc")) for c in columns]
        table.add_row(*(cell(record[k]) for k in keys), *values, str(record["folder"]))
    output.print(table)


def cell(value: Any, percent: bool = False) -> str:
    """A number or word as the table shows it; accuracies in per cent."""
    if not isinstance(value, float):
        return str(value)
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}"
