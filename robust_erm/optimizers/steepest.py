"""Steepest descent with respect to an l_r norm: GD, coordinate descent, sign descent and others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from robust_erm.accumulators.none import NoMemory
from robust_erm.geometries.lp import Lp
from robust_erm.optimizers.optimizer import Composed


@dataclass(frozen=True)
class Steepest(Composed):
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
    accumulator = NoMemory()

    schedule: Any
    r: float = 2.0
    normalized: bool = False

    def __post_init__(self) -> None:
        _ = self.geometry

    @property
    def geometry(self) -> Lp:
        """l_r."""
        return Lp(self.r)

    @property
    def nickname(self) -> str:
        """gd, cd, sd, or steepest<r>: for names of folders."""
        return {1.0: "cd", 2.0: "gd", math.inf: "sd"}.get(self.r, f"steepest{self.r:g}")
