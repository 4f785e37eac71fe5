"""eta_t = min(eta_plus, 1 / ((B + eps)^2 L_t))."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.fields import per_run
from robust_erm.schedules.schedule import Memoryless, Point, State, log


@dataclass(frozen=True)
class BoundedLoss(Memoryless):
    """tsilivis2024's step, ``min(eta_plus, 1 / ((B + eps)^2 L_t))``.

    In the log domain: the constant step ``1/(B + eps)^2`` on log L until the cap binds. B is the
    largest l_inf norm of a training point, for every optimizer (the paper's choice, also for GD).

    Args:
        eta_plus: the cap; 1e5 in the paper.

    Reference:
        tsilivis2024 App. F.1.
    """

    run_axis = True

    eta_plus: float = per_run(1e5)

    def __post_init__(self) -> None:
        require(self.eta_plus > 0, "eta_plus", self.eta_plus, "must be positive")

    @property
    def divides_by_loss(self) -> bool:
        """Until the cap binds."""
        return True

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Log of the above."""
        return torch.minimum(log(self.eta_plus, point.log_loss), -2 * (bound + eps).log() - point.log_loss)
