"""What a run's folder holds, read back: whole, damaged, or not ours; each file is read in one place."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robust_erm.core.errors import ConfigError, require
from robust_erm.core.params import Layout, Params
from robust_erm.store import fingerprint
from robust_erm.store.config import METRIC, Run, resolve
from robust_erm.store.files import (
    Damaged,
    read_bytes,
    read_json,
    read_yaml,
)
from robust_erm.store.identity import COMPONENTS
from robust_erm.store.trust import require_trusted

CONFIG, METRICS, SUMMARY, CHECKPOINT, LOG = "config.yaml", "metrics.parquet", "summary.json", "checkpoint.pt", "run.log"


ENDS = ("converged", "max_steps", "diverged")  # statuses of a run that has ended


EVALUATIONS = "evaluations"  # a folder beside them, of robust_erm.evaluate


_RESULT = [f for f in dataclasses.fields(Run) if f.metadata.get("identity", True)]
_NEEDED = {f.name for f in _RESULT if not f.metadata.get("later")}  # of every config.yaml, of older versions too


_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")


_PLACES = ("url", "cache")  # options of data sets that are not taken from a stored config


_PRUNED = (EVALUATIONS, "wandb", "slurm")  # folders that hold no runs


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
    own = content.get("measured", [])
    if not (isinstance(own, list) and all(isinstance(name, str) and name in content for name in own)):
        raise Damaged(folder / SUMMARY, f"has measured = {own!r:.40}, which are no names of its numbers")
    for key, value in content.items():
        metric = METRIC.fullmatch(key) is not None or key in own
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


def parameters_of(folder: str | Path, run: Run) -> Params:
    """The final parameters of ``run``, which lies in ``folder``, by name; float64.

    Raises:
        ConfigError: its checkpoint is damaged.
    """
    theta = read_checkpoint(Path(folder) / CHECKPOINT)["run"]["theta"].double()
    return Layout.of(run.model.init(run.data.dimension, run.outputs, torch.Generator())).unflatten(theta)


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
