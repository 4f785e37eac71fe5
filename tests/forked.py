"""Commands in a fork of this process, which has imported everything: hundreds of them in a minute."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra

import robust_erm.evaluate
import robust_erm.gallery
import robust_erm.page
import robust_erm.reproduce
import robust_erm.results
import robust_erm.slurm.__main__
import robust_erm.train
import robust_erm.workspace
from robust_erm.sweeps.lines import points
from robust_erm.sweeps.workers import warm_up

for _module in ("evaluation.folders", "reports.report", "sweeps.run", "training.pack"):  # imported when called
    import_module(f"robust_erm.{_module}")
points(["data=gaussian", "optimizer=gd,sd", "seed=range(2)"])  # a fork knows Hydra's grammar, and its yaml by heart

COMMANDS: dict[str, Callable[[], None]] = {
    "train": robust_erm.train.main,
    "evaluate": robust_erm.evaluate.command,
    "results": robust_erm.results.command,
    "page": robust_erm.page.command,
    "gallery": robust_erm.gallery.command,
    "reproduce": robust_erm.reproduce.command,
    "workspace": robust_erm.workspace.command,
    "slurm": robust_erm.slurm.__main__.command_line,
}
SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """What a command did: exit status (None: it hung), and what it said."""

    status: int | None
    out: str
    err: str

    @property
    def crashed(self) -> bool:
        """A traceback on the terminal, or an end by a signal."""
        return "Traceback (most recent call last)" in self.out + self.err or (self.status or 0) < 0


def run(
    command: str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, seconds: float = SECONDS
) -> Done:
    """``python -m robust_erm.<command> <arguments>`` in ``cwd``; killed, with its group, after so many seconds."""
    with tempfile.TemporaryDirectory() as said:
        streams = [Path(said) / name for name in ("out", "err")]
        shared = not env and _environment() == _served_with()
        child = os.fork()
        if child == 0:
            _child(command, arguments, cwd, env or {}, streams, shared)
        status = _waited(child, seconds)
        return Done(status, *(path.read_text(errors="replace") if path.exists() else "" for path in streams))


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@cache
def _served_with() -> dict[str, str]:
    """The environment of the server that workers are forked from, which is started once for all commands."""
    warm_up(["robust_erm.training.loaded", "wandb"])
    return _environment()


def _waited(child: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(code)
        time.sleep(0.005)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(
    command: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], streams: list[Path], shared: bool
) -> None:
    status = 1
    try:
        os.setsid()
        os.chdir(cwd)
        sys.path.insert(0, str(cwd))  # as ``python -m`` has it
        os.environ.update(env)
        warnings.resetwarnings()  # pytest makes errors of them
        type(resource_tracker._resource_tracker).__init__(resource_tracker._resource_tracker)  # one of its own
        server = forkserver._forkserver
        if shared:
            for place in (server, forkserver):  # it runs, though it is not this process's child
                place.ensure_running = resource_tracker.ensure_running
        else:
            type(server).__init__(server)
        for number, path in zip((1, 2), streams, strict=True):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(k, mode) for k, mode in ((0, "r"), (1, "w"), (2, "w")))
        torch.cuda.device_count = lambda: 0  # whatever this process had opened for test_cuda.py
        sys.argv = [f"robust_erm.{command}", *arguments]
        GlobalHydra.instance().clear()
        try:
            COMMANDS[command]()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
