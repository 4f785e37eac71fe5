"""The LightningModule: a pack of runs, many inner steps per ``training_step``."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import Any

import lightning as L
import torch

from robust_erm.training.measure import Evaluation, Row, measure
from robust_erm.training.runs import Runs
from robust_erm.training.status import RUNNING

_FIRST = 10  # steps before anything is known of how long they take
_SECONDS = 0.5  # that a training_step may take, so that whoever waits for it need not wait long


class RobustERM(L.LightningModule):
    """Adversarial training of R runs of one model and optimizer.

    Optimisation is manual, and its steps are :meth:`Runs.advance`'s; Lightning's own
    ``global_step`` stays 0. Callbacks read ``runs`` and ``rows``.

    Args:
        runs: the pack.
        evaluation: what to measure with.
        schedule: increasing steps at which every run is measured.
        inner_steps: at most so many steps in one ``training_step``; fewer where they take long.
        snapshots: whether to keep the parameters at every measurement.

    Attributes:
        rows: for every run, its measurements so far.
        snapshots: for every run that keeps them, its parameters (P,) at its measurements, on the CPU.
        just_ended: indices of the runs that ended in the last ``training_step``.
        began: the step that training begins from.
    """

    def __init__(
        self, runs: Runs, evaluation: Evaluation, schedule: list[int], inner_steps: int, snapshots: bool = False
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.runs, self.evaluation = runs, evaluation
        self.schedule, self.inner_steps = schedule, inner_steps
        self.rows: list[list[Row]] = [[] for _ in runs.seeds]
        self.snapshots: list[list[torch.Tensor]] | None = [[] for _ in runs.seeds] if snapshots else None
        self.just_ended: list[int] = []
        self.began, self.looks = runs.t, runs.looks
        self.chunk = min(inner_steps, _FIRST)

    def configure_optimizers(self) -> None:
        """None: the runs carry their own."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Advance to the next measurement, or by ``inner_steps``; measure what is due."""
        runs = self.runs
        before = runs.running
        if runs.t == 0 and not self.rows[int(before[0])]:
            runs.look()
            self._record(before)
        upcoming = bisect_right(self.schedule, runs.t)
        to_next = self.schedule[upcoming] - runs.t if upcoming < len(self.schedule) else 1
        if self.looks is not None:
            to_next = min(to_next, self.looks - runs.t % self.looks)
        n, now = min(self.chunk, to_next), time.monotonic()
        runs.advance(n)
        if runs.t in self.schedule or (self.looks is not None and runs.t % self.looks == 0):
            runs.look()
        if runs.theta.device.type == "cuda":
            torch.cuda.synchronize(runs.theta.device)  # the clock is of steps taken, not of steps asked for
        pace = (time.monotonic() - now) / n
        self.chunk = max(1, min(self.inner_steps, 2 * self.chunk, int(_SECONDS / max(pace, 1e-9))))
        ended = before[runs.status[before] != RUNNING]
        due = before if runs.t in self.schedule else ended
        if len(due):
            self._record(due)
        self.just_ended = ended.tolist()
        if not len(runs.running):
            self.trainer.should_stop = True

    def _record(self, index: torch.Tensor) -> None:
        for i, row in zip(index.tolist(), measure(self.runs, self.evaluation, index), strict=True):
            t = int(self.runs.stopped_at[i]) if self.runs.status[i] != RUNNING else self.runs.t
            if not self.rows[i] or self.rows[i][-1]["step"] < t:
                self.rows[i].append({"step": t, **row})
                if self.snapshots is not None:
                    self.snapshots[i].append(self.runs.theta[i].cpu().clone())
