"""Lightning callbacks: what a pack leaves on disk, and its progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L

from robust_erm.module import RobustERM
from robust_erm.run_folder import RunFolder
from robust_erm.runs import STATUS

Summarise = Callable[[int, RobustERM], dict[str, Any]]


class Recorder(L.Callback):
    """Writes checkpoints every ``seconds``, and everything once a run ends.

    Args:
        folders: of every run of the pack.
        summarise: (run, module) -> what summary.json holds besides the final metrics.
        seconds: between two checkpoints of the running ones.
    """

    def __init__(self, folders: list[RunFolder], summarise: Summarise, seconds: float) -> None:
        self.folders, self.summarise, self.seconds = folders, summarise, seconds
        self.summaries: dict[int, dict[str, Any]] = {}
        self.last = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Finish what ended, checkpoint what goes on."""
        assert isinstance(module, RobustERM)
        for i in module.just_ended:
            self._finish(i, module)
        if time.monotonic() - self.last >= self.seconds:
            self._checkpoint_running(module)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Ctrl-C or a fault: keep what there is."""
        assert isinstance(module, RobustERM)
        self._checkpoint_running(module)

    def _checkpoint_running(self, module: RobustERM) -> None:
        for i in module.runs.running.tolist():
            if module.rows[i]:
                self.folders[i].write_checkpoint(module.runs.export(i), module.rows[i])
                self.folders[i].write_metrics(module.rows[i])
        self.last = time.monotonic()

    def _finish(self, i: int, module: RobustERM) -> None:
        folder, rows = self.folders[i], module.rows[i]
        folder.write_checkpoint(module.runs.export(i), rows)
        folder.write_metrics(rows)
        last = rows[-1]
        self.summaries[i] = {
            "id": folder.run.id,
            "name": folder.run.name,
            "status": STATUS[int(module.runs.status[i])],
            **last,
            **self.summarise(i, module),
        }
        folder.write_summary(self.summaries[i])


class Progress(L.Callback):
    """Calls ``report(steps done of all runs, runs ended)`` after every ``training_step``."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self.report = report

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Report."""
        assert isinstance(module, RobustERM)
        self.report(module.runs.t, len(module.rows) - len(module.runs.running))
