"""The l_p margin of a data set, with a certificate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.optimize import linprog, nnls

from robust_erm.core.norms import Norm
from robust_erm.oracles.cones import ConeProgram

Array = npt.NDArray[np.float64]
Solver = Callable[[Array, float], tuple[Array, Array]]


@dataclass(frozen=True)
class MaxMargin:
    """``max_{||w||_r <= 1} min_i <z_i, w> - eps ||w||_{p*} = min ||Z' lam - delta||_{r*}``.

    The minimum is over lam in the simplex and ``||delta||_p <= eps``. Whatever solver was used, w proves
    ``value`` and (lam, delta) prove ``upper``.

    Args:
        value: reached by ``w``; 0 where no w has a positive margin.
        w: (d,), ``||w||_r = 1``, or zero.
        upper: ``||Z' lam - delta||_{r*}``, an upper bound on every w's margin.
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
        return 0.0 if self.upper == 0 else (self.upper - self.value) / self.upper


def max_margin(z: Array, p: float) -> MaxMargin:
    """The l_p margin eps* of signed points: how far each may move in l_p and still be separable.

    The case ``eps = 0, r = p*``. p = inf and p = 1 are linear programs (HiGHS interior point with
    crossover), p = 2 is non-negative least squares, any other p in (1, inf) a cone program (Clarabel,
    power cones), which also stands in where another solver's answer is not good enough.

    Args:
        z: (m, d), rows ``y_i x_i``.
        p: exponent of the threat's norm, in [1, inf].

    Raises:
        ArithmeticError: the solver's answer has a relative gap above 1e-8 (1e-6 for exponents other than
            1, 2 and inf); the answer is judged by its own primal and dual values, never by the solver's status.

    Reference:
        tsilivis2024 Def. 4.1; eps* in Sec. 5.1 and App. F.1.
    """
    m, d = z.shape
    scale = float(np.abs(z).max())
    if scale == 0:
        return MaxMargin(0.0, np.zeros(d), 0.0, np.full(m, 1 / m), np.zeros(d))
    first = {math.inf: _linear_program, 1: _game, 2: _least_norm_point}.get(p)
    found = _certified(z / scale, p, _cones if first is None else first)
    if first is not None and found.gap > accepted(p):
        found = _certified(z / scale, p, _cones)
    if found.gap > accepted(p):
        raise ArithmeticError(f"l_{p} margin: relative duality gap {found.gap:.1e}")
    return MaxMargin(found.value * scale, found.w, found.upper * scale, found.lam, found.delta)


def _certified(z: Array, p: float, solve: Solver) -> MaxMargin:
    """What ``solve`` says, made feasible and evaluated in our own arithmetic."""
    nothing = np.zeros(z.shape[1])
    lam, w = solve(z, p)
    lam = np.maximum(lam, 0)
    if not (np.isfinite(lam).all() and np.isfinite(w).all() and lam.sum() > 0):
        return MaxMargin(0.0, nothing, math.inf, np.full(len(z), 1 / len(z)), nothing)
    lam /= lam.sum()
    upper = norm(z.T @ lam, p)
    if upper < 1e-9:
        return MaxMargin(0.0, nothing, 0.0, lam, nothing)
    size = norm(w, Norm(p).dual.p)
    w = w / size if size > 0 else w
    return MaxMargin(max(float((z @ w).min()), 0.0), w, upper, lam, nothing)


def accepted(*exponents: float) -> float:
    """The largest relative gap of an answer: 1e-8, or 1e-6 with exponents other than 1, 2 and inf."""
    return 1e-8 if {*exponents} <= {1, 2, math.inf} else 1e-6


def norm(x: Array, p: float) -> float:
    """``||x||_p``."""
    return float(Norm(p).value(torch.from_numpy(np.ascontiguousarray(x))))


def _linear_program(z: Array, p: float) -> tuple[Array, Array]:
    """Max sum(lam), ``-1 <= Z' lam <= 1``: lam up to scale, w the multipliers; unbounded where not separable."""
    m, d = z.shape
    zt = sparse.csr_array(z.T)
    result = linprog(-np.ones(m), A_ub=sparse.vstack([zt, -zt]), b_ub=np.ones(2 * d), method="highs-ipm")
    if result.x is None or result.x.sum() <= 0:
        return _least_largest(zt)
    marginals = np.asarray(result.ineqlin.marginals)
    return np.asarray(result.x), marginals[d:] - marginals[:d]


def _least_largest(zt: sparse.csr_array) -> tuple[Array, Array]:
    """Min s with ``-s <= Z' lam <= s``, lam in the simplex: feasible whatever the points, but slower."""
    d, m = zt.shape
    slack = sparse.csr_array(np.ones((d, 1)))
    result = linprog(
        np.r_[np.zeros(m), 1.0],
        A_ub=sparse.vstack([sparse.hstack([zt, -slack]), sparse.hstack([-zt, -slack])]),
        b_ub=np.zeros(2 * d),
        A_eq=sparse.csr_array(np.r_[np.ones(m), 0.0][None]),
        b_eq=[1.0],
        method="highs-ipm",
    )
    marginals = np.asarray(_solved(result, math.inf).ineqlin.marginals)
    return np.asarray(result.x[:m]), marginals[d:] - marginals[:d]


def _game(z: Array, p: float) -> tuple[Array, Array]:
    """Max g with ``Z w >= g``, ``|w_j| <= 1``: w, and lam the multipliers."""
    m, d = z.shape
    result = linprog(
        np.r_[np.zeros(d), -1.0],
        A_ub=sparse.hstack([-sparse.csr_array(z), sparse.csr_array(np.ones((m, 1)))]),
        b_ub=np.zeros(m),
        bounds=[(-1, 1)] * d + [(None, None)],
        method="highs-ipm",
    )
    return -np.asarray(_solved(result, 1).ineqlin.marginals), np.asarray(result.x[:d])


def _solved(result: Any, p: float) -> Any:
    if result.x is None:
        raise ArithmeticError(f"l_{p} margin: {result.message}")
    return result


def _least_norm_point(z: Array, p: float) -> tuple[Array, Array]:
    """Min ||w||_2 s.t. Z w >= 1, as non-negative least squares (Lawson & Hanson 1974, ch. 23)."""
    m, d = z.shape
    target = np.zeros(d + 1)
    target[d] = 1.0
    lam, _ = nnls(np.vstack([z.T, np.ones(m)]), target, maxiter=30 * m + 300)
    total = lam.sum()
    if total <= 0:
        return np.full(m, 1 / m), np.zeros(d)
    return lam, z.T @ lam


def _cones(z: Array, p: float) -> tuple[Array, Array]:
    """Min t with v = Z' lam, ||v||_p <= t: lam, and w from the multiplier of the definition or from v."""
    m, d = z.shape
    program = ConeProgram()
    lam, v, t = program.variables(m), program.variables(d), program.variables(1)
    program.combine(lam, z, v)
    program.norm_at_most(v, p, t)
    x, multipliers = program.solve(t)
    found, dual = np.maximum(x[lam], 0), Norm(p).dual
    implied = np.asarray(dual.steepest(torch.from_numpy(z.T @ found)))
    candidates = [w for w in (implied, multipliers[:d], -multipliers[:d]) if w.any()]
    reached = [(float((z @ w).min()) / norm(w, dual.p), w) for w in candidates]
    return found, max(reached, key=lambda pair: pair[0], default=(0.0, implied))[1]
