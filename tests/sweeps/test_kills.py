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

# two packs of three runs each, which checkpoint all the time
SWEEP = ["-m", "optimizer=gd,sd", "seed=range(3)", "data=gaussian", "data.d=16", "data.m=8", "model=linear"]
SWEEP += ["attack=exact", "stop.steps=300", "stop.loss=null", "logger=none", "report=false"]
SWEEP += ["trainer.checkpoint_seconds=0.01", *QUIET]
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
@pytest.mark.parametrize("part", range(PARTS))
def test_kills_at_any_moment(part: int, tmp_path: Path) -> None:
    began = time.monotonic()
    whole = _folder(tmp_path / "whole")
    assert run("train", *SWEEP, cwd=whole).status == 0
    seconds, expected = time.monotonic() - began, found(whole)
    assert len(expected) == 6 * 3
    chance, killed, trial = random.Random(part), 0, 0
    while killed < KILLS:
        cwd = _folder(tmp_path / str(trial := trial + 1))
        for _ in range(IN_A_ROW):
            done = run("train", *SWEEP, cwd=cwd, seconds=chance.uniform(0.02, 1.0) * seconds)
            killed += done.status is None
            assert done.status in (None, 0), done.err
        done = run("train", *SWEEP, cwd=cwd)
        assert done.status == 0, done.err
        assert found(cwd) == expected, f"after {killed} kills"
        assert not [p for p in cwd.rglob(".*") if "lock" in p.name or p.suffix == ".tmp"]
        assert trial < KILLS, "too few of the kills come in time"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
