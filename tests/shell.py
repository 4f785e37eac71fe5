"""The commands as a user types them, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked

ROOT = Path(__file__).resolve().parents[1]


def command(
    *arguments: str, cwd: Path, module: str = "robust_erm.train", **env: str
) -> subprocess.CompletedProcess[str]:
    """A process of its own; without a special environment a fork of this one, which spares its imports."""
    name = module.rpartition(".")[2]
    if not env and name in forked.COMMANDS:
        done = forked.run(name, *arguments, cwd=cwd, seconds=300)
        assert done.status is not None, f"it hangs: {arguments}"
        return subprocess.CompletedProcess([name, *arguments], done.status, done.out, done.err)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", **env}
    line = [sys.executable, "-m", module, *arguments]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def folders(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("outputs/*") if p.is_dir() and p.name != "sweeps")


def until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def same_results(a: Path, b: Path) -> int:
    """Metrics and checkpoints of all runs, byte by byte; how many runs."""
    names = [folder.name for folder in folders(a)]
    assert names == [folder.name for folder in folders(b)]
    for name in names:
        for file in ("metrics.parquet", "checkpoint.pt"):
            assert (a / "outputs" / name / file).read_bytes() == (b / "outputs" / name / file).read_bytes(), name
        assert json.loads((a / "outputs" / name / "summary.json").read_text())["status"]
    return len(names)


def has_checkpoint(cwd: Path) -> bool:
    return any(cwd.glob("outputs/*/checkpoint.pt"))


def fake(path: Path, name: str, script: str) -> None:
    """A command of that name, a script of the shell, in the folder ``path``."""
    path.mkdir(exist_ok=True)
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)
