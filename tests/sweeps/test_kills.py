"""Kills at any moment, three dozen in four parts: nothing lost, nothing different, nothing left behind."""

from __future__ import annotations

import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from forked import run
from results import QUIET

# two packs of three runs each, which checkpoint all the time; on all points, and on batches whose epochs kills cut
SWEEP = ["-m", "seed=range(3)", "data=gaussian", "data.d=16", "data.m=8", "stop.steps=300", "stop.loss=null"]
SWEEP += ["logger=none", "report=false", "trainer.checkpoint_seconds=0.01", *QUIET]
SWEEPS = {
    "whole": [*SWEEP, "optimizer=gd,sd", "model=linear", "attack=exact"],
    "batches": [*SWEEP, "optimizer=gd,adam", "optimizer/schedule=constant", "model.width=4", "eps=0.05"],
}
SWEEPS["batches"] += ["batch.size=3", "attack=pgd", "attack.random_start=true", "attack.steps=2"]
SWEEPS["batches"] += ["stop.steps=800", "trainer.inner_steps=7"]
PARTS, KILLS, IN_A_ROW = 4, 9, 6
_OWN = ("seconds", "date", "pack_size")


def found(cwd: Path) -> dict[str, Any]:
    """Hashes of what was computed, by run and file; what a summary says but for when and with how many others."""
    what: dict[str, Any] = {}
    for folder in cwd.glob("outputs/*-s[0-9]*"):
        for name in ("metrics.parquet", "checkpoint.pt"):
            what[f"{folder.name}/{name}"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        summary = json.loads((folder / "summary.json").read_text())
        what[folder.name] = {k: v for k, v in summary.items() if k not in _OWN}
    return what


@pytest.mark.turns(70)
@pytest.mark.parametrize(("kind", "part"), [*(("whole", k) for k in range(PARTS)), ("batches", 0)])
def test_kills_at_any_moment(kind: str, part: int, tmp_path: Path) -> None:
    sweep, whole = SWEEPS[kind], _folder(tmp_path / "whole")
    assert run("train", *sweep, "stop.steps=1", cwd=_folder(tmp_path / "warm")).status == 0  # a first one takes longer
    began = time.monotonic()
    assert run("train", *sweep, cwd=whole).status == 0
    seconds, expected = time.monotonic() - began, found(whole)
    assert len(expected) == 6 * 3
    chance, killed, trial = random.Random(part), 0, 0
    while killed < KILLS:
        cwd = _folder(tmp_path / str(trial := trial + 1))
        for _ in range(IN_A_ROW):
            done = run("train", *sweep, cwd=cwd, seconds=chance.uniform(0.02, 1.0) * seconds)
            killed += done.status is None
            assert done.status in (None, 0), done.err
        done = run("train", *sweep, cwd=cwd)
        assert done.status == 0, done.err
        assert found(cwd) == expected, f"after {killed} kills"
        assert not [p for p in cwd.rglob(".*") if "lock" in p.name or p.suffix == ".tmp"]
        assert trial < KILLS, "too few of the kills come in time"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
