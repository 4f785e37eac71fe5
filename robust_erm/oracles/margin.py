"""The l_p margin of a data set, with a certificate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.optimize import linprog, nnls

from robust_erm.core.norms import Norm
from robust_erm.oracles.cones import ConeProgram

Array = npt.NDArray[np.float64]
Solver = Callable[[Array, Array, float], tuple[Array, Array]]

_UNIT = 2.0**-53  # roundoff
_ZERO = 1e-12  # of the smallest point's norm: margins below cannot be told from none
_WIDE = 1e3  # ratio of norms of points from which each is solved for in its own units


@dataclass(frozen=True)
class MaxMargin:
    """``max_{||w||_r <= 1} min_i <z_i, w> - eps ||w||_{p*} = min ||Z' lam - delta||_{r*}``.

    The minimum is over lam in the simplex and ``||delta||_p <= eps``. Whatever solver was used, w proves
    ``value`` and (lam, delta) prove ``upper``.

    Args:
        value: reached by ``w``, by more than rounding; 0 where no w has a positive margin.
        w: (d,), ``||w||_r = 1``, or zero.
        upper: ``||Z' lam - delta||_{r*}``, an upper bound on every w's margin. Where value is 0 it is 0 too, but for
            rounding.
        lam: (m,) in the simplex. Where value is 0, ``||Z' lam||_p <= eps`` (to rounding) proves it: for every w
            ``min_i <z_i, w> <= <Z' lam, w> <= eps ||w||_{p*}`` (Farkas).
        delta: (d,).
    """

    value: float
    w: Array
    upper: float
    lam: Array
    delta: Array

    @property
    def gap(self) -> float:
        """Relative duality gap ``(upper - value) / upper``; 0 where there is no separator."""
        return 0.0 if self.value == 0 else (self.upper - self.value) / self.upper


@dataclass(frozen=True)
class Answer:
    """What one solver's (lam, w) prove of signed points, evaluated in our own arithmetic; ``none``: no separator."""

    value: float
    w: Array
    upper: float
    lam: Array
    none: bool

    @property
    def gap(self) -> float:
        """Relative; 1 where neither side is decided."""
        return 0.0 if self.none else 1.0 if self.value <= 0 else (self.upper - self.value) / self.upper


def max_margin(z: Array, p: float) -> MaxMargin:
    """The l_p margin eps* of signed points: how far each may move in l_p and still be separable.

    The case ``eps = 0, r = p*``. p = inf and p = 1 are linear programs (HiGHS interior point with
    crossover), p = 2 is non-negative least squares, any other p in (1, inf) a cone program (Clarabel,
    power cones). Another solver stands in where an answer is not good enough. Points of very different size are
    solved for in units of their own: which of them is largest decides nothing.

    Args:
        z: (m, d), rows ``y_i x_i``.
        p: exponent of the threat's norm, in [1, inf].

    Raises:
        ArithmeticError: not decided, with the interval that is known: the relative gap is above 1e-8 (1e-6 for
            exponents other than 1, 2 and inf). An answer is judged by its own primal and dual values, never by the
            solver's status. That there is no separator is said where a combination of the points is 0 to rounding,
            or below 1e-12 of the smallest point.

    Reference:
        tsilivis2024 Def. 4.1; eps* in Sec. 5.1 and App. F.1.
    """
    if not np.isfinite(z).all():
        raise ArithmeticError(f"l_{p:g} margin: the points are not finite")
    m, d = z.shape
    sizes = np.asarray(Norm(p).value(torch.from_numpy(np.ascontiguousarray(z))))
    least = int(sizes.argmin())
    if sizes[least] == 0:  # no w has a positive margin there
        return MaxMargin(0.0, np.zeros(d), 0.0, np.eye(1, m, least)[0], np.zeros(d))
    kept = _distinct(z)
    wide = float(sizes.max()) > _WIDE * float(sizes[least])
    scale = float(sizes[least]) if wide else float(np.abs(z).max())
    weights = sizes[least] / sizes[kept] if wide else np.ones(len(kept))
    points = z[kept] / scale
    rows = z[kept] / sizes[kept, None] if wide else points
    best: Answer | None = None
    for solve in _solvers(p):
        try:
            lam, w = solve(rows, weights, p)
        except (RuntimeError, ArithmeticError):  # no answer
            continue
        best = _joined(best, _certified(points, p, lam * weights, w, float(sizes[least]) / scale))
        if best.gap <= accepted(p):
            break
    if best is None or best.gap > accepted(p):
        low, high = (0.0, math.inf) if best is None else (best.value * scale, best.upper * scale)
        raise ArithmeticError(f"l_{p:g} margin: not decided; it lies in [{low:.10g}, {high:.10g}]")
    lam = np.zeros(m)
    lam[kept] = best.lam
    return MaxMargin(best.value * scale, best.w, best.upper * scale, lam, np.zeros(d))


def _distinct(z: Array) -> npt.NDArray[np.int64]:
    """Indices of the points, each once, in order."""
    _, first = np.unique(z, axis=0, return_index=True)
    return np.sort(first)


def _solvers(p: float) -> list[Solver]:
    own: dict[float, list[Solver]] = {
        math.inf: [_linear_program, partial(_linear_program, method="highs-ds")],
        1: [_game, partial(_game, method="highs-ds")],
        2: [_least_norm_point],
    }
    return [*own.get(p, []), _cones, _least_norm_point, _in_units_of_the_answer]


def _joined(a: Answer | None, b: Answer) -> Answer:
    """The better w and the better bound: each proves its own side."""
    if a is None or b.none:
        return b
    reached, bound = max(a, b, key=lambda x: x.value), min(a, b, key=lambda x: x.upper)
    return Answer(reached.value, reached.w, bound.upper, bound.lam, False)


