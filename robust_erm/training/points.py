"""Labelled points of several data sets, and which of them each run has."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
