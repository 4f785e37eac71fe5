"""The robust max-margin separator for any threat and any geometry, with a certificate."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import clarabel
import numpy as np
import numpy.typing as npt
import torch

from robust_erm.errors import require
from robust_erm.norms import Norm
from robust_erm.oracles.cones import ConeProgram
from robust_erm.oracles.margin import norm

Array = npt.NDArray[np.float64]

_TRIES = 3
_GAP = {True: 1e-8, False: 1e-6}  # accepted: exponents 1, 2 and inf; others


@dataclass(frozen=True)
class RobustMargin:
    """``max_{||w||_r <= 1} min_i <z_i, w> - eps ||w||_{p*} = min ||Z' lam - delta||_{r*}``.

    The minimum is over lam in the simplex and ``||delta||_p <= eps``.

    Args:
        value: reached by ``w``; 0 where no w has a positive robust margin.
        w: (d,), ``||w||_r = 1``, or zero.
        upper: ``||Z' lam - delta||_{r*}``, an upper bound on every w's, whatever the solver did.
        lam: (m,) in the simplex. Where value is 0, ``||Z' lam||_p <= eps`` proves it: for every w
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


def robust_max_margin(z: Array, r: float, p: float, eps: float) -> RobustMargin:
    """The best robust margin per l_r norm: what robust steepest descent with respect to l_r converges to.

    With r = p* this is ``eps* - eps``, in the same direction for every eps (tsilivis2024, Cor. 4.5).

    Args:
        z: (m, d), rows ``y_i x_i``.
        r: exponent of the norm that the margin is divided by, in [1, inf].
        p: exponent of the threat's norm, in [1, inf].
        eps: radius.

    Raises:
        ConfigError: an exponent below 1, or a radius below 0.
        ArithmeticError: the solver's answer has a relative gap above 1e-8 (1e-6 for exponents other than
            1, 2 and inf); the answer is judged by its own primal and dual values.

    Reference:
        tsilivis2024 Thm 4.3, eq. (10).
    """
    require(r >= 1, "r", r, "must be a norm's exponent: 1 <= r <= inf")
    require(p >= 1, "p", p, "must be a norm's exponent: 1 <= p <= inf")
    require(eps >= 0, "eps", eps, "must be 0 or more")
    plain = {r, p} <= {1, 2, np.inf}
    scale = float(np.abs(z).max()) or 1.0
    best: RobustMargin | None = None
    for _ in range(_TRIES):
        found = _certified(z, r, p, eps, scale)
        if found.value == 0 and found.upper == 0:
            return found
        if best is None or found.gap < best.gap:
            best = found
        if best.value > 0 and best.gap < _GAP[plain]:
            return best
        scale = best.upper  # once more, in units of the answer
    assert best is not None
    raise ArithmeticError(f"robust margin (r = {r:g}, p = {p:g}, eps = {eps:g}): relative gap {best.gap:.1e}")


def _certified(z: Array, r: float, p: float, eps: float, scale: float) -> RobustMargin:
    """What the solver says of the problem in units of ``scale``, made feasible and evaluated in our own arithmetic."""
    lam, delta, multiplier = _solve(z / scale, r, p, eps / scale)
    lam = np.maximum(lam, 0)
    lam /= lam.sum()
    combined = z.T @ lam
    if norm(combined, p) <= eps + 1e-10 * float(np.abs(z).max()):
        return RobustMargin(0.0, np.zeros(z.shape[1]), 0.0, lam, combined)
    delta = delta * scale
    if p == np.inf:
        delta = np.clip(combined, -eps, eps)  # the best one for this lam
    elif (size := norm(delta, p)) > eps:
        delta *= eps / size
    rest = combined - delta
    implied = np.asarray(Norm(r).steepest(torch.from_numpy(rest)))
    value, w = max(
        (_margin(z, sign * v, r, p, eps) for v in (multiplier, implied) for sign in (1, -1)), key=itemgetter(0)
    )
    return RobustMargin(max(value, 0.0), w, norm(rest, Norm(r).dual.p), lam, delta)


def _margin(z: Array, w: Array, r: float, p: float, eps: float) -> tuple[float, Array]:
    """The robust margin of ``w / ||w||_r``, and that."""
    size = norm(w, r)
    if size == 0:
        return 0.0, w
    w = w / size
    return float((z @ w).min()) - eps * norm(w, Norm(p).dual.p), w


def _solve(z: Array, r: float, p: float, eps: float) -> tuple[Array, Array, Array]:
    """(lam, delta, multiplier of ``u = Z' lam - delta``, which is w up to sign and scale)."""
    m, d = z.shape
    program = ConeProgram()
    lam, u, t = program.variables(m), program.variables(d), program.variables(1)
    delta = [program.variables(d)] if eps > 0 else []
    program.combine(lam, z, u, *delta)
    program.norm_at_most(u, Norm(r).dual.p, t)
    for part in delta:
        radius = program.variables(1)
        program.constrain([(0, radius, 1.0)], [eps], [clarabel.ZeroConeT(1)])
        program.norm_at_most(part, p, radius)
    x, multipliers = program.solve(t)
    return x[lam], x[delta[0]] if delta else np.zeros(d), multipliers[:d]
