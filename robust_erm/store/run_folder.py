"""A run is a folder: config.yaml, metrics.parquet, summary.json, checkpoint.pt and run.log.

Every file is written whole or not at all. The checkpoint is the truth while a run is under way (it
holds the metrics so far); summary.json appears last, and only when the run has ended.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import yaml
from pyarrow import parquet

from robust_erm.core.errors import ConfigError, require
from robust_erm.store.config import Run, resolve
from robust_erm.store.files import TEMPORARY, write_json, write_whole
from robust_erm.store.identity import as_data, names

CONFIG, METRICS, SUMMARY, CHECKPOINT, LOG = "config.yaml", "metrics.parquet", "summary.json", "checkpoint.pt", "run.log"

EVALUATIONS = "evaluations"  # a folder beside them, of robust_erm.evaluate

_Dumper, _Loader = getattr(yaml, "CSafeDumper", yaml.SafeDumper), getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def folder_of(run: Run) -> Path:
    """Where ``run`` lives."""
    return Path(run.run_dir) if run.run_dir else Path(run.output_dir) / run.name


def read_config(folder: Path) -> dict[str, Any]:
    """What config.yaml holds of the run in ``folder``: id, names, and the resolved config."""
    content: dict[str, Any] = yaml.load((folder / CONFIG).read_text(), Loader=_Loader)
    return content


def read_summary(folder: Path) -> dict[str, Any]:
    """What summary.json holds of the run in ``folder``, which has ended."""
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    return summary


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
        require(config.is_file(), key, self.path, "holds other files and no config.yaml; choose an empty folder")
        try:
            head, _, found = config.read_text().partition("\n")[0].partition(": ")
            found = found.strip("'\"")
        except UnicodeDecodeError:
            head, found = "", ""
        damaged = "has an unreadable config.yaml; delete the folder or choose another"
        require(head == "id", key, self.path, damaged)
        advice = f"belongs to another config (id {found}, this one is {self.run.id}); choose another folder"
        require(found == self.run.id, key, self.path, advice)
        if not self.run.fresh and not (self.path / SUMMARY).is_file():
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
        return self.run.fresh or not (self.path / SUMMARY).is_file()

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a run that has ended, or None."""
        return None if self.missing else read_summary(self.path)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None; raises :class:`ConfigError` where it is not this run's."""
        path = self.path / CHECKPOINT
        if self.run.fresh or not path.is_file():
            return None
        try:
            kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            found = kept["id"]
        except Exception as error:  # torch raises many kinds on a damaged file
            raise ConfigError("checkpoint", path, "is damaged; train again with fresh=true") from error
        advice = f"belongs to another config (id {found}, this one is {self.run.id}); train again with fresh=true"
        require(found == self.run.id, "checkpoint", path, advice)
        kept["rows"] = [dict(zip(kept["columns"], row, strict=True)) for row in kept["values"].tolist()]
        return kept

    def write_checkpoint(self, state: dict[str, Any], rows: list[dict[str, float]]) -> None:
        """All that is needed to go on: the run's state and its metrics so far."""
        buffer = io.BytesIO()
        columns = list(rows[0])
        values = torch.tensor([[row[column] for column in columns] for row in rows], dtype=torch.float64)
        torch.save({"id": self.run.id, "columns": columns, "values": values, "run": state}, buffer)
        write_whole(self.path / CHECKPOINT, buffer.getvalue())

    def write_metrics(self, rows: list[dict[str, float]]) -> None:
        """metrics.parquet: one row a measurement, column ``step`` first."""
        columns = {name: pa.array([row[name] for row in rows], _type(name)) for name in rows[0]}
        buffer = io.BytesIO()
        parquet.write_table(pa.table(columns), buffer)
        write_whole(self.path / METRICS, buffer.getvalue())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """summary.json; numbers that are not finite become null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in summary.items()}
        write_json(self.path / SUMMARY, clean)


def run_of(folder: str | Path) -> Run:
    """The config of a run, checked; what it has left is to be read, whether or not it was trained afresh."""
    content = read_config(Path(folder))
    kept = {key: value for key, value in content.items() if key not in ("id", "names")}
    return resolve({**kept, "fresh": False})
