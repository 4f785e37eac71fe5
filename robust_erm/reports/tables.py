"""Run folders as tidy tables."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from robust_erm.core.errors import require
from robust_erm.reports.terminal import SHOWN
from robust_erm.store.identity import COMPONENTS
from robust_erm.store.run_folder import EVALUATIONS, METRICS, SUMMARY, read_config, read_summary

_RUNTIME = ("trainer", "logger", "output_dir", "run_dir", "fresh", "returns", "report", "id")


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optimizer": {"r": 2}}`` as ``{"optimizer.r": 2}``; lists as text."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return found


def as_row(config: dict[str, Any], summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One row of the table, from what config.yaml and summary.json hold."""
    kept = {k: v for k, v in flat(config).items() if k.split(".")[0] not in (*_RUNTIME, "names")}
    measured = {k: v for k, v in flat(summary).items() if k not in ("eps", "eval_eps")}
    absolute = {"eps_absolute": summary.get("eps"), "eval_eps_absolute": summary.get("eval_eps")}
    return {**config["names"], **kept, **measured, **absolute, **evaluations(folder), "folder": str(folder)}


def evaluations(folder: Path) -> dict[str, Any]:
    """What ``python -m robust_erm.evaluate`` found, as columns ``evaluated.<name>.test_attacked``."""
    found: dict[str, Any] = {}
    for path in sorted((folder / EVALUATIONS).glob("*.json")):
        one = json.loads(path.read_text())
        numbers = {k: v for k, v in one.items() if isinstance(v, float) and k.split("_")[0] in ("train", "test")}
        if "masking" in one:  # it was looked for
            numbers["warnings"] = len(one["warnings"])
        found |= {f"evaluated.{path.stem}.{k}": v for k, v in numbers.items()}
    return found


def load(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """One row for every run that has ended below ``paths`` (run folders, or folders of them).

    Columns: the names of the components, every config key (``optimizer.r``), the final metrics,
    status, versions, and the folder.
    """
    roots = [paths] if isinstance(paths, (str, Path)) else list(paths)
    rows = []
    for root in map(Path, roots):
        require(root.exists(), "paths", root, "there is no such folder")
        for summary in sorted(root.rglob(SUMMARY)):
            folder = summary.parent
            rows.append(as_row(read_config(folder), read_summary(folder), folder))
    return pd.DataFrame(rows)


def read_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """All measurements of the runs of ``frame``: metrics.parquet of each, beside its config columns."""
    tables = [parquet.read_table(Path(folder) / METRICS, partitioning=None) for folder in frame["folder"]]
    metrics = pa.concat_tables(tables, promote_options="default").to_pandas()
    constant = frame[[column for column in frame if column not in metrics]]
    repeated = constant.loc[constant.index.repeat([len(table) for table in tables])]
    table: pd.DataFrame = pd.concat([metrics, repeated.reset_index(drop=True)], axis=1)
    return table


def varying(frame: pd.DataFrame) -> list[str]:
    """The config columns that tell the rows apart: components by name, their options where names do not."""
    found: list[str] = []
    config = [c for c in frame.columns if c in COMPONENTS or "." in c or c in ("seed", "eps", "p", "eps_unit", "dtype")]
    config = [c for c in config if not c.startswith(("versions.", "evaluated.")) and not c.endswith("_target_")]
    for column in config:
        group = column.split(".")[0]
        if column == group or group not in found:
            if len(set(frame[column].map(str))) > 1:
                found.append(column)
        elif frame.groupby(group)[column].agg(lambda s: len(set(s.map(str)))).max() > 1:
            found.append(column)
    return sorted(found, key=lambda column: column == "seed")  # the seed last: it is what one averages over


def grouped(frame: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table over seeds: one row for every combination of the other keys, and those keys.

    Numbers become their mean over the seeds; ``<column>_std`` is their sample standard deviation,
    ``runs`` how many there are and ``status`` how they ended. Where no seed was varied, the table as
    it is.
    """
    others = [key for key in keys if key != "seed"]
    if "seed" not in keys or (others and len(frame) == len(frame[others].drop_duplicates())):
        return frame, keys
    measured = [c for c in SHOWN if c in frame and pd.api.types.is_numeric_dtype(frame[c])]
    rows = []
    for values, group in frame.groupby(others, sort=False, dropna=False) if others else [((), frame)]:
        words = {str(word): n for word, n in group["status"].value_counts().items()}
        status = ", ".join(f"{n} {word}" if len(words) > 1 else word for word, n in words.items())
        row = {**dict(zip(others, values, strict=True)), "runs": len(group), "status": status}
        row["optimizer"] = "/".join(group["optimizer"].unique())
        for column in measured:
            row[column], row[f"{column}_std"] = group[column].mean(), group[column].std()
        rows.append(row)
    return pd.DataFrame(rows), others


def where(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows for which every ``key=value`` holds; numbers are compared as numbers."""
    for condition in conditions:
        key, equals, value = condition.partition("=")
        require(bool(equals), "--where", condition, "must be key=value")
        known(frame, "--where", key)
        try:
            frame = frame[pd.to_numeric(frame[key]) == float(value)]
        except (ValueError, TypeError):
            frame = frame[frame[key].astype(str) == value]
    return frame


def known(frame: pd.DataFrame, option: str, column: str) -> None:
    """Raise ConfigError where ``frame`` lacks ``column``, which ``option`` names; suggests near ones."""
    near = difflib.get_close_matches(column, list(map(str, frame.columns)), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "--csv writes them all"
    require(column in frame, option, column, f"no such column; {advice}")
