"""Short ways to another label: upper bounds on the distance of points to the decision boundary, each attained.

A point has another label where its margin is 0 or less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robust_erm.attacks.attack import Victim, into_box, rivals
from robust_erm.attacks.fab import FAB, linearised, nearest_zero
from robust_erm.core.marked import taken
from robust_erm.core.norms import Norm

_HALVINGS = 60  # of the segment from a point to what was found: its end is exact to rounding
_REFINED = 3  # times at most: once is enough where the boundary is flat
_BEYOND = 1 + 1e-6  # a linearised boundary, so that rounding does not hide that it is crossed


def across(x: Tensor, y: Tensor, points: Tensor, labels: Tensor, norm: Norm, many: int = 3) -> list[Tensor]:
    """The ``many`` nearest of ``points`` (..., m, d) with another label of each x_i (..., n, d); fewer where there are.

    A network that fits the points has its boundary between the two. May have leading axes, of runs.
    """
    points, labels = points.to(x), labels.to(y)
    alike = y.unsqueeze(-1) == labels.unsqueeze(-2)
    if not alike.numel():
        return []
    many = min(many, int((~alike).sum(-1).min()))
    away = torch.cdist(x, points, p=norm.p).masked_fill(alike, math.inf)
    order = away.topk(many, largest=False).indices
    return [taken(points, order[..., k]) for k in range(many)]


def nearest(
    outputs: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    p: float,
    steps: int = 100,
    starts: Sequence[Tensor] = (),
    targets: int = 9,
    box: tuple[float, float] | None = None,
) -> Tensor:
    """:func:`shortest` of a model that is a function.

    Args:
        outputs: x (n, d) -> one logit each, (n,), or several, (n, C).
        x: (n, d), float64.
        y: (n,), in {-1, +1} or classes.
        p: see :func:`shortest`.
        steps: as there.
        starts: as there.
        targets: as there.
        box: that x' must stay in, or None.
    """
    return shortest(Victim(outputs, x, y, box, None), p, steps, starts, targets)


def shortest(victim: Victim, p: float, steps: int = 100, starts: Sequence[Tensor] = (), targets: int = 9) -> Tensor:
    """Short perturbations (n, d) to the decision boundary: 0 where a label is wrong already, inf where none was found.

    FAB without a radius, from x itself towards each of the nearest rivals, and from each start towards the rival that
    is strongest there; then bisection, of the ways to what FAB found and of the ways to the starts. The shortest is
    refined: x is projected onto the boundary as it is at that end.

    Args:
        victim: model, points x (n, d) in float64, and the box that x' must stay in, its domain.
        p: 1, 2 or inf: what is made short.
        steps: of FAB, from each start.
        starts: (n, d) each, beside x itself: points that may have another label.
        targets: with several classes, so many of the nearest rivals.
    """
    x, y, outputs, norm = victim.x, victim.y, victim.outputs, Norm(p)
    fab, unbounded = FAB(p, steps, targets), torch.full((1,), math.inf, dtype=x.dtype, device=x.device)
    best, least = torch.full_like(x, math.inf), torch.full_like(x[:, 0], math.inf)
    tries: list[tuple[Tensor | None, Tensor | None]] = [(None, rival) for rival in rivals(outputs(x), y, targets)]
    tries += [(start, rivals(outputs(start), y, 1)[0]) for start in starts]

    def shorter(end: Tensor) -> tuple[Tensor, Tensor]:
        step = to_boundary(victim, end)
        length = lengths(norm, step)
        return torch.where((length < least).unsqueeze(-1), step, best), torch.minimum(length, least)

    for start, rival in tries:
        best, least = shorter(fab.search(victim, unbounded, rival, start))
        if start is not None:
            best, least = shorter(start)
    for _ in range(_REFINED):
        best, least = shorter(_projected(victim, norm, best))
    return torch.where((victim.margin(x) > 0).unsqueeze(-1), best, 0.0)


def _projected(victim: Victim, norm: Norm, step: Tensor) -> Tensor:
    """The nearest points (n, d) to ``victim.x`` beyond the boundary as it is, linearised, at the ends of ``step``."""
    x, box = victim.x, victim.domain
    at = x + torch.where(step.isfinite(), step, 0.0)
    value, w = linearised(victim, rivals(victim.outputs(at), victim.y, 1)[0], at)
    near = nearest_zero(norm, w, value + (w * (x - at)).sum(-1), x, box)
    return into_box(x + _BEYOND * near, box)


def to_boundary(victim: Victim, ends: Tensor) -> Tensor:
    """The steps (n, d) from ``victim.x`` to a boundary on the way to ``ends`` (n, d), by bisection; inf without one."""
    way = ends - victim.x
    inside, outside = torch.zeros_like(way[:, :1]), torch.ones_like(way[:, :1])
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        beyond = (victim.margin(victim.x + middle * way) <= 0).unsqueeze(-1)
        inside, outside = torch.where(beyond, inside, middle), torch.where(beyond, middle, outside)
    found = (victim.margin(victim.x + outside * way) <= 0).unsqueeze(-1)
    return torch.where(found, outside * way, math.inf)


def lengths(norm: Norm, step: Tensor) -> Tensor:
    """Of each row (n,); inf of one that is."""
    finite = step.isfinite().all(-1)
    return torch.where(finite, norm.value(torch.where(finite.unsqueeze(-1), step, 0.0)), math.inf)
