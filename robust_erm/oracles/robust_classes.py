"""The largest robust margin of a linear model of several classes, in any geometry, from both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.linalg import own_class
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout
from robust_erm.geometries.geometry import Geometry
from robust_erm.oracles.linearised import best_least

_ROUNDS = 60
_GAP = 1e-3  # relative


@dataclass(frozen=True)
class Separator:
    """``max_{||W|| <= 1} min_i min_{c != y_i} <w_{y_i} - w_c, x_i> - eps ||w_{y_i} - w_c||_{p*}``.

    Args:
        w: (C, d), of norm 1 at most, which reaches ``value``.
        value: 0 where no W separates.
        upper: no W exceeds it.
    """

    w: Tensor
    value: float
    upper: float


def robust_margin(w: Tensor, x: Tensor, y: Tensor, eps: float, p: float) -> Tensor:
    """Of w (C, d) at x (n, d) with classes y (n,): that minimum of :class:`Separator` over the points, ()."""
    apart = w[y.long()].unsqueeze(1) - w  # (n, C, d)
    each = (apart @ x.unsqueeze(-1)).squeeze(-1) - eps * Norm(p).dual.value(apart)
    return torch.where(own_class(len(w), y), torch.inf, each).min()


def robust_max_margin_of_classes(
    geometry: Geometry, x: Tensor, y: Tensor, eps: float, p: float, gap: float = _GAP
) -> Separator:
    """By exchange: the best W against the attacks found so far, then the worst attacks on that W, and again.

    Against finitely many attacked points ``x_i + delta`` the margin is the least of linear functions of W, which
    :func:`robust_erm.oracles.linearised.best_least` maximises from both sides; its upper side holds for all attacks
    too, which only add constraints. Its W is then attacked in closed form, and so are points on the way from it to the
    best W so far: that keeps W from jumping between corners of a ball that has some.

    Args:
        geometry: a norm of W; its ``steepest`` must be exact.
        x: (n, d).
        y: (n,) classes 0 to C - 1.
        eps: radius of the threat.
        p: exponent of its norm.
        gap: relative, between the two sides; or what is left of it after 60 rounds.
    """
    x, classes, threat = x.double(), int(y.max()) + 1, Norm(p)
    layout = Layout((("w", (classes, x.shape[1])),))
    of_class = torch.eye(classes, dtype=x.dtype)
    signs = (of_class[y.long()].unsqueeze(1) - of_class)[~own_class(classes, y)]  # (n (C - 1), C)
    points = x.repeat_interleave(classes - 1, 0)
    rows = (signs.unsqueeze(-1) * points.unsqueeze(1)).flatten(1)
    best, value, upper = torch.zeros(classes, x.shape[1], dtype=x.dtype), 0.0, torch.inf
    for _ in range(_ROUNDS):
        bounds = best_least(geometry, layout, rows, gap / 3)
        upper = min(upper, bounds.high)
        u = bounds.u.reshape(classes, -1)
        asked = [u, (u + best) / 2, (u + 3 * best) / 4] if eps else [u]
        for w in asked:
            size = float(geometry.value(w.flatten(), layout))
            if size > 0 and (reached := float(robust_margin(w / size, x, y, eps, p))) > value:
                best, value = w / size, reached
        if eps == 0 or upper <= 0 or upper - value <= gap * upper:
            break
        near = torch.from_numpy(bounds.lam > 1e-6) | (rows @ bounds.u < 1.1 * bounds.low)  # the others hold nothing up
        attacked = torch.stack([points - eps * threat.steepest(signs @ w) for w in asked])
        found = (signs.unsqueeze(-1) * attacked.unsqueeze(-2)).flatten(0, 1).flatten(1)
        rows = torch.cat([rows[near], found[found @ bounds.u < bounds.low]])
    return Separator(best, value, upper)
