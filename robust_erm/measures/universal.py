"""How far along one direction all points on the margin change their label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from robust_erm.core.errors import one_of, require
from robust_erm.core.fields import later
from robust_erm.measures.measure import CLEAN, Look
from robust_erm.models.mlp import one_hidden_relu
from robust_erm.oracles.rays import flips


@dataclass(frozen=True)
class Universal:
    """The perturbation ``y_i c u`` that flips all points on the margin, u along ``z = sum_{i in I} y_i x_i``.

    I holds the points with margins of at most ``(1 + slack)`` the least. ``universal_distance`` is the least c with
    ``y_i f(x_i - y_i c u) < 0`` for all i in I, exact (:mod:`robust_erm.oracles.rays`); ``universal_distance_minus``
    the least with ``< -min_{j in I} y_j f(x_j)``. Both: inf for none. ``universal_first_median`` is the median over I
    of where each alone first flips; ``universal_share`` the share of *all* training points that are flipped at c;
    ``universal_crossings`` the most intervals on which one point of I is flipped, 1 where none comes back. All are nan
    where a margin is not positive. For nets with one hidden layer of ReLUs and one logit.

    Args:
        when: ``end``, or ``along`` training.
        slack: 0.1 in vardi2022 Sec. 6.
        attack: after which the margins q are that say who is on the margin: ``clean`` points as in the paper,
            ``worst``, or the name of an attack; what is moved along u is the clean point.

    Reference:
        vardi2022 Thm 4.1 and Sec. 6.1.
    """

    when: str = "end"
    slack: float = 0.1
    attack: str = later("clean")

    def __post_init__(self) -> None:
        one_of("when", self.when, ("along", "end"))
        require(self.slack >= 0, "slack", self.slack, "must be 0 or more")

    def check_fits(self, run: Any) -> None:
        """Raise :class:`ConfigError` for other nets."""
        says = "is not followed along rays: nets with one hidden layer of ReLUs and one logit are"
        require(one_hidden_relu(run.model) and run.outputs == 1, "model", type(run.model).__name__.lower(), says)

    def measure(self, look: Look) -> dict[str, float | Tensor]:
        """As above."""
        (x, y), q, clean = look.points(), look.margins(self.attack), look.margins(CLEAN)
        names = ("distance", "distance_minus", "first_median", "share", "crossings")
        if not min(float(q.min()), float(clean.min())) > 0:
            return {f"universal_{name}": math.nan for name in names}
        near, z = direction(x, y, q, self.slack)
        least = float(clean[near].min())
        rays = -y.unsqueeze(-1) * z / z.norm()
        own = flips(look.model, look.params, x[near], y[near], rays[near])
        beyond = flips(look.model, look.params, x[near], y[near], rays[near], level=-least)
        everyone = flips(look.model, look.params, x, y, rays)
        # at c itself one point is at 0, on neither side
        share = float(everyone.at(own.common * (1 + 1e-9)).mean()) if math.isfinite(own.common) else math.nan
        numbers = (own.common, beyond.common, float(np.median(own.first)), share, float(own.many.max()))
        return dict(zip((f"universal_{name}" for name in names), numbers, strict=True))


def direction(x: Tensor, y: Tensor, q: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """Which points are on the margin, (n,), those with ``q_i <= (1 + slack) min_j q_j``, and their sum of y_i x_i."""
    near = q <= (1 + slack) * q.min()
    return near, (y[near].unsqueeze(-1) * x[near]).sum(0)
