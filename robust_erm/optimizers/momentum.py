"""Gradient descent with heavy-ball momentum, for comparison."""

from __future__ import annotations

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
class Momentum:
    """``v <- beta v + grad L``, ``theta <- theta - eta v`` (torch.optim.SGD's form).

    ``v = exp(unit) v~``, with a unit that follows log L down at most as fast as v can forget,
    ``max(log L, unit + log beta)``: nothing over- or underflows.

    Args:
        beta: in [0, 1).
        schedule: step sizes.
    """

    run_axis = True

    schedule: Any
    beta: float = per_run(0.9)

    def __post_init__(self) -> None:
        require(0 <= self.beta < 1, "beta", self.beta, "must be in [0, 1)")

    @property
    def scales_with_loss(self) -> bool:
        """False: the velocity remembers larger losses, and a step like 1 / loss would blow it up."""
        return False

    def init(self, theta: Tensor) -> State:
        """v~ = 0, and no unit yet."""
        return {"velocity": torch.zeros_like(theta), "unit": torch.full_like(theta[0], -torch.inf)}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.optimizers.optimizer.Optimizer`."""
        unit = torch.maximum(log_loss, state["unit"] + log(self.beta, log_loss))
        kept = beside(self.beta * (state["unit"] - unit).exp()) * state["velocity"]
        velocity = kept + beside((log_loss - unit).exp()) * grad
        return velocity, unit, {"velocity": velocity, "unit": unit}
