"""eta_t = lr * factor^floor(t / every)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from robust_erm.core.errors import at_most, positive, require
from robust_erm.core.fields import per_run
from robust_erm.schedules.schedule import Memoryless, Point, State, log


@dataclass(frozen=True)
class Growing(Memoryless):
    """A step size multiplied by ``factor`` every ``every`` steps (vardi2022: 1e-5, 1.1, 100).

    Args:
        lr: the first step size.
        factor: at least 1.
        every: steps between two growths.
    """

    run_axis = True

    lr: float = per_run(1e-5)
    factor: float = per_run(1.1)
    every: int = 100

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        require(1 <= self.factor < math.inf, "factor", self.factor, "must be 1 or more, and finite")
        at_most("every", self.every, 10**9)

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Log lr + floor(t / every) log factor: grows past 1e308 without overflow."""
        return log(self.lr, point.log_loss) + (t // self.every) * log(self.factor, point.log_loss)
