"""Lightning callbacks: what a pack leaves on disk, and its progress bar."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from robust_erm.store import locks
from robust_erm.store.run_folder import RunFolder
from robust_erm.training.kept import export, on_host
from robust_erm.training.module import RobustERM
from robust_erm.training.status import RUNNING, STATUS

Summarise = Callable[[int, RobustERM], dict[str, Any]]


class Interrupted(Exception):
    """Training was asked to end; checkpoints have been left."""


class Recorder(L.Callback):
    """Writes checkpoints every ``seconds``, and everything once a run ends.

    Args:
        folders: of every run of the pack.
        summarise: (run, module) -> what summary.json holds besides the final metrics.
        seconds: between two checkpoints of the running ones.
        stop: says whether to leave checkpoints and end now.
    """

    def __init__(
        self, folders: list[RunFolder], summarise: Summarise, seconds: float, stop: Callable[[], bool]
    ) -> None:
        self.folders, self.summarise, self.seconds, self.stop = folders, summarise, seconds, stop
        self.summaries: dict[int, dict[str, Any]] = {}
        self.last = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Finish what ended, checkpoint what goes on."""
        assert isinstance(module, RobustERM)
        host = on_host(module.runs) if module.just_ended else None
        for i in module.just_ended:
            self.finish(i, module, host)
        if time.monotonic() - self.last >= self.seconds:
            self._checkpoint_running(module)
        if self.stop():
            raise Interrupted

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Ctrl-C or a fault: keep what there is."""
        assert isinstance(module, RobustERM)
        self._checkpoint_running(module)

    def _checkpoint_running(self, module: RobustERM) -> None:
        host = on_host(module.runs)
        for i in module.runs.running.tolist():
            if module.rows[i] and not locks.lost(self.folders[i].path):
                self._write(i, module, host)
        self.last = time.monotonic()

    def _write(self, i: int, module: RobustERM, host: Any) -> None:
        kept = None
        if module.snapshots is not None:
            shapes = module.runs.recipe.layout.shapes
            steps = [int(row["step"]) for row in module.rows[i]]
            kept = {"steps": steps, "shapes": shapes, "theta": torch.stack(module.snapshots[i])}
        self.folders[i].write_checkpoint(export(module.runs, i, host), module.rows[i], kept)
        self.folders[i].write_metrics(module.rows[i])

    def finish(self, i: int, module: RobustERM, host: Any) -> None:
        """Write what run i leaves; ``host``: of :func:`robust_erm.training.kept.on_host`."""
        folder, last = self.folders[i], module.rows[i][-1]
        self._write(i, module, host)
        self.summaries[i] = {
            "id": folder.run.id,
            "name": folder.run.name,
            "status": STATUS[int(module.runs.status[i])],
            **last,
            **self.summarise(i, module),
        }
        folder.write_summary(self.summaries[i])


class Progress(L.Callback):
    """Reports how far a pack is, a few times a second.

    ``report`` gets ``t``, ``steps`` taken in this fit by all runs together, ``spared`` (steps that
    runs which have ended will not take) and ``ended``, how many by status.
    """

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report, self.last = report, -math.inf

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Report, unless the last report is fresh."""
        assert isinstance(module, RobustERM)
        runs, now = module.runs, time.monotonic()
        if now - self.last < 0.2 and len(runs.running):
            return
        self.last = now
        status, stopped = runs.status.tolist(), runs.stopped_at.tolist()
        taken = [at if word != RUNNING else runs.t for word, at in zip(status, stopped, strict=True)]
        self.report(
            {
                "t": runs.t,
                "steps": sum(taken) - module.began * len(taken),
                "spared": sum(runs.steps - at for word, at in zip(status, stopped, strict=True) if word != RUNNING),
                "ended": Counter(STATUS[word] for word in status if word != RUNNING),
            }
        )
