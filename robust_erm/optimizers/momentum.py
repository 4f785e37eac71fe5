"""Gradient descent with heavy-ball momentum, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_erm.accumulators.momentum import Velocity
from robust_erm.core.fields import per_run
from robust_erm.geometries.lp import Lp
from robust_erm.optimizers.optimizer import Composed


@dataclass(frozen=True)
class Momentum(Composed):
    """``v <- beta v + grad L``, ``theta <- theta - eta v`` (torch.optim.SGD's form).

    Args:
        beta: in [0, 1).
        schedule: step sizes.
    """

    run_axis = True
    geometry = Lp(2.0)
    normalized = False

    schedule: Any
    beta: float = per_run(0.9)

    def __post_init__(self) -> None:
        _ = self.accumulator

    @property
    def accumulator(self) -> Velocity:
        """Of this decay."""
        return Velocity(self.beta)
