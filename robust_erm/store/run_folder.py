"""A run is a folder: config.yaml, metrics.parquet, summary.json, checkpoint.pt and run.log.

Every file is written whole or not at all. The checkpoint is the truth while a run is under way (it
holds the metrics so far); summary.json appears last, and only when the run has ended.
"""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import yaml
from pyarrow import parquet

from robust_erm.core.errors import require
from robust_erm.store import fingerprint
from robust_erm.store.config import Run
from robust_erm.store.files import (
    TEMPORARY,
    Damaged,
    read_text,
    write_json,
    write_whole,
)
from robust_erm.store.identity import as_data, names
from robust_erm.store.reading import (
    CHECKPOINT,
    CONFIG,
    EVALUATIONS,
    LOG,
    METRICS,
    SUMMARY,
    Recorded,
    read_checkpoint,
    read_summary,
)

log = logging.getLogger("robust_erm")


_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


_told: set[Path] = set()  # folders whose damaged summary has been spoken of


def folder_of(run: Run) -> Path:
    """Where ``run`` lives."""
    return Path(run.run_dir) if run.run_dir else Path(run.output_dir) / run.name


def _type(column: str) -> pa.DataType:
    return pa.int64() if column == "step" else pa.float64()


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
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # never through a link
        with os.fdopen(os.open(self.path / LOG, flags, 0o666), "a") as file:
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

    def write_checkpoint(
        self, state: dict[str, Any], rows: list[dict[str, float]], snapshots: dict[str, Any] | None = None
    ) -> None:
        """All that is needed to go on: the run's state, its metrics and, where they are kept, its snapshots so far."""
        buffer = io.BytesIO()
        columns = list(rows[0])
        values = torch.tensor([[row[column] for column in columns] for row in rows], dtype=torch.float64)
        kept = {"id": self.run.id, "columns": columns, "values": values, "run": state}
        kept |= {} if snapshots is None else {"snapshots": snapshots}
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
