"""Mirror descent with an l_r potential: p-GD."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.norms import power
from robust_erm.core.params import Layout
from robust_erm.geometries.lp import Lp
from robust_erm.optimizers.optimizer import State


@dataclass(frozen=True)
class Mirror:
    """``grad psi(theta_{t+1}) = grad psi(theta_t) - eta grad L`` for ``psi = sum_j |theta_j|^r / r``, entry by entry.

    r = 2 is gradient descent; others go to the l_r margin of linear models, as steepest descent in l_r does, on
    another way.

    Args:
        r: exponent of the potential, the papers' p, above 1 and finite.
        schedule: step sizes.

    Reference:
        Sun, Ahn, Thrampoulidis & Azizan 2022, "Mirror descent maximizes generalized margin and can be implemented
        efficiently", eq. (p-GD).
    """

    run_axis = True

    schedule: Any
    r: float = 3.0

    def __post_init__(self) -> None:
        require(1 < self.r < math.inf, "r", self.r, "must be above 1 and finite: the potential is strictly convex")

    @property
    def nickname(self) -> str:
        """``mirror3``: for names of folders."""
        return f"mirror{self.r:g}"

    @property
    def norm(self) -> Lp:
        """l_r."""
        return Lp(self.r)

    @property
    def scales_with_loss(self) -> bool:
        """Yes."""
        return True

    def init(self, theta: Tensor) -> State:
        """No state."""
        return {}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """The gradient, which moves ``grad psi``."""
        return grad, log_loss, state

    def moved(self, theta: Tensor, step: Tensor) -> Tensor:
        """See :class:`robust_erm.optimizers.optimizer.Optimizer`."""
        dual = theta.sign() * power(theta.abs(), self.r - 1) - step
        return dual.sign() * power(dual.abs(), 1 / (self.r - 1))
