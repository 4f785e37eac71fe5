"""Momentum: heavy ball, Nesterov's, or an exponential mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.accumulators.accumulator import InItsGeometry, State, decay, faded
from robust_erm.core.fields import beside, number, per_run
from robust_erm.core.params import Layout
from robust_erm.schedules.schedule import log


@dataclass(frozen=True)
class Velocity(InItsGeometry):
    """``v <- beta v + grad L``, and v is what is given (torch.optim.SGD's form).

    Args:
        beta: in [0, 1).
        nesterov: ``grad L + beta v`` is given, as after one step more.
        mean: what is given is multiplied by 1 - beta: with v that is the exponential mean of the gradients.

    Reference:
        Polyak 1964; Nesterov 1983, as Sutskever et al. 2013 write it.
    """

    run_axis = True

    beta: float = per_run(0.9)
    nesterov: bool = False
    mean: bool = False

    def __post_init__(self) -> None:
        decay("beta", self.beta)

    @property
    def name(self) -> str:
        """``nesterov``, ``mean``, or ``momentum``."""
        return "nesterov" if self.nesterov else "mean" if self.mean else "momentum"

    @property
    def scales_with_loss(self) -> bool:
        """False: the velocity remembers larger losses, and a step like 1 / loss would blow it up."""
        return False

    def init(self, theta: Tensor, layout: Layout) -> State:
        """v~ = 0, and no unit yet."""
        return {"velocity": torch.zeros_like(theta), "unit": torch.full_like(theta[0], -torch.inf)}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.accumulators.accumulator.Accumulator`."""
        unit, old, new = faded(log_loss, state["unit"], log(self.beta, log_loss))
        now = beside(new) * grad
        velocity = beside(self.beta * old) * state["velocity"] + now
        given = now + beside(self.beta) * velocity if self.nesterov else velocity
        scale = unit + (1 - number(self.beta, log_loss)).log() if self.mean else unit
        return given, scale, {"velocity": velocity, "unit": unit}
