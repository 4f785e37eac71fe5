"""The gradient as it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.accumulators.accumulator import InItsGeometry, State
from robust_erm.core.params import Layout


@dataclass(frozen=True)
class NoMemory(InItsGeometry):
    """``grad L`` itself."""

    run_axis = True

    name = "steepest"

    @property
    def scales_with_loss(self) -> bool:
        """Yes."""
        return True

    def init(self, theta: Tensor, layout: Layout) -> State:
        """No state."""
        return {}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.accumulators.accumulator.Accumulator`."""
        return grad, log_loss, state
