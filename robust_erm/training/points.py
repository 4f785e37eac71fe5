"""Labelled points of several data sets, and which of them each run has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robust_erm.training.order import Index


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

    def some(self, sets: Tensor, index: list[Index]) -> tuple[Tensor, Tensor]:
        """X (R, b, d) and y (R, b): of the sets (R,) the points ``index`` (b,) of each."""
        at = torch.from_numpy(np.stack(index)).to(self.x.device)
        which = sets.unsqueeze(-1)
        return self.x[which, at], self.y[which, at]

    @property
    def bound(self) -> Tensor:
        """B (R,): the largest l_inf norm of a point of each run's set."""
        return self.x.abs().amax((-2, -1))[self.of_run]
