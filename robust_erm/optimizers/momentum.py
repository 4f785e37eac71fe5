"""Gradient descent with heavy-ball momentum, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.errors import require
from robust_erm.optimizers.optimizer import State
from robust_erm.params import Layout


@dataclass(frozen=True)
class Momentum:
    """``v <- beta v + grad L``, ``theta <- theta - eta v`` (torch.optim.SGD's form).

    ``v`` is kept in units of the current loss, ``v = L v~``, so nothing underflows.

    Args:
        beta: in [0, 1).
        schedule: step sizes.
    """

    schedule: Any
    beta: float = 0.9

    def __post_init__(self) -> None:
        require(0 <= self.beta < 1, "beta", self.beta, "must be in [0, 1)")

    @property
    def scales_with_loss(self) -> bool:
        """True."""
        return True

    def init(self, theta: Tensor) -> State:
        """v~ = 0, and the loss that it is measured in."""
        return {"velocity": torch.zeros_like(theta), "log_loss": theta.new_zeros(())}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.optimizers.optimizer.Optimizer`."""
        velocity = self.beta * (state["log_loss"] - log_loss).exp() * state["velocity"] + grad
        return velocity, log_loss, {"velocity": velocity, "log_loss": log_loss}
