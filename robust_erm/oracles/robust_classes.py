"""The largest robust margin of a linear model of several classes, in any geometry, from both sides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from robust_erm.core.linalg import own_class
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout
from robust_erm.geometries.geometry import Geometry
from robust_erm.geometries.lp import Lp
from robust_erm.oracles.linearised import best_least

_ROUNDS = 60
_GAP = 1e-3  # relative
_ZERO = 1e-12  # of the largest coordinate: bounds below are rounding


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

    Where both norms are polyhedral, l_1 or l_inf of all entries and of the threat, it is a linear program first
    (:func:`_linear_program`), whose gap is rounding; exchange follows only where that is not decided.

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

    def better(w: Tensor) -> tuple[Tensor, float]:
        """The best W so far, and its margin: w at norm 1, where that reaches more."""
        size = float(geometry.value(w.flatten(), layout))
        if size > 0 and (reached := float(robust_margin(w / size, x, y, eps, p))) > value:
            return w / size, reached
        return best, value

    if eps and isinstance(geometry, Lp) and {geometry.r, p} <= {1.0, math.inf}:
        w, upper = _linear_program(geometry, rows, signs, eps, p)
        best, value = better(w)
        nothing = upper <= _ZERO * float(rows.abs().max())
        if math.isfinite(upper) and (nothing or upper - value <= gap * upper):
            return Separator(best, value, upper)
    for _ in range(_ROUNDS):
        bounds = best_least(geometry, layout, rows, gap / 3)
        upper = min(upper, bounds.high)
        u = bounds.u.reshape(classes, -1)
        asked = [u, (u + best) / 2, (u + 3 * best) / 4] if eps else [u]
        for w in asked:
            best, value = better(w)
        if eps == 0 or upper <= 0 or upper - value <= gap * upper:
            break
        near = torch.from_numpy(bounds.lam > 1e-6) | (rows @ bounds.u < 1.1 * bounds.low)  # the others hold nothing up
        attacked = torch.stack([points - eps * threat.steepest(signs @ w) for w in asked])
        found = (signs.unsqueeze(-1) * attacked.unsqueeze(-2)).flatten(0, 1).flatten(1)
        rows = torch.cat([rows[near], found[found @ bounds.u < bounds.low]])
    return Separator(best, value, upper)


def _linear_program(geometry: Lp, rows: Tensor, signs: Tensor, eps: float, p: float) -> tuple[Tensor, float]:
    """A W (C, d), and a bound on the margin of every W of norm 1, for norms that are l_1 or l_inf.

    ``max t  s.t.  <g_k, W> - eps S_ab >= t`` for every row k, of classes a and b, with ``S_ab >= ||w_a - w_b||_{p*}``
    and ``||W|| <= 1``. Multipliers lam of the rows and delta_ab of the second kind, put on the simplex and into the
    ball of radius eps M_ab, M_ab being what lam puts on a and b, prove
    ``t <= ||sum_k lam_k g_k - sum_ab (e_a - e_b) delta_ab'||_*``.

    Args:
        geometry: l_1 or l_inf of all entries.
        rows: g_k (k, C d).
        signs: e_a - e_b (k, C).
        eps: radius.
        p: 1 or inf.
    """
    scale = float(rows.abs().max()) or 1.0
    g, radius, of_row = rows.numpy() / scale, eps / scale, signs.numpy()
    k, classes, d = *of_row.shape, rows.shape[1] // signs.shape[1]
    pairs = [(a, b) for a in range(classes) for b in range(a)]
    both = np.stack([(of_row[:, a] != 0) & (of_row[:, b] != 0) for a, b in pairs], axis=1).astype(float)  # (k, pairs)
    apart = np.stack([np.eye(classes)[a] - np.eye(classes)[b] for a, b in pairs])  # (pairs, C)
    many, each = len(pairs), d if p == math.inf else 1  # numbers whose sum is S_ab: of every coordinate, or one for all
    w_minus_w = sparse.kron(apart, sparse.eye(d))  # (pairs d, C d)
    sizes = sparse.kron(sparse.eye(many), np.eye(d) if each == d else np.ones((d, 1)))
    size, sums = classes * d, sparse.kron(both, np.ones((1, each)))  # (k, pairs each)
    of_norm = size if geometry.r == 1 else 0  # numbers v >= |W|, whose sum is at most 1
    no = sparse.csr_array
    blocks = [
        [-g, radius * sums, no((k, of_norm)), np.ones((k, 1))],
        [w_minus_w, -sizes, no((many * d, of_norm)), None],
        [-w_minus_w, -sizes, no((many * d, of_norm)), None],
    ]
    if of_norm:
        eye = sparse.eye(size)
        blocks += [[eye, None, -eye, None], [-eye, None, -eye, None], [None, None, np.ones((1, size)), None]]
    matrix = sparse.block_array([[None if b is None else no(b) for b in row] for row in blocks], format="csr")
    limits = np.zeros(matrix.shape[0])
    limits[-1:] = float(bool(of_norm))
    box = (None, None) if of_norm else (-1, 1)
    bounds = [box] * size + [(0, None)] * (many * each + of_norm) + [(None, None)]
    found = linprog(np.r_[np.zeros(matrix.shape[1] - 1), -1.0], matrix, limits, bounds=bounds, method="highs")
    lam = np.zeros(k) if found.x is None else np.maximum(-found.ineqlin.marginals[:k], 0)
    if not lam.sum() > 0:
        return torch.zeros(classes, d, dtype=rows.dtype), math.inf
    total, lam = lam.sum(), lam / lam.sum()
    one, other = (found.ineqlin.marginals[at : at + many * d].reshape(many, d) for at in (k, k + many * d))
    delta, most = (other - one) / total, radius * lam @ both
    length = np.abs(delta).max(1) if p == math.inf else np.abs(delta).sum(1)
    delta *= np.minimum(1, most / np.where(length > 0, length, 1.0))[:, None]
    combined = torch.from_numpy(lam @ g - (apart.T @ delta).ravel())
    upper = float(Norm(geometry.r).dual.value(combined)) * scale
    return torch.from_numpy(found.x[:size]).reshape(classes, d), upper