def _certified(z: Array, p: float, lam: Array, w: Array, natural: float) -> Answer:
    """What (lam, w) prove of the points z, of which the smallest has the norm ``natural``."""
    m, d = z.shape
    nothing, even = np.zeros(d), np.full(m, 1 / m)
    lam = np.maximum(lam, 0)
    if not (np.isfinite(lam).all() and np.isfinite(w).all() and lam.sum() > 0):
        return Answer(0.0, nothing, math.inf, even, False)
    lam = lam / lam.sum()
    upper = norm(z.T @ lam, p)
    rounding = (m + 4) * _UNIT * norm(np.abs(z).T @ lam, p)
    if upper <= rounding + _ZERO * natural:
        return Answer(0.0, nothing, upper, lam, True)
    size = norm(w, Norm(p).dual.p)
    w = w / size if size > 0 else w
    margins = z @ w
    if not (margins > (d + 4) * _UNIT * (np.abs(z) @ np.abs(w))).all():  # positive by more than rounding
        return Answer(0.0, nothing, upper, lam, False)
    return Answer(float(margins.min()), w, upper, lam, False)


def accepted(*exponents: float) -> float:
    """The largest relative gap of an answer: 1e-8, or 1e-6 with exponents other than 1, 2 and inf."""
    return 1e-8 if {*exponents} <= {1, 2, math.inf} else 1e-6


def norm(x: Array, p: float) -> float:
    """``||x||_p``."""
    return float(Norm(p).value(torch.from_numpy(np.ascontiguousarray(x))))


def _linear_program(z: Array, weights: Array, p: float, method: str = "highs-ipm") -> tuple[Array, Array]:
    """Max <weights, lam>, ``-1 <= Z' lam <= 1``: lam up to scale, w the multipliers; unbounded where not separable."""
    d = z.shape[1]
    zt = sparse.csr_array(z.T)
    result = linprog(-weights, A_ub=sparse.vstack([zt, -zt]), b_ub=np.ones(2 * d), method=method)
    if result.x is None or result.x.sum() <= 0:
        return _least_largest(zt, weights, method)
    marginals = np.asarray(result.ineqlin.marginals)
    return np.asarray(result.x), marginals[d:] - marginals[:d]


def _least_largest(zt: sparse.csr_array, weights: Array, method: str) -> tuple[Array, Array]:
    """Min s with ``-s <= Z' lam <= s``, <weights, lam> = 1: feasible whatever the points, but slower."""
    d, m = zt.shape
    slack = sparse.csr_array(np.ones((d, 1)))
    result = linprog(
        np.r_[np.zeros(m), 1.0],
        A_ub=sparse.vstack([sparse.hstack([zt, -slack]), sparse.hstack([-zt, -slack])]),
        b_ub=np.zeros(2 * d),
        A_eq=sparse.csr_array(np.r_[weights, 0.0][None]),
        b_eq=[1.0],
        method=method,
    )
    marginals = np.asarray(_solved(result, math.inf).ineqlin.marginals)
    return np.asarray(result.x[:m]), marginals[d:] - marginals[:d]


def _game(z: Array, weights: Array, p: float, method: str = "highs-ipm") -> tuple[Array, Array]:
    """Max g with ``Z w >= g weights``, ``|w_j| <= 1``: w, and lam the multipliers."""
    m, d = z.shape
    result = linprog(
        np.r_[np.zeros(d), -1.0],
        A_ub=sparse.hstack([-sparse.csr_array(z), sparse.csr_array(weights[:, None])]),
        b_ub=np.zeros(m),
        bounds=[(-1, 1)] * d + [(None, None)],
        method=method,
    )
    return -np.asarray(_solved(result, 1).ineqlin.marginals), np.asarray(result.x[:d])


def _solved(result: Any, p: float) -> Any:
    if result.x is None:
        raise ArithmeticError(f"l_{p} margin: {result.message}")
    return result


def _least_norm_point(z: Array, weights: Array, p: float) -> tuple[Array, Array]:
    """Min ||w||_2 s.t. Z w >= weights, as non-negative least squares (Lawson & Hanson 1974, ch. 23).

    For p = 2; for any p its lam proves that there is no separator.
    """
    m, d = z.shape
    target = np.zeros(d + 1)
    target[d] = 1.0
    lam, _ = nnls(np.vstack([z.T, weights]), target, maxiter=30 * m + 300)
    total = lam.sum()
    if total <= 0:
        return np.full(m, 1 / m), np.zeros(d)
    return lam, z.T @ lam


def _cones(z: Array, weights: Array, p: float) -> tuple[Array, Array]:
    """Min t with v = Z' lam, ||v||_p <= t: lam, and w from the multiplier of the definition or from v."""
    m, d = z.shape
    program = ConeProgram()
    lam, v, t = program.variables(m), program.variables(d), program.variables(1)
    program.combine(lam, z, v, weights=weights)
    program.norm_at_most(v, p, t)
    x, multipliers = program.solve(t)
    found, dual = np.maximum(x[lam], 0), Norm(p).dual
    implied = np.asarray(dual.steepest(torch.from_numpy(z.T @ found)))
    candidates = [w for w in (implied, multipliers[:d], -multipliers[:d]) if w.any()]
    reached = [(float((z @ w / weights).min()) / norm(w, dual.p), w) for w in candidates]
    return found, max(reached, key=lambda pair: pair[0], default=(0.0, implied))[1]


def _in_units_of_the_answer(z: Array, weights: Array, p: float) -> tuple[Array, Array]:
    """The cone program once more, with points in units of the margin that it found."""
    lam, _ = _cones(z, weights, p)
    size = norm(z.T @ lam, p) / float(lam @ weights)
    return _cones(z / size, weights, p)
