"""Run folders as tidy tables."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor

from robust_erm.core.errors import first_line, require
from robust_erm.core.params import Layout
from robust_erm.core.parquet import table_of
from robust_erm.core.statistics import interval
from robust_erm.reports.ends import losses, statuses
from robust_erm.reports.terminal import SHOWN
from robust_erm.store.files import Damaged, read_bytes
from robust_erm.store.identity import COMPONENTS
from robust_erm.store.reading import (
    CHECKPOINT,
    CONFIG,
    EVALUATIONS,
    METRICS,
    found_below,
    read_checkpoint,
    read_config,
    read_evaluation,
    read_summary,
)

_RUNTIME = ("trainer", "logger", "output_dir", "run_dir", "fresh", "stale", "returns", "report", "id")
# config keys that belong to no group
_PLAIN = ("seed", "eps", "eval_eps", "p", "eps_unit", "dtype", "measure_per_decade", "measure_every", "snapshots")
_CLASS = "._target_"  # how the column of a component's class ends
_FOUND = ("train", "test", "measured")  # how the numbers of an evaluation begin


Told = Callable[[str], None]


def warned(line: str) -> None:
    """The default for whoever is told of damaged files."""
    logging.getLogger("robust_erm").warning("%s", line)


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optimizer": {"r": 2}}`` as ``{"optimizer.r": 2}``; lists as text."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return found


def as_row(config: dict[str, Any], summary: dict[str, Any], folder: Path, damaged: Told = warned) -> dict[str, Any]:
    """One row of the table, from what config.yaml and summary.json hold."""
    kept = {k: v for k, v in flat(config).items() if k.split(".")[0] not in (*_RUNTIME, "names")}
    inner = [k for k in kept if k.endswith(_CLASS) and k.removesuffix(_CLASS) not in COMPONENTS]
    kept |= {k.removesuffix(_CLASS): _called(str(kept[k])) for k in inner}  # optimizer.schedule, measure.kkt
    measured = {
        k: v for k, v in flat({**summary, "fingerprint": {}, "measured": {}}).items() if k not in ("eps", "eval_eps")
    }
    absolute = {"eps_absolute": summary.get("eps"), "eval_eps_absolute": summary.get("eval_eps")}
    return {**config["names"], **kept, **measured, **absolute, **evaluations(folder, damaged), "folder": str(folder)}


def _called(target: str) -> str:
    """A class as a table shows it: ours by its name, others by their path."""
    return target.rpartition(".")[2].lower() if target.startswith("robust_erm.") else target


def shown(value: Any) -> str:
    """A value of a config as text that no other value has, beyond rounding; ``null`` where there is none."""
    if not isinstance(value, float):
        return "null" if value is None else str(value)
    short = f"{value:g}"
    return "null" if math.isnan(value) else short if math.isclose(float(short), value, rel_tol=1e-9) else repr(value)


def evaluations(folder: Path, damaged: Told = warned) -> dict[str, Any]:
    """What ``python -m robust_erm.evaluate`` found, as columns ``evaluated.<name>.test_attacked``."""
    found: dict[str, Any] = {}
    for path in sorted((folder / EVALUATIONS).glob("*.json")):
        try:
            one = read_evaluation(path)
        except Damaged as error:
            damaged(f"{error}; left out")
            continue
        numbers = {k: v for k, v in one.items() if isinstance(v, float) and k.split("_")[0] in _FOUND}
        if "masking" in one:  # it was looked for
            numbers["warnings"] = len(one["warnings"])
        found |= {f"evaluated.{path.stem}.{k}": v for k, v in numbers.items()}
    return found


def load(paths: str | Path | Iterable[str | Path], damaged: Told = warned) -> pd.DataFrame:
    """One row for every run that has ended below ``paths`` (run folders, or folders of them).

    Columns: the names of the components, every config key (``optimizer.r``), the final metrics,
    status, versions, and the folder. Links to folders are followed.

    Args:
        paths: one or several.
        damaged: is told of each file that cannot be read, in a line; its run is left out.

    Raises:
        ConfigError: there is no such folder.
    """
    rows = []
    for root in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        require(root.is_dir(), "paths", root, "there is no such folder" if not root.exists() else "is no folder")
        for folder in found_below(root):
            try:
                rows.append(as_row(read_config(folder), read_summary(folder), folder, damaged))
            except Damaged as error:
                damaged(f"{error}; left out")
            except FileNotFoundError:
                damaged(f"{folder}: holds a summary.json and no {CONFIG}: no run of ours; left out")
    return pd.DataFrame(rows)


def read_metrics(folder: Path) -> pa.Table:
    """The measurements of one run; raises :class:`Damaged`."""
    path = folder / METRICS
    try:
        table = table_of(read_bytes(path))
    except FileNotFoundError:
        raise Damaged(path, "is missing; train it again with fresh=true") from None
    except (pa.ArrowException, OSError) as error:
        raise Damaged(path, f"is no parquet file: {first_line(error)}") from None
    numbers = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in table.schema.types)
    if "step" not in table.column_names or not table.num_rows or not numbers:
        raise Damaged(path, "holds no measurements of ours: numbers, by step")
    return table


def read_curves(frame: pd.DataFrame, damaged: Told = warned) -> pd.DataFrame:
    """All measurements of the runs of ``frame``: metrics.parquet of each, beside its config columns.

    Args:
        frame: from :func:`load`.
        damaged: is told of each file that cannot be read, in a line; its run is left out.
    """
    tables, kept = [], []
    for place, folder in enumerate(frame["folder"]):
        try:
            tables.append(read_metrics(Path(folder)))
            kept.append(place)
        except Damaged as error:
            damaged(f"{error}; left out")
    if not tables:
        return frame.iloc[:0]
    frame = frame.iloc[kept]
    metrics = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    constant = frame[[column for column in frame if column not in metrics]]
    repeated = constant.iloc[np.repeat(np.arange(len(frame)), [len(table) for table in tables])]
    table: pd.DataFrame = pd.concat([metrics, repeated.reset_index(drop=True)], axis=1)
    return table


def with_curves(frame: pd.DataFrame, damaged: Told = warned) -> pd.DataFrame:
    """The runs whose measurements can be read; ``damaged`` is told of the others."""

    def readable(folder: str) -> bool:
        try:
            read_metrics(Path(folder))
        except Damaged as error:
            damaged(f"{error}; left out")
            return False
        return True

    return frame[[readable(folder) for folder in frame["folder"]]]


def varying(frame: pd.DataFrame) -> list[str]:
    """The config columns that tell the rows apart: components by name, their options where names do not."""
    found: list[str] = []
    config = [c for c in frame.columns if c in COMPONENTS or "." in c or c in _PLAIN]
    config = [c for c in config if not c.startswith(("versions.", "evaluated.")) and not c.endswith(_CLASS)]
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

    Numbers become their mean over the seeds; ``<column>_half`` is half the width of its 95 % t-interval
    (:func:`robust_erm.core.statistics.interval`), ``runs`` how many there are, ``status`` how they ended and ``loss``
    from where to where. Where no seed was varied, the table as it is.
    """
    others = [key for key in keys if key != "seed"]
    if "seed" not in keys or (others and len(frame) == len(frame[others].drop_duplicates())):
        return frame, keys
    measured = [c for c in SHOWN if c in frame and pd.api.types.is_numeric_dtype(frame[c])]
    rows = []
    for values, group in frame.groupby(others, sort=False, dropna=False) if others else [((), frame)]:
        words = {str(word): n for word, n in statuses(group).value_counts().items()}
        status = ", ".join(f"{n} {word}" if len(words) > 1 else word for word, n in words.items())
        row = {**dict(zip(others, values, strict=True)), "runs": len(group), "status": status}
        row["optimizer"] = "/".join(group["optimizer"].unique())
        if "log_loss" in group:
            row["loss"] = losses(group["log_loss"].astype(float))
        for column in measured:
            row[column], row[f"{column}_half"] = interval(group[column])
        rows.append(row)
    return pd.DataFrame(rows), others


def snapshots(folder: str | Path) -> tuple[list[int], list[dict[str, Tensor]]]:
    """The steps at which a run with ``snapshots=true`` was measured, and its parameters there, by name.

    Raises:
        ConfigError: the run has no checkpoint, or kept no snapshots.
    """
    path = Path(folder) / CHECKPOINT
    require(path.is_file(), "folder", folder, f"holds no {CHECKPOINT}: no run of ours")
    kept = read_checkpoint(path).get("snapshots")
    require(kept is not None, "folder", folder, "kept no parameters; train it with snapshots=true")
    assert kept is not None
    thetas = kept["theta"]
    layout = Layout(tuple((name, tuple(shape)) for name, shape in kept["shapes"]))
    return list(kept["steps"]), [layout.unflatten(theta) for theta in thetas]
