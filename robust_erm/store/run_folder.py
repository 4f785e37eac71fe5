"""A run is a folder: config.yaml, metrics.parquet, summary.json, checkpoint.pt and run.log.

Every file is written whole or not at all. The checkpoint is the truth while a run is under way (it
holds the metrics so far); summary.json appears last, and only when the run has ended.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import yaml
from pyarrow import parquet

from robust_erm.core.errors import ConfigError, require
from robust_erm.store import fingerprint
from robust_erm.store.config import METRIC, Run, resolve
from robust_erm.store.files import (
    TEMPORARY,
    Damaged,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    write_json,
    write_whole,
)
from robust_erm.store.identity import COMPONENTS, as_data, names
from robust_erm.store.trust import require_trusted

log = logging.getLogger("robust_erm")

CONFIG, METRICS, SUMMARY, CHECKPOINT, LOG = "config.yaml", "metrics.parquet", "summary.json", "checkpoint.pt", "run.log"

ENDS = ("converged", "max_steps", "diverged")  # statuses of a run that has ended
EVALUATIONS = "evaluations"  # a folder beside them, of robust_erm.evaluate

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NEEDED = {f.name for f in dataclasses.fields(Run) if f.metadata.get("identity", True)}  # of every config.yaml
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")
_told: set[Path] = set()  # folders whose damaged summary has been spoken of
_PLACES = ("url", "cache")  # options of data sets that are not taken from a stored config
_PRUNED = (EVALUATIONS, "wandb", "slurm")  # folders that hold no runs


def folder_of(run: Run) -> Path:
    """Where ``run`` lives."""
    return Path(run.run_dir) if run.run_dir else Path(run.output_dir) / run.name


def read_config(folder: Path) -> dict[str, Any]:
    """What config.yaml holds of the run in ``folder``: id, names, and the resolved config.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not whole, or no run's.
    """
    content = read_yaml(folder / CONFIG)
    missing = sorted((_NEEDED | {"id", "names"}) - content.keys())
    if missing:
        raise Damaged(folder / CONFIG, f"is no run's, or cut off: it has no {', '.join(missing)}")
    named = isinstance(content["names"], dict) and all(isinstance(v, str) for v in content["names"].values())
    if not named or set(content["names"]) != set(COMPONENTS) or not isinstance(content["id"], str):
        raise Damaged(folder / CONFIG, "is no run's: its id or the names of its components are not words")
    return content


def read_summary(folder: Path) -> dict[str, Any]:
    """What summary.json holds of the run in ``folder``, which has ended; metrics that were not finite are nan.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not whole, or no run's.
    """
    content = read_json(folder / SUMMARY)
    missing = sorted({"id", "name", "status", "step"} - content.keys())
    if missing:
        raise Damaged(folder / SUMMARY, f"is no run's: it has no {', '.join(missing)}")
    if content["status"] not in ENDS:
        raise Damaged(folder / SUMMARY, f"has the status {content['status']!r:.40}, which is none of {', '.join(ENDS)}")
    for key, value in content.items():
        metric = METRIC.fullmatch(key) is not None
        if metric and value is None:
            content[key] = math.nan
        elif metric and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise Damaged(folder / SUMMARY, f"has {key} = {value!r:.40}, which is no number")
    return content


def read_evaluation(path: Path) -> dict[str, Any]:
    """What an evaluation found, one of the JSON files in ``evaluations/``; raises :class:`Damaged`."""
    content = read_json(path)
    fits = isinstance(content.get("warnings"), list) and {"id", "name", "run", "eps"} <= content.keys()
    if not fits:
        raise Damaged(path, "is no evaluation of ours: it has no id, name, run, eps or warnings")
    return content


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: id, run (its state), rows (its measurements), fingerprint; plain tensors and numbers.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        data = io.BytesIO(read_bytes(path))
        kept: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        kept["rows"] = [dict(zip(kept["columns"], row, strict=True)) for row in kept["values"].tolist()]
        whole = isinstance(kept["id"], str) and bool(kept["rows"]) and {"t", "status", "theta"} <= kept["run"].keys()
    except Exception as error:  # torch raises many kinds on a damaged file
        raise ConfigError("checkpoint", path, "is damaged; train again with fresh=true") from error
    require(whole, "checkpoint", path, "is damaged; train again with fresh=true")
    return kept


def found_below(root: Path, name: str = SUMMARY) -> Iterator[Path]:
    """The folders at and below ``root`` that hold a file ``name``, in order; links to folders are followed, once."""
    seen: set[str] = set()
    for at, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _PRUNED)
        if name in files:
            yield Path(at)


def _type(column: str) -> pa.DataType:
    return pa.int64() if column == "step" else pa.float64()


@dataclass(frozen=True)
class Recorded:
    """What a run's folder says of how it came about.

    Args:
        ended: whether the run has ended; else it stands at a checkpoint.
        fingerprint: of the code and data that computed it; None where none was kept.
        date: when, in ISO 8601, or nothing.
        revision: of git, or None.
    """

    ended: bool
    fingerprint: fingerprint.Fingerprint | None
    date: str
    revision: str | None

    @staticmethod
    def of(content: dict[str, Any], ended: bool) -> Recorded:
        """What a summary or a checkpoint says."""
        kept, date, revision = (content.get(key) for key in ("fingerprint", "date", "git"))
        plain = isinstance(kept, dict) and all(isinstance(v, str) for v in (*kept, *kept.values()))
        return Recorded(
            ended,
            kept if plain else None,
            date if isinstance(date, str) and _DATE.match(date) else "",
            revision if isinstance(revision, str) else None,
        )


class RunFolder:
    """The folder of one run; ``path`` where it has been moved."""

    def __init__(self, run: Run, path: Path | None = None) -> None:
        self.run, self.path = run, path or folder_of(run)

    def check(self) -> None:
        """Raise :class:`ConfigError` where the folder is not this run's; touches nothing."""
        parent = next(p for p in (self.path, *self.path.parents) if p.exists())
        key = "run_dir" if self.run.run_dir else "output_dir"
        require(parent.is_dir(), key, self.path, f"{parent} is not a folder")
        require(os.access(parent, os.W_OK), key, self.path, f"{parent} is not writable; choose another folder")
        if not self.path.exists() or all(p.name.startswith(".") or p.name == LOG for p in self.path.iterdir()):
            return  # nothing, or what a run left that failed before its first step
        config = self.path / CONFIG
        require(config.exists(), key, self.path, "holds other files and no config.yaml; choose an empty folder")
        try:
            head, _, found = read_text(config).partition("\n")[0].partition(": ")
            found = found.strip("'\"")
        except Damaged:
            head, found = "", ""
        damaged = "has an unreadable config.yaml; delete the folder or choose another"
        require(head == "id", key, self.path, damaged)
        advice = f"belongs to another config (id {found}, this one is {self.run.id}); choose another folder"
        require(found == self.run.id, key, self.path, advice)
        if self.missing:
            self.read_checkpoint()

    def open(self) -> None:
        """Write the resolved config into the folder, which exists and is ours."""
        for left in self.path.glob(f".*{TEMPORARY}"):
            left.unlink(missing_ok=True)
        if self.run.fresh:
            self.clear()
        content = {"id": self.run.id, "names": names(self.run), **as_data(self.run)}
        write_whole(self.path / CONFIG, yaml.dump(content, Dumper=_Dumper, sort_keys=False).encode())

    def clear(self) -> None:
        """Remove what an earlier training left, and what was found of it."""
        for name in (SUMMARY, CHECKPOINT, METRICS, LOG):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / EVALUATIONS, ignore_errors=True)

    def log(self, line: str) -> None:
        """Add a line to run.log."""
        with (self.path / LOG).open("a") as file:
            file.write(line + "\n")

    @property
    def missing(self) -> bool:
        """Whether the run has no summary, or none that counts."""
        return self.read_summary() is None

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a run that has ended, or None; a damaged one is none, for the checkpoint has all of it."""
        if self.run.fresh:
            return None
        try:
            return read_summary(self.path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            if self.path not in _told:
                _told.add(self.path)
                log.warning("%s; the run goes on from its checkpoint", error)
            return None

    def recorded(self) -> Recorded | None:
        """How what is there came about; None where there is nothing, or nothing that counts."""
        if (summary := self.read_summary()) is not None:
            return Recorded.of(summary, ended=True)
        kept = self.read_checkpoint()
        return None if kept is None else Recorded.of(kept, ended=False)

    @cached_property
    def fingerprint(self) -> fingerprint.Fingerprint:
        """Of the code and data by which the run is trained now; looked at once."""
        return fingerprint.of_run(self.run)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None; raises :class:`ConfigError` where it is not this run's."""
        path = self.path / CHECKPOINT
        if self.run.fresh or not path.exists():
            return None
        kept = read_checkpoint(path)
        found = kept["id"]
        advice = f"belongs to another config (id {found}, this one is {self.run.id}); train again with fresh=true"
        require(found == self.run.id, "checkpoint", path, advice)
        return kept

    def write_checkpoint(self, state: dict[str, Any], rows: list[dict[str, float]]) -> None:
        """All that is needed to go on: the run's state and its metrics so far."""
        buffer = io.BytesIO()
        columns = list(rows[0])
        values = torch.tensor([[row[column] for column in columns] for row in rows], dtype=torch.float64)
        kept = {"id": self.run.id, "columns": columns, "values": values, "run": state}
        torch.save({**kept, "fingerprint": self.fingerprint}, buffer)
        write_whole(self.path / CHECKPOINT, buffer.getvalue(), durable=True)

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        """metrics.parquet: one row a measurement, column ``step`` first."""
        columns = {name: pa.array([row[name] for row in rows], _type(name)) for name in rows[0]}
        buffer = io.BytesIO()
        parquet.write_table(pa.table(columns), buffer)
        write_whole(self.path / METRICS, buffer.getvalue())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """summary.json; numbers that are not finite become null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in summary.items()}
        write_json(self.path / SUMMARY, clean, durable=True)


def run_of(folder: str | Path, trust: Iterable[str] = ()) -> Run:
    """The config of a run, checked; what it has left is to be read, whether or not it was trained afresh.

    Args:
        folder: of the run.
        trust: modules of components outside this package that may be imported; see :mod:`robust_erm.store.trust`.

    Raises:
        Damaged: the config cannot be read, is no run's, or asks for what is not trusted.
        ConfigError: it is not valid.
    """
    path = Path(folder)
    content = read_config(path)
    kept = {key: value for key, value in content.items() if key not in ("id", "names", "fresh", "stale")}
    require_trusted(kept, path / CONFIG, trust)
    try:
        run = resolve({**_without_places(kept), "fresh": False, "stale": "keep"})
    except ConfigError as error:
        raise Damaged(path / CONFIG, f"is not valid: {error}") from error
    return run


def _without_places(node: dict[str, Any]) -> dict[str, Any]:
    """A stored config without what says where to download from and to: this machine's own choice."""
    data = node.get("data")
    return {**node, "data": {k: v for k, v in data.items() if k not in _PLACES}} if isinstance(data, dict) else node
