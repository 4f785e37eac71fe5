"""The terminal's table of evaluations: robust accuracy, certified and attacked, and the warnings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from robust_erm.core.statistics import LEGEND, interval
from robust_erm.evaluation.options import Options
from robust_erm.reports.tables import load, varying
from robust_erm.reports.terminal import WIDE, cell, output, safe, say

_DISTANCES = ("certified_distance_median", "distance_median")
_GROUPS = 8  # columns of what measures found


def show(found: Sequence[dict[str, Any]], folders: Sequence[str | Path], options: Options) -> None:
    """The table over seeds: robust accuracy lies between ``certified`` and ``attacked``; and the warnings."""
    frame = load(folders).drop_duplicates("id").set_index("id")
    keys = [key for key in varying(frame.reset_index()) if key not in ("seed", "eps")]
    rows = pd.DataFrame(list(found))
    for key in keys:
        rows[key] = rows["id"].map(frame[key]).map(str)
    rows["trained at eps"] = rows["id"].map(frame["eps"])  # in the config's unit
    given = bool(options.eps)
    shown = keys[:WIDE]
    last = [*(["trained at eps"] if not given or len(set(frame["eps"])) > 1 else []), *(["eps"] if given else [])]
    rows["warned"] = rows["warnings"].map(bool)
    parts = [part for part in ("train", "test") if f"{part}_attacked" in rows]
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in (*shown, *last, "runs"):
        table.add_column(safe(heading).replace(*((" at", "\nat") if given else ("trained at ", ""))))
    kinds = ["clean", "after_train", "certified", "attacked", *(_DISTANCES if options.distance else ())]
    columns = [f"{part}_{kind}" for part in parts for kind in kinds]
    for column in columns:
        heading = column.replace("_", "\n", 1).replace("after_train", "own attack").removesuffix("_median")
        table.add_column(heading.replace("_", "\n"), justify="right")
    table.add_column("warnings", justify="right")
    for values, group in rows.groupby([*keys, *last], sort=False, dropna=False):
        said = [cell(value) for value in (*values[: len(shown)], *values[len(keys) :])] + [str(len(group))]
        table.add_row(
            *said,
            *(_mean(group, column, "distance" not in column) for column in columns),
            str(int(group["warned"].sum())),
        )
    output.print(table)
    _show_measured(rows, [*shown, *last])
    several = f"; {LEGEND}" if len(rows.groupby([*keys, *last], dropna=False)) < len(rows) else ""
    if options.threats:
        say(f"under all of these at once: {', '.join(f'l_{p:g} of {eps:g}' for p, eps in options.threats)}")
    say(f"accuracies in %; own attack: of training; robust: from certified (-: no certificate) to attacked{several}")
    if options.distance:
        say("distance: median l_p distance to another label (-: no certificate, or infinite), certified and attacked")
    if len(keys) > WIDE:
        say(f"also different: {', '.join(keys[WIDE:])} (python -m robust_erm.results shows them)")
    warnings = [(one["run"], line) for one in found for line in one["warnings"]]
    for run, line in warnings[:20]:
        say(f"warning: {run}: {line}")
    if len(warnings) > 20:
        say(f"... and {len(warnings) - 20} more warnings, in evaluations/*.json of the runs")


def _show_measured(rows: pd.DataFrame, keys: list[str]) -> None:
    """What measures found, a line for each number and a column for each group of runs."""
    measured = [column for column in map(str, rows) if column.startswith("measured_")]
    if not measured:
        return
    groups = list(rows.groupby(keys, sort=False, dropna=False)) if keys else [((), rows)]
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("measured")
    for values, _ in groups[:_GROUPS]:
        table.add_column(safe("\n".join(map(cell, values))), justify="right")
    for column in measured:
        table.add_row(
            column.removeprefix("measured_"), *(_mean(group, column, percent=False) for _, group in groups[:_GROUPS])
        )
    output.print(table)
    if len(groups) > _GROUPS:
        say(f"and {len(groups) - _GROUPS} more groups of runs (python -m robust_erm.results shows them)")


def _mean(group: Any, column: str, percent: bool = True) -> str:
    if column not in group or group[column].isna().any():
        return "-"
    return cell(*interval(group[column]), percent=percent)
