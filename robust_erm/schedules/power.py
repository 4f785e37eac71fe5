"""eta_t = lr (t + 1)^(-a)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.core.errors import positive, require
from robust_erm.core.fields import per_run
from robust_erm.schedules.schedule import Memoryless, Point, State, log


@dataclass(frozen=True)
class Power(Memoryless):
    """A step size that falls like a power of the step, ``lr (t + 1)^(-a)``, t from 0.

    A normalized optimizer then has ``||theta||`` and ``-log L`` grow like ``t^(1 - a)``, and its swings over a valley
    or a kink fade like ``t^(-a)``, where constant steps leave them as wide as they are. Adam's limit is known for
    steps that fade (Zhang, Zou & Cao 2024, "The implicit bias of Adam on separable data").

    Args:
        lr: the first step size (of the update itself where the optimizer is normalized).
        a: in [0, 1]: 0 is a constant step; above 1 the steps would sum to a finite length.
    """

    run_axis = True

    lr: float = per_run(0.01)
    a: float = per_run(0.5)

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        require(0 <= self.a <= 1, "a", self.a, "must be in [0, 1]: above it the steps sum to a finite length")

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Log lr - a log(t + 1)."""
        return log(self.lr, point.log_loss) - self.a * (t + 1).log()
