"""The limit of steepest descent, found without descending."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.params import Layout
from robust_erm.geometries.lp import Lp
from robust_erm.optimizers.optimizer import State


@dataclass(frozen=True)
class Oracle:
    """What steepest descent with respect to l_r converges to in direction: the robust max-margin separator.

    Nothing is trained: the run begins and ends, at step 0, with the solution of
    ``min ||w||_r  s.t.  y_i <w, x_i> - eps ||w||_{p*} >= 1``, found by a convex program that certifies
    itself (:func:`robust_erm.oracles.robust_margin.robust_max_margin`). With ``attack=none``, eps = 0.
    For linear models; for the diagonal network r = 1 is the limit in predictor space.

    Args:
        r: exponent of the optimizer's norm, in [1, inf].
        schedule: not used; changes nothing.

    Reference:
        tsilivis2024 Thm 4.3, eq. (12).
    """

    schedule: Any = field(metadata={"identity": False})
    r: float = 2.0

    def __post_init__(self) -> None:
        require(self.r >= 1, "r", self.r, "needs a norm: 1 <= r <= inf")

    @property
    def nickname(self) -> str:
        """Oracle1, oracle2, oracleinf: for names of folders."""
        return f"oracle{self.r:g}"

    @property
    def norm(self) -> Lp:
        """l_r."""
        return Lp(self.r)

    @property
    def limit(self) -> bool:
        """Whether the run is the limit itself."""
        return True

    @property
    def scales_with_loss(self) -> bool:
        """Of no meaning here; suits every schedule."""
        return True

    def init(self, theta: Tensor) -> State:
        """No state."""
        return {}

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """No move."""
        return torch.zeros_like(grad), torch.full_like(log_loss, -math.inf), state
