"""The l_p margin of a data set, with a certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.optimize import linprog, nnls

from robust_erm.norms import Norm
from robust_erm.oracles.cones import ConeProgram

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MaxMargin:
    """``eps* = max_{||w||_{p*} <= 1} min_i <z_i, w> = min_{lam in simplex} ||Z' lam||_p``.

    Args:
        value: the margin reached by ``w``, 0 where the data are not separable.
        w: (d,), ``||w||_{p*} = 1``, or zero where not separable.
        upper: ``||Z' lam||_p``, an upper bound on every margin, whatever the solver did.
    """

    value: float
    w: Array
    upper: float

    @property
    def gap(self) -> float:
        """Relative duality gap ``(upper - value) / upper``; 0 where upper is (numerically) 0."""
        return 0.0 if self.value == 0 else (self.upper - self.value) / self.upper


def max_margin(z: Array, p: float) -> MaxMargin:
    """The l_p margin of signed points: how far each may move in l_p and still be separable.

    p = inf and p = 1 are linear programs (HiGHS interior point with crossover), p = 2 is
    non-negative least squares, any other p in (1, inf) a cone program (Clarabel, power cones).

    Args:
        z: (m, d), rows ``y_i x_i``.
        p: exponent of the threat's norm, in [1, inf].

    Raises:
        ArithmeticError: the solver's answer has a relative gap above 1e-6; the answer is judged by
            its own primal and dual values, never by the solver's status.

    Reference:
        tsilivis2024 Def. 4.1; eps* in Sec. 5.1 and App. F.1.
    """
    scale = float(np.abs(z).max())
    if scale == 0:
        return MaxMargin(0.0, np.zeros(z.shape[1]), 0.0)
    unit = z / scale
    lam, w = _solve(unit, p)
    lam = np.maximum(lam, 0)
    lam /= lam.sum()
    upper = norm(unit.T @ lam, p)
    dual = Norm(p).dual.p
    size = norm(w, dual)
    w = w / size if size > 0 else w
    value = float((unit @ w).min())
    if value <= 0 or upper < 1e-12:
        if upper > 1e-9:
            raise ArithmeticError(f"l_{p} margin: no separator found, but an upper bound of {upper:.1e} on the margin")
        return MaxMargin(0.0, np.zeros(z.shape[1]), upper * scale)
    found = MaxMargin(value * scale, w, upper * scale)
    if found.gap > 1e-6:
        raise ArithmeticError(f"l_{p} margin: relative duality gap {found.gap:.1e}")
    return found


def norm(x: Array, p: float) -> float:
    """``||x||_p``."""
    return float(Norm(p).value(torch.from_numpy(np.ascontiguousarray(x))))


def _solve(z: Array, p: float) -> tuple[Array, Array]:
    """(lam, w up to scale) for data scaled to largest entry 1."""
    if p in (1, math.inf):
        return _linear_program(z, p)
    if p == 2:
        return _least_norm_point(z)
    lam, multiplier = _power_cones(z, p)
    implied = np.asarray(Norm(p).dual.steepest(torch.from_numpy(z.T @ lam)))
    candidates = [w for w in (implied, multiplier, -multiplier) if w.any()]
    reached = [(float((z @ w).min()) / norm(w, Norm(p).dual.p), w) for w in candidates]
    return lam, max(reached, key=lambda pair: pair[0], default=(0.0, implied))[1]


def _linear_program(z: Array, p: float) -> tuple[Array, Array]:
    """Min ||Z' lam||_p over the simplex: variables (lam, s) with -s <= Z' lam <= s."""
    m, d = z.shape
    slack = sparse.csr_array(np.ones((d, 1))) if p == math.inf else sparse.eye_array(d)
    n_slack = slack.shape[1]
    zt = sparse.csr_array(z.T)
    result = linprog(
        np.concatenate([np.zeros(m), np.ones(n_slack)]),
        A_ub=sparse.vstack([sparse.hstack([zt, -slack]), sparse.hstack([-zt, -slack])]),
        b_ub=np.zeros(2 * d),
        A_eq=sparse.csr_array(np.concatenate([np.ones(m), np.zeros(n_slack)])[None]),
        b_eq=[1.0],
        method="highs-ipm",
    )
    if result.x is None:
        raise ArithmeticError(f"l_{p} margin: {result.message}")
    marginals = np.asarray(result.ineqlin.marginals)
    return np.asarray(result.x[:m]), marginals[d:] - marginals[:d]


def _least_norm_point(z: Array) -> tuple[Array, Array]:
    """Min ||w||_2 s.t. Z w >= 1, as non-negative least squares (Lawson & Hanson 1974, ch. 23)."""
    m, d = z.shape
    target = np.zeros(d + 1)
    target[d] = 1.0
    lam, _ = nnls(np.vstack([z.T, np.ones(m)]), target, maxiter=30 * m + 300)
    total = lam.sum()
    if total <= 0:
        return np.full(m, 1 / m), np.zeros(d)
    return lam, z.T @ lam


def _power_cones(z: Array, p: float) -> tuple[Array, Array]:
    """Min t with v = Z' lam, ||v||_p <= t: lam, and the multiplier of the definition, w up to sign and scale."""
    m, d = z.shape
    program = ConeProgram()
    lam, v, t = program.variables(m), program.variables(d), program.variables(1)
    program.combine(lam, z, v)
    program.norm_at_most(v, p, t)
    x, multipliers = program.solve(t)
    return x[lam], multipliers[:d]
