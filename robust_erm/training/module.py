"""The LightningModule: a pack of runs, many inner steps per ``training_step``."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import Any

import lightning as L
import torch

from robust_erm.core.errors import require
from robust_erm.training.measure import Evaluation, Row, measure
from robust_erm.training.runs import Runs
from robust_erm.training.status import DIVERGED, RUNNING

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
        self.began, self.looks, self.caught_up = runs.t, runs.looks, False
        self.chunk = min(inner_steps, _FIRST)

    def configure_optimizers(self) -> None:
        """None: the runs carry their own."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Advance to the next measurement, or by ``inner_steps``; measure what is due."""
        runs = self.runs
        before = runs.running
        if not self.caught_up:
            self._catch_up(before)
            self.caught_up = True
        if len(runs.running):
            self._advance()
        ended = before[runs.status[before] != RUNNING]
        self.just_ended = ended.tolist()
        if not len(runs.running):
            self.trainer.should_stop = True

    def _catch_up(self, before: torch.Tensor) -> None:
        """Do what is due at the first step of this fit: at 0, or where the last one was interrupted before it."""
        runs = self.runs
        if runs.t in self.schedule or self._looks_at(runs.t):
            runs.look()
            lacking = [not self.rows[i] or self.rows[i][-1]["step"] < runs.t for i in before.tolist()]
            due = torch.tensor(lacking, device=before.device) & (runs.t in self.schedule)
            self._record(before[due | (runs.status[before] != RUNNING)])

    def _looks_at(self, t: int) -> bool:
        return self.looks is not None and t % self.looks == 0

    def _advance(self) -> None:
        runs = self.runs
        before = runs.running
        upcoming = bisect_right(self.schedule, runs.t)
        to_next = self.schedule[upcoming] - runs.t if upcoming < len(self.schedule) else 1
        if self.looks is not None:
            to_next = min(to_next, self.looks - runs.t % self.looks)
        n, now = min(self.chunk, to_next), time.monotonic()
        runs.advance(n)
        if runs.t in self.schedule or self._looks_at(runs.t):
            runs.look()
        if runs.theta.device.type == "cuda":
            torch.cuda.synchronize(runs.theta.device)  # the clock is of steps taken, not of steps asked for
        pace = (time.monotonic() - now) / n
        self.chunk = max(1, min(self.inner_steps, 2 * self.chunk, int(_SECONDS / max(pace, 1e-9))))
        ended = before[runs.status[before] != RUNNING]
        due = before if runs.t in self.schedule else ended
        self._record(due)

    def _record(self, index: torch.Tensor) -> None:
        """Measure the runs; of one that diverged where it had been measured, the state that is kept instead."""
        if not len(index):
            return
        for i, row in zip(index.tolist(), measure(self.runs, self.evaluation, index), strict=True):
            t = int(self.runs.stopped_at[i]) if self.runs.status[i] != RUNNING else self.runs.t
            rows, here = self.rows[i], bool(self.rows[i]) and self.rows[i][-1]["step"] >= t
            if here and self.runs.status[i] != DIVERGED:
                continue
            if rows:
                odd = ", ".join(sorted(row.keys() ^ (rows[0].keys() - {"step"})))
                require(not odd, "measure", odd, f"is not measured at every step: at {rows[0]['step']} or at {t} only")
            if here:
                rows.pop()
            rows.append({"step": t, **row})
            if self.snapshots is not None:
                if here:
                    self.snapshots[i].pop()
                self.snapshots[i].append(self.runs.theta[i].cpu().clone())
