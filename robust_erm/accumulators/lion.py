"""Two means of one memory, as Lion has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.accumulators.accumulator import InItsGeometry, State, decay, faded
from robust_erm.core.fields import beside, number, per_run
from robust_erm.core.params import Layout
from robust_erm.schedules.schedule import log


@dataclass(frozen=True)
class TwoMeans(InItsGeometry):
    """``beta1 m + (1 - beta1) grad L`` is given, then ``m <- beta2 m + (1 - beta2) grad L``.

    With beta1 = beta2^2 this is Nesterov's momentum, up to a factor; with beta1 = beta2 an exponential mean.

    Args:
        beta1: share of the memory in what is given, in [0, 1).
        beta2: decay of the memory, in [0, 1).

    Reference:
        Chen et al. 2023, "Symbolic discovery of optimization algorithms", Program 1.
    """

    run_axis = True

    beta1: float = per_run(0.9)
    beta2: float = per_run(0.99)

    name = "lion"

    def __post_init__(self) -> None:
        decay("beta1", self.beta1)
        decay("beta2", self.beta2)

    @property
    def scales_with_loss(self) -> bool:
        """False: it remembers larger losses."""
        return False

    def init(self, theta: Tensor, layout: Layout) -> State:
        """m~ = 0, and no unit yet."""
        return {"mean": torch.zeros_like(theta), "unit": torch.full_like(theta[0], -torch.inf)}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.accumulators.accumulator.Accumulator`."""
        unit, old, new = faded(log_loss, state["unit"], log(self.beta2, log_loss))
        before, now = beside(old) * state["mean"], beside(new) * grad
        beta1, beta2 = number(self.beta1, log_loss), number(self.beta2, log_loss)
        given = beside(beta1) * before + beside(1 - beta1) * now
        mean = beside(beta2) * before + beside(1 - beta2) * now
        return given, unit, {"mean": mean, "unit": unit}
