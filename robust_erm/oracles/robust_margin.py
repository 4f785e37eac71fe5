"""The robust max-margin separator for any threat and any geometry, with a certificate."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

import clarabel
import numpy as np
import numpy.typing as npt
import piqp
import torch

from robust_erm.core.errors import require
from robust_erm.core.norms import Norm
from robust_erm.oracles.cones import ConeProgram
from robust_erm.oracles.margin import MaxMargin, accepted, max_margin, norm

Array = npt.NDArray[np.float64]
Solver = Callable[[Array, float, float, float], tuple[Array, Array, Array]]

_TRIES = 4
_CLOSE = 1e-12  # relative: radii that rounding cannot tell from the margin


def robust_max_margin(z: Array, r: float, p: float, eps: float) -> MaxMargin:
    """The best robust margin per l_r norm: what robust steepest descent with respect to l_r converges to.

    With r = p* this is ``eps* - eps``, in the same direction for every eps (tsilivis2024, Cor. 4.5), and
    :func:`max_margin` finds it. r = 2 with p = inf is a quadratic program (PIQP), any other pair a cone
    program (Clarabel).

    Args:
        z: (m, d), rows ``y_i x_i``.
        r: exponent of the norm that the margin is divided by, in [1, inf].
        p: exponent of the threat's norm, in [1, inf].
        eps: radius.

    Raises:
        ConfigError: an exponent below 1, or a radius below 0.
        ArithmeticError: not decided, with the interval that is known: no answer has a relative gap of 1e-8 (1e-6
            for exponents other than 1, 2 and inf) by its own primal and dual values, or eps is as near to eps* as
            the two sides of eps* are known.

    Reference:
        tsilivis2024 Thm 4.3, eq. (11).
    """
    require(r >= 1, "r", r, "must be a norm's exponent: 1 <= r <= inf")
    require(p >= 1, "p", p, "must be a norm's exponent: 1 <= p <= inf")
    require(eps >= 0, "eps", eps, "must be 0 or more")
    if eps == 0:
        return max_margin(z, Norm(r).dual.p)
    if Norm(r).dual.p == p:
        return _own_geometry(z, max_margin(z, p), r, p, eps)
    scale = float(np.abs(z).max()) or 1.0
    best: MaxMargin | None = None
    for attempt in range(_TRIES):
        solve = _quadratic if r == 2 and p == np.inf and attempt == 0 else _cones
        found = _certified(z, solve, r, p, eps, scale)
        if found is not None:
            best = found if best is None else _joined(best, found)
            if best.value > 0 and best.gap < accepted(r, p):
                return best
        if (best is None or best.value == 0) and not attempt:
            plain = max_margin(z, p)  # whether there is a separator at all
            if _none_beyond(plain, p, eps):
                return _none(z, plain.lam)
        if best is not None and 0 < best.upper < np.inf:
            scale = best.upper * 10.0 ** min(attempt, 1)  # once more, in units of the answer
    low, high = (0.0, np.inf) if best is None else (best.value, best.upper)
    known = f"not decided; it lies in [{low:.10g}, {high:.10g}]"
    raise ArithmeticError(f"robust margin (r = {r:g}, p = {p:g}, eps = {eps:g}): {known}")


def _joined(a: MaxMargin, b: MaxMargin) -> MaxMargin:
    """The better w and the better bound: each proves its own side."""
    reached, bound = max(a, b, key=lambda m: m.value), min(a, b, key=lambda m: m.upper)
    return MaxMargin(reached.value, reached.w, bound.upper, bound.lam, bound.delta)


def _none_beyond(plain: MaxMargin, p: float, eps: float) -> bool:
    """Whether no w is robust at ``eps``, by the margin of the points; False: some are.

    Raises:
        ArithmeticError: eps is within what is known of the margin: rounding would decide.
    """
    if plain.value == 0 or plain.upper <= eps * (1 + _CLOSE):
        return True
    if eps < plain.value * (1 - _CLOSE):
        return False
    known = f"[{plain.value:.15g}, {plain.upper:.15g}]"
    raise ArithmeticError(f"robust margin: eps = {eps:.15g} is within what is known of the l_{p:g} margin, {known}")


def _own_geometry(z: Array, plain: MaxMargin, r: float, p: float, eps: float) -> MaxMargin:
    """With r = p*: the separator of the l_p margin, whatever eps."""
    if _none_beyond(plain, p, eps):
        return _none(z, plain.lam)
    return _judged(z, [plain.w], plain.lam, z.T @ plain.lam * (eps / plain.upper), r, p, eps)


def _none(z: Array, lam: Array) -> MaxMargin:
    """There is no separator, and lam proves it."""
    return MaxMargin(0.0, np.zeros(z.shape[1]), 0.0, lam, z.T @ lam)


def _certified(z: Array, solve: Solver, r: float, p: float, eps: float, scale: float) -> MaxMargin | None:
    """What ``solve`` says of the problem in units of ``scale``, made feasible and evaluated in our own arithmetic.

    None where it says nothing.
    """
    lam, delta, w = solve(z / scale, r, p, eps / scale)
    lam = np.maximum(lam, 0)
    if not (np.isfinite(lam).all() and lam.sum() > 0):
        return None
    lam /= lam.sum()
    combined = z.T @ lam
    delta = delta * scale
    if p == np.inf:
        delta = np.clip(combined, -eps, eps)  # the best one for this lam
    elif (size := norm(delta, p)) > eps:
        delta *= eps / size
    implied = np.asarray(Norm(r).steepest(torch.from_numpy(combined - delta)))
    return _judged(z, [w, -w, implied], lam, delta, r, p, eps)


def _judged(z: Array, candidates: list[Array], lam: Array, delta: Array, r: float, p: float, eps: float) -> MaxMargin:
    """The best of the candidates for w, beside what (lam, delta) bound; value 0: none is positive beyond rounding."""
    value, w = max((_margin(z, w, r, p, eps) for w in candidates), key=itemgetter(0))
    bound = norm(z.T @ lam - delta, Norm(r).dual.p)
    return MaxMargin(value, w if value > 0 else np.zeros(z.shape[1]), bound, lam, delta)


def _margin(z: Array, w: Array, r: float, p: float, eps: float) -> tuple[float, Array]:
    """The robust margin of ``w / ||w||_r``, where it is positive by more than rounding, else 0; and that w."""
    size = norm(w, r) if np.isfinite(w).all() else 0.0
    if size == 0:
        return 0.0, w
    w = w / size
    push = eps * norm(w, Norm(p).dual.p)
    margins = z @ w - push
    rounding = (z.shape[1] + 4) * 2.0**-53 * (np.abs(z) @ np.abs(w) + push)
    return (float(margins.min()), w) if bool((margins > rounding).all()) else (0.0, w)


def _cones(z: Array, r: float, p: float, eps: float) -> tuple[Array, Array, Array]:
    """(lam, delta, multiplier of ``u = Z' lam - delta``, which is w up to sign and scale), not judged."""
    m, d = z.shape
    program = ConeProgram()
    lam, u, t = program.variables(m), program.variables(d), program.variables(1)
    delta, radius = program.variables(d), program.variables(1)
    program.combine(lam, z, u, delta)
    program.norm_at_most(u, Norm(r).dual.p, t)
    program.constrain([(0, radius, 1.0)], [eps], [clarabel.ZeroConeT(1)])
    program.norm_at_most(delta, p, radius)
    x, multipliers = program.solve(t)
    return x[lam], x[delta], multipliers[:d]


def _quadratic(z: Array, r: float, p: float, eps: float) -> tuple[Array, Array, Array]:
    """Min ``||u - v||_2^2 / 2``, ``Z (u - v) - eps sum(u + v) >= 1``, u, v >= 0: r = 2 and p = inf; not judged."""
    m, d = z.shape
    eye, zero = np.eye(d), np.zeros(2 * d)
    solver = piqp.DenseSolver()
    solver.settings.eps_abs, solver.settings.eps_rel, solver.settings.max_iter = 1e-10, 1e-11, 300
    quadratic, constraint = np.block([[eye, -eye], [-eye, eye]]), np.hstack([z - eps, -z - eps])
    solver.setup(quadratic, zero, None, None, constraint, np.ones(m), None, zero, None)
    solver.solve()
    found = solver.result
    return np.asarray(found.z_l)[:m], np.zeros(d), np.asarray(found.x[:d] - found.x[d:])
