"""Adam (Kingma & Ba 2015), for comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.fields import beside, per_run
from robust_erm.core.params import Layout
from robust_erm.optimizers.optimizer import State
from robust_erm.schedules.schedule import log


@dataclass(frozen=True)
class Adam:
    """Adam on L; the update is ``m^ / (sqrt(v^) + epsilon)`` as in torch.optim.Adam.

    ``m = exp(unit) m~`` and ``v = exp(2 unit) v~``, with a unit that follows log L down at most as
    fast as v can forget, ``max(log L, unit + log(beta2) / 2)``: nothing over- or underflows. With
    epsilon > 0 the steps fade once L << epsilon.

    Args:
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: 1e-8 is PyTorch's default; 0 keeps the method invariant to the scale of the loss.
        schedule: step sizes.
    """

    run_axis = True

    schedule: Any
    beta1: float = per_run(0.9)
    beta2: float = per_run(0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        require(0 <= self.beta1 < 1, "beta1", self.beta1, "must be in [0, 1)")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "must be in [0, 1)")
        require(0 <= self.epsilon < math.inf, "epsilon", self.epsilon, "must be 0 or more, and finite")

    @property
    def scales_with_loss(self) -> bool:
        """False: the length of the gradient cancels."""
        return False

    def init(self, theta: Tensor) -> State:
        """Zero moments."""
        unit, count = torch.full_like(theta[0], -torch.inf), torch.zeros_like(theta[0])
        return {"m": torch.zeros_like(theta), "v": torch.zeros_like(theta), "unit": unit, "count": count}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.optimizers.optimizer.Optimizer`."""
        unit = torch.maximum(log_loss, state["unit"] + log(self.beta2, log_loss) / 2)
        forget, scaled = (state["unit"] - unit).exp(), beside((log_loss - unit).exp()) * grad
        count = state["count"] + 1
        m = beside(self.beta1 * forget) * state["m"] + beside(1 - self.beta1) * scaled
        v = beside(self.beta2 * forget**2) * state["v"] + beside(1 - self.beta2) * scaled**2
        # beta^count by exp and log, which give a number the same bits wherever it lies in a tensor, as pow does not
        seen1, seen2 = (1 - (count * log(beta, log_loss)).exp() for beta in (self.beta1, self.beta2))
        size = (v / beside(seen2)).sqrt()
        if self.epsilon:
            size = size + beside(self.epsilon * (-unit).exp())
        direction = torch.where(size > 0, m / beside(seen1) / size, 0.0)
        return direction, torch.zeros_like(log_loss), {"m": m, "v": v, "unit": unit, "count": count}
