"""What the tests do with the throw-away cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from shell import ROOT
from shell import until as patient

until = partial(patient, seconds=120.0)


class Cluster:
    """launch/local_slurm.sh in a folder of its own, and a shell that talks to it."""

    def __init__(self, folder: Path) -> None:
        self.home, self.folder = folder / "slurm", folder
        # one copy of the code, compiled once, for all tests
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "ROBUST_ERM_SLURM": str(self.home),
            "ROBUST_ERM_SLURM_PORT": str(20000 + os.getpid() % 20000),
            "SLURM_CONF": str(self.home / "slurm.conf"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'slurm'}",
            "NUMBA_CACHE_DIR": str(folder / "compiled"),
            "OMP_NUM_THREADS": "1",
        }

    def script(self, *verbs: str) -> str:
        line = [ROOT / "launch" / "local_slurm.sh", *verbs]
        done = subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def says(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def started(self, *line: str, cwd: Path, launcher: str = "slurm_cpu", **env: str) -> subprocess.Popen[str]:
        ours = [f"hydra.launcher.snapshots={self.folder / 'code'}", "hydra.launcher.poll=0.5"]
        ours = ours if launcher != "packed" else []
        command = [sys.executable, "-m", "robust_erm.train", "-m", f"hydra/launcher={launcher}", *ours, *line]
        cwd.mkdir(parents=True, exist_ok=True)
        return self._process(command, cwd, env)

    def _process(self, command: list[str], cwd: Path, env: dict[str, str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = {**self.environment, **env}
        return subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def train(self, *line: str, cwd: Path, launcher: str = "slurm_cpu", **env: str) -> subprocess.CompletedProcess[str]:
        return ended(self.started(*line, cwd=cwd, launcher=launcher, **env))

    def slurm(self, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """``python -m robust_erm.slurm``."""
        return ended(self._process([sys.executable, "-m", "robust_erm.slurm", *arguments], cwd, env))

    def queue(self) -> list[str]:
        return self.says("squeue", "--noheader", "--array", "--format=%i %P %T").splitlines()

    def nodes(self) -> dict[str, str]:
        rows = self.says("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
        return dict(row.split() for row in rows)

    def empty(self) -> None:
        if self.queue():
            subprocess.run(["scancel", "-u", "root"], env=self.environment, check=False)
            subprocess.run(["scancel", "-u", "root", "--signal=KILL", "--full"], env=self.environment, check=False)
        for node, state in self.nodes().items():
            if "down" in state or state.endswith("*"):
                subprocess.run([ROOT / "launch" / "local_slurm.sh", "slurmd", node], env=self.environment, check=False)
        until(lambda: not self.queue() and set(self.nodes().values()) == {"idle"})


def ended(process: subprocess.Popen[str], seconds: float = 400) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        raise AssertionError(f"still waiting after {seconds} s\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def sweep_of(cwd: Path) -> Path:
    (found,) = [p.parent.parent for p in cwd.glob("outputs/sweeps/*/slurm/sweep.json")]
    return found.relative_to(cwd)


def said(cwd: Path, submission: int = 1) -> list[dict[str, Any]]:
    """What the tasks say of themselves."""
    place = cwd / sweep_of(cwd) / "slurm" / str(submission)
    return [json.loads(p.read_text()) for p in sorted(place.glob("said-*.json"))]


def attempts(cwd: Path) -> list[dict[str, Any]]:
    return [{**attempt, "task": k} for k, word in enumerate(said(cwd)) for attempt in word["attempts"]]
