"""Gradient descent with weight decay: of the loss and an l_2 penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_erm.accumulators.none import NoMemory
from robust_erm.core.errors import require
from robust_erm.core.fields import beside, number, per_run
from robust_erm.geometries.lp import Lp
from robust_erm.optimizers.optimizer import Composed
from robust_erm.schedules.constant import Constant


@dataclass(frozen=True)
class Decayed(Composed):
    """``theta <- theta - eta (grad L + decay theta)``: gradient descent on ``L + decay ||theta||_2^2 / 2``.

    The losses that are reported, and that training stops at, are those of L alone. The penalty is in units of L, so
    steps are of one length on L: with others the penalty's share would change along the way.

    Args:
        decay: the coefficient, 0 or more; for decay -> 0 the minimiser's direction goes to the l_2 margin's.
        schedule: :class:`robust_erm.schedules.constant.Constant`.
    """

    run_axis = True
    geometry = Lp(2.0)
    accumulator = NoMemory()
    normalized = False
    nickname = "gd_decay"

    schedule: Any
    decay: float = per_run(1e-3)

    def __post_init__(self) -> None:
        constant = type(self.schedule) is Constant
        says = "must be constant: the penalty is in units of L"
        require(constant, "schedule", type(self.schedule).__name__.lower(), says)
        if isinstance(self.decay, float) and isinstance(self.schedule.lr, float):  # tensors where they differ in a pack
            says = f"must be 0 or more, and below 1 / lr = {1 / self.schedule.lr:g}"
            require(0 <= self.decay < 1 / self.schedule.lr, "decay", self.decay, says)

    def moved(self, theta: Tensor, step: Tensor) -> Tensor:
        """See :class:`robust_erm.optimizers.optimizer.Optimizer`."""
        kept = 1 - number(self.schedule.lr, theta) * number(self.decay, theta)
        moved: Tensor = theta * beside(kept) - step
        return moved
