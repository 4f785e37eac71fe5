"""The terminal's table of evaluations: robust accuracy as an interval, and the warnings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from robust_erm.evaluation.options import Options
from robust_erm.reports.tables import load, varying
from robust_erm.reports.terminal import cell, output, say


def show(found: Sequence[dict[str, Any]], folders: Sequence[str | Path], options: Options) -> None:
    """The table: robust accuracy as an interval, and the warnings."""
    frame = load(folders).drop_duplicates("id").set_index("id")
    keys = [key for key in varying(frame.reset_index()) if key not in ("seed", "eps")]
    rows = pd.DataFrame(list(found))
    for key in keys:
        rows[key] = rows["id"].map(frame[key]).map(str)
    rows["trained at eps"] = rows["id"].map(frame["eps"])  # in the config's unit
    given = bool(options.eps)
    keys += [*(["trained at eps"] if not given or len(set(frame["eps"])) > 1 else []), *(["eps"] if given else [])]
    rows["warned"] = rows["warnings"].map(bool)
    parts = [part for part in ("train", "test") if f"{part}_attacked" in rows]
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in (*keys, "runs"):
        table.add_column(heading.replace(*((" at", "\nat") if given else ("trained at ", ""))))
    for part in parts:
        for heading in ("clean", "training attack", "\\[certified, attacked]"):
            table.add_column(f"{part}\n{heading}", justify="right")
    table.add_column("warnings", justify="right")
    for values, group in rows.groupby(keys, sort=False, dropna=False):
        shown = [cell(value) for value in values] + [str(len(group))]
        for part in parts:
            for column in (f"{part}_clean", f"{part}_after_train"):
                shown.append(_mean(group, column))
            low = _mean(group, f"{part}_certified")
            shown.append(f"\\[{low}, {_mean(group, f'{part}_attacked')}]")
        table.add_row(*shown, str(int(group["warned"].sum())))
    output.print(table)
    output.print(
        "accuracies in %, mean ± standard deviation over the runs; certified: -, where there is no certificate"
    )
    said = [(one["run"], line) for one in found for line in one["warnings"]]
    for run, line in said[:20]:
        say(f"warning: {run}: {line}")
    if len(said) > 20:
        say(f"... and {len(said) - 20} more warnings, in evaluations/*.json of the runs")


def _mean(group: Any, column: str) -> str:
    if column not in group or group[column].isna().any():
        return "-"
    values = 100 * group[column]
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")
