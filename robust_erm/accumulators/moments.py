"""Adam's moments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.accumulators.accumulator import State, decay, faded
from robust_erm.core.errors import require
from robust_erm.core.fields import beside, number, per_run
from robust_erm.core.params import Layout
from robust_erm.geometries.lp import Lp
from robust_erm.schedules.schedule import log


@dataclass(frozen=True)
class Moments:
    """``m^ / (sqrt(v^) + epsilon)`` of the means m of the gradients and v of their squares, each over its bias.

    ``m = exp(unit) m~`` and ``v = exp(2 unit) v~``. With epsilon > 0 what is given fades once L << epsilon.

    Args:
        beta1: decay of m, in [0, 1).
        beta2: decay of v, in [0, 1).
        epsilon: 1e-8 is PyTorch's default; 0 keeps the method invariant to the scale of the loss.

    Reference:
        Kingma & Ba 2015, Alg. 1.
    """

    run_axis = True

    beta1: float = per_run(0.9)
    beta2: float = per_run(0.999)
    epsilon: float = 1e-8

    name = "adam"

    def __post_init__(self) -> None:
        decay("beta1", self.beta1)
        decay("beta2", self.beta2)
        require(0 <= self.epsilon < math.inf, "epsilon", self.epsilon, "must be 0 or more, and finite")

    @property
    def scales_with_loss(self) -> bool:
        """False: the length of the gradient cancels."""
        return False

    def norm(self, geometry: Any) -> Any:
        """In l_2 that of l_inf for epsilon = 0 (Zhang, Zou & Cao 2024), of l_2 for more (Wang et al. 2021)."""
        return Lp(math.inf) if geometry == Lp(2.0) and self.epsilon == 0 else geometry

    def init(self, theta: Tensor, layout: Layout) -> State:
        """Zero moments."""
        unit, count = torch.full_like(theta[0], -torch.inf), torch.zeros_like(theta[0])
        return {"m": torch.zeros_like(theta), "v": torch.zeros_like(theta), "unit": unit, "count": count}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.accumulators.accumulator.Accumulator`."""
        unit, old, new = faded(log_loss, state["unit"], log(self.beta2, log_loss) / 2)
        beta1, beta2, count = number(self.beta1, log_loss), number(self.beta2, log_loss), state["count"] + 1
        root = beside((1 - beta2).sqrt() * new) * grad
        m = (beside(beta1 * old) * state["m"]).add_(beside((1 - beta1) * new) * grad)
        v = (beside(beta2 * old**2) * state["v"]).add_(root * root)
        # beta^count by exp and log, which give a number the same bits wherever it lies in a tensor, as pow does not
        seen1, seen2 = (1 - (count * log(beta, log_loss)).exp() for beta in (self.beta1, self.beta2))
        size = v.sqrt().mul_(beside(seen1 / seen2.sqrt()))  # times seen1, so that m need not be divided by it
        if self.epsilon:
            size.add_(beside(self.epsilon * seen1 * (-unit).exp()))
        given = torch.where(size > 0, m / size, 0.0)
        return given, torch.zeros_like(log_loss), {"m": m, "v": v, "unit": unit, "count": count}
