"""How near the closest points of another label are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.attacks.attack import Victim
from robust_erm.attacks.fab import FAB
from robust_erm.core.errors import at_most, one_of, require
from robust_erm.core.norms import Norm
from robust_erm.measures.measure import Look
from robust_erm.measures.universal import direction

_HALVINGS = 60  # of the segment from a point to what FAB found: its end is exact to rounding


@dataclass(frozen=True)
class Nearest:
    """Distances, in the threat's norm, from training points on the margin to the nearest points of another label.

    Found by FAB without a radius and brought back to the boundary along the segment to the training point: upper
    bounds of the least distances, each attained. ``nearest_least`` and ``nearest_median`` are over the first
    ``points`` of the points on the margin; ``nearest_cosine`` is the mean cosine of these perturbations with ``-y_i
    z``, ``z = sum_{i in I} y_i x_i``, the direction of :class:`robust_erm.measures.universal.Universal`. All are nan
    where the least margin is not positive, inf where FAB finds nothing. The data's domain is not kept to. For one
    logit, and p = 1, 2 or inf.

    Args:
        when: ``end``, or ``along`` training.
        attack: after which margins say which points are on the margin, see :class:`Universal`.
        slack: 0.1 in vardi2022 Sec. 6.
        points: at most so many of them.
        steps: of FAB.

    Reference:
        Croce & Hein 2020.
    """

    when: str = "end"
    attack: str = "clean"
    slack: float = 0.1
    points: int = 100
    steps: int = 100

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
        step = nearest(lambda points: look.model.apply(params, points), x, y, look.attack.p, self.steps)
        lengths = torch.where(step.isfinite().all(-1), Norm(look.attack.p).value(step), math.inf)
        cosine = torch.cosine_similarity(step, -y.unsqueeze(-1) * z, dim=-1).mean()
        return dict(zip(names, (lengths.min(), lengths.median(), cosine), strict=True))


def nearest(outputs: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, p: float, steps: int = 100) -> Tensor:
    """Short perturbations (n, d) to the decision boundary: 0 where a label is wrong already, inf where none was found.

    Args:
        outputs: x (n, d) -> one logit each, (n,).
        x: (n, d), float64.
        y: (n,), in {-1, +1}.
        p: 1, 2 or inf: what FAB makes short.
        steps: of FAB.
    """
    victim = Victim(outputs, x, y, None, None)
    unbounded = torch.full((1,), math.inf, dtype=x.dtype, device=x.device)
    step = FAB(p, steps, box=False).perturb(victim, unbounded, x.new_empty(0)) - x
    wrong = victim.margin(x) <= 0
    inside, outside = torch.zeros(len(x), 1).to(x), torch.ones(len(x), 1).to(x)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        beyond = (victim.margin(x + middle * step) <= 0).unsqueeze(-1)
        inside, outside = torch.where(beyond, inside, middle), torch.where(beyond, middle, outside)
    found = (victim.margin(x + outside * step) <= 0) & ~wrong
    return torch.where(found.unsqueeze(-1), outside * step, torch.where(wrong.unsqueeze(-1), 0.0, math.inf))
