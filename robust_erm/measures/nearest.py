"""How near the closest points of another label are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.attacks.victims import victim_of
from robust_erm.core.errors import at_most, one_of, require
from robust_erm.core.norms import Norm
from robust_erm.measures.measure import Look
from robust_erm.measures.universal import direction
from robust_erm.oracles.boundary import across, lengths, shortest


@dataclass(frozen=True)
class Nearest:
    """Distances, in the threat's norm, from training points on the margin to the nearest points of another label.

    Found by FAB without a radius, from the point itself and from the three nearest training points of the other label,
    and brought back to the boundary (:func:`robust_erm.oracles.boundary.nearest`): upper bounds of the least distances,
    each attained.
    ``nearest_least`` and ``nearest_median`` are over the first ``points`` of the points on the margin;
    ``nearest_cosine`` is the mean cosine of these perturbations with ``-y_i z``, ``z = sum_{i in I} y_i x_i``, the
    direction of :class:`robust_erm.measures.universal.Universal`. All are nan where the least margin is not positive,
    inf where nothing is found. The data's domain is not kept to. For one logit, and p = 1, 2 or inf.

    Args:
        when: ``end``, or ``along`` training.
        attack: after which margins say which points are on the margin, see :class:`Universal`.
        slack: 0.1 in vardi2022 Sec. 6.
        points: at most so many of them.
        steps: of FAB, from each start.

    Reference:
        Croce & Hein 2020.
    """

    when: str = "end"
    attack: str = "clean"
    slack: float = 0.1
    points: int = 100
    steps: int = 50

    def __post_init__(self) -> None:
        one_of("when", self.when, ("along", "end"))
        require(self.slack >= 0, "slack", self.slack, "must be 0 or more")
        at_most("points", self.points, 10**9)
        at_most("steps", self.steps, 10**6)

    def check_fits(self, run: Any) -> None:
        """Raise :class:`ConfigError` for several classes, or a threat that FAB does not know."""
        require(run.outputs == 1, "model", f"of {run.outputs} logits", "nearest points are searched for one logit")
        require(run.p in (1, 2, math.inf), "p", run.p, "nearest points are searched in l_1, l_2 and l_inf")

    def measure(self, look: Look) -> dict[str, float | Tensor]:
        """As above."""
        (x, y), q = look.points(), look.margins(self.attack)
        names = ("nearest_least", "nearest_median", "nearest_cosine")
        if not float(q.min()) > 0:
            return dict.fromkeys(names, math.nan)
        near, z = direction(x, y, q, self.slack)
        rows = near.nonzero().squeeze(-1)[: self.points]
        x, y, z = x[rows].double(), y[rows].double(), z.double()
        params = {name: value.double() for name, value in look.params.items()}
        starts = across(x, y, *look.points(), Norm(look.attack.p))
        step = shortest(victim_of(look.model, params, x, y, None), look.attack.p, self.steps, starts)
        length, found = lengths(Norm(look.attack.p), step), step.isfinite().all(-1)
        cosine = torch.cosine_similarity(step, -y.unsqueeze(-1) * z, dim=-1)[found].mean()
        return dict(zip(names, (length.min(), length.median(), cosine), strict=True))
