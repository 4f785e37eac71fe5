"""eta_t such that a step lowers log L by a constant, to first order, and moves theta by a small part of its length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.errors import positive, require
from robust_erm.core.fields import beside, later, per_run
from robust_erm.core.norms import Norm
from robust_erm.schedules.schedule import Along, Memoryless, Point, State, log


@dataclass(frozen=True)
class Relative(Along, Memoryless):
    """``||eta_t u_t||_2 = min(h ||theta||_2, c ||u_t||_2 / <grad log L, u_t>)``, u_t the optimizer's direction.

    With ``most``, eta_t is also at most ``most / L_t``: a constant step on log L for as long as that is stable.

    For a model that is homogeneous of degree K, ``log L`` falls like ``-||theta||^K`` and its curvature along the flow
    is that of ``||grad log L||^2``, which grows with ``||theta||`` for K >= 2: the stable step on log L shrinks like
    ``||theta||^2 / (K margin)^2``. Both bounds shrink with it: the first is scale-free, the second has log L fall by c
    a step. Nothing is undone, and no constant knows K, the geometry or the size of the data.

    Args:
        lr: h, the greatest relative change of theta in one step; at theta = 0 only c counts.
        most: the longest step on log L; null: whatever the two bounds allow.
        fall: c, by which log L falls in a step, to first order. Directions that do not lower L have the first bound.

    Reference:
        lyu2022 assume the flow; Lyu & Li 2020, App. L, search such a step by trial.
    """

    run_axis = True

    lr: float = per_run(0.01)
    fall: float = per_run(0.5)
    most: float | None = later(None)

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        positive("fall", self.fall)
        if self.most is not None:
            positive("most", self.most, "must be positive and finite, or null for no such bound")
        if isinstance(self.lr, float):  # a tensor where it differs within a pack
            require(self.lr < 1, "lr", self.lr, "must be below 1: it is a part of the length of theta")

    @property
    def divides_by_loss(self) -> bool:
        """Yes: the step on L is one on log L."""
        return True

    def log_step_along(
        self, t: Tensor, point: Point, direction: Tensor, log_scale: Tensor, eps: Tensor, bound: Tensor, state: State
    ) -> Tensor:
        """Log of the above; ``exp(log_scale) direction`` is the optimizer's update."""
        norm = Norm(2.0)
        size, length = norm.value(direction), norm.value(point.theta)
        some = torch.where(size > 0, size, torch.ones_like(size))
        falls = (point.grad * (direction / beside(some))).sum(-1)  # of log L, for a step of l_2 length 1
        infinite = torch.full_like(falls, math.inf)
        at_most = torch.where(length > 0, log(self.lr, falls) + length.log(), infinite)
        by_fall = torch.where(falls > 0, log(self.fall, falls) - falls.log(), infinite)
        both = torch.minimum(at_most, by_fall)
        both = torch.where(both.isfinite(), both, log(self.lr, falls))
        log_eta = both - some.log() - log_scale
        return log_eta if self.most is None else torch.minimum(log_eta, log(self.most, falls) - point.log_loss)
