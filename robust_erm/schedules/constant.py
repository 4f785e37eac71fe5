"""eta_t = lr."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.core.errors import positive
from robust_erm.core.fields import per_run
from robust_erm.schedules.schedule import Memoryless, Point, State, log


@dataclass(frozen=True)
class Constant(Memoryless):
    """The same step size throughout.

    Args:
        lr: step size on L (of the update itself where the optimizer is normalized).
    """

    run_axis = True

    lr: float = per_run()

    def __post_init__(self) -> None:
        positive("lr", self.lr)

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Log lr."""
        return log(self.lr, point.log_loss)
