"""Labelled points of several data sets, and which of them each run has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robust_erm.training.order import Order

CHUNK = 1024  # points evaluated at once; fixed, so that noise does not depend on the number of runs
FEW = 256  # the same for strong attacks, some of which need many random numbers for each point


@dataclass
class Points:
    """Labelled points: D sets x (D, n, d), y (D, n), and the set of every run, (R,)."""

    x: Tensor
    y: Tensor
    of_run: Tensor

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """X (len(rows), n, d) and y of some runs; a view, not a copy, where they share one set."""
        which = self.of_run[rows]
        if len(which) and bool((which == which[0]).all()):
            x, y = self.x[which[0]], self.y[which[0]]
            return x.expand(len(rows), *x.shape), y.expand(len(rows), *y.shape)
        return self.x[which], self.y[which]

    @property
    def bound(self) -> Tensor:
        """B (R,): the largest l_inf norm of a point of each run's set."""
        return self.x.abs().amax((-2, -1))[self.of_run]


@dataclass
class Batches:
    """Mini-batches of R runs: the set of each, (R,), and its seed; an epoch's order is sent to a device once."""

    points: Points
    order: Order
    sets: Tensor
    seeds: list[int]
    _sent: tuple[int, Tensor] | None = None

    def at(self, t: int) -> tuple[Tensor, Tensor]:
        """X (R, b, d) and y (R, b) of step t."""
        epoch, k = divmod(t, self.order.steps)
        if self._sent is None or self._sent[0] != epoch:
            orders = np.stack([self.order.of(epoch, seed) for seed in self.seeds])
            self._sent = epoch, torch.from_numpy(orders).to(self.points.x.device)
        which, at = self.sets.unsqueeze(-1), self._sent[1][:, k * self.order.size : (k + 1) * self.order.size]
        return self.points.x[which, at], self.points.y[which, at]
