"""l_r of all parameters together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.fields import beside
from robust_erm.core.margins import name_of
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout


@dataclass(frozen=True)
class Lp:
    """``||theta||_r`` of the concatenated parameters; the dual is l_r*, 1/r + 1/r* = 1.

    r = 2 is the geometry of gradient descent, 1 that of coordinate descent, inf that of sign descent.

    Args:
        r: exponent, in [1, inf].

    Raises:
        ConfigError: r < 1 or not a number.
    """

    run_axis = True

    r: float = 2.0

    def __post_init__(self) -> None:
        require(self.r >= 1, "r", self.r, "steepest descent needs a norm: 1 <= r <= inf")

    @property
    def name(self) -> str:
        """``l2``, ``linf``, ``l1_5``."""
        return name_of(self.r)

    def value(self, theta: Tensor, layout: Layout) -> Tensor:
        """As above."""
        return Norm(self.r).value(theta)

    def dual_value(self, g: Tensor, layout: Layout) -> Tensor:
        """As above."""
        return Norm(self.r).dual.value(g)

    def steepest(self, g: Tensor, layout: Layout) -> Tensor:
        """See :meth:`robust_erm.core.norms.Norm.steepest`."""
        return Norm(self.r).steepest(g)

    def sharp(self, g: Tensor, layout: Layout) -> Tensor:
        """G itself for r = 2."""
        return g if self.r == 2 else beside(self.dual_value(g, layout)) * self.steepest(g, layout)
