"""Steepest descent with respect to an l_r norm: GD, coordinate descent, sign descent and others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout
from robust_erm.optimizers.optimizer import Normalizable, State


@dataclass(frozen=True)
class Steepest(Normalizable):
    """``theta - eta u``, ``u = argmax_{||u||_r <= 1} <u, grad L>``, times ``||grad L||_{r*}``.

    r = 2 is gradient descent, r = 1 coordinate descent (one coordinate of all parameters),
    r = inf sign descent. With ``normalized`` the factor ``||grad L||_{r*}`` is left out.

    Args:
        r: exponent of the optimizer's norm, in [1, inf].
        normalized: see above.
        schedule: step sizes.

    Reference:
        tsilivis2024 Sec. 4.1, eq. (9).
    """

    run_axis = True

    schedule: Any
    r: float = 2.0
    normalized: bool = False

    def __post_init__(self) -> None:
        require(self.r >= 1, "r", self.r, "steepest descent needs a norm: 1 <= r <= inf")

    @property
    def nickname(self) -> str:
        """gd, cd, sd, or steepest<r>: for names of folders."""
        return {1.0: "cd", 2.0: "gd", math.inf: "sd"}.get(self.r, f"steepest{self.r:g}")

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.optimizers.optimizer.Optimizer`."""
        norm = Norm(self.r)
        if self.normalized:
            return norm.steepest(grad), torch.zeros_like(log_loss), state
        if self.r == 2:
            return grad, log_loss, state
        return norm.dual.value(grad).unsqueeze(-1) * norm.steepest(grad), log_loss, state
