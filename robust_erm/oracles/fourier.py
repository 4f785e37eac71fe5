"""The robust max-margin separator in the l_1 norm of the Fourier transform, with a certificate."""

from __future__ import annotations

import math
from operator import itemgetter

import clarabel
import numpy as np
import numpy.typing as npt

from robust_erm.core.errors import require
from robust_erm.core.norms import Norm
from robust_erm.oracles.cones import ConeProgram
from robust_erm.oracles.margin import MaxMargin, norm

Array = npt.NDArray[np.float64]
_GAP = 1e-6


def transform(w: Array) -> Array:
    """Moduli (..., d) of the unitary discrete Fourier transform of w (..., d)."""
    return np.abs(np.fft.fft(w, norm="ortho"))


def fourier_max_margin(z: Array, p: float, eps: float) -> MaxMargin:
    """``max min_i <z_i, w> - eps ||w||_{p*}`` over ``||F w||_1 <= 1``, F the unitary discrete Fourier transform.

    By duality ``min ||F (Z' lam - delta)||_inf`` over lam in the simplex and ``||delta||_p <= eps``: a cone program
    with a cone for each frequency. What is given was evaluated for its w, and for its lam and delta.

    Args:
        z: (m, d), rows ``y_i x_i``.
        p: exponent of the threat's norm, in [1, inf].
        eps: radius.

    Raises:
        ConfigError: an exponent below 1, or a radius below 0.
        ArithmeticError: not decided, with the interval that is known: the relative gap of the answer is above 1e-6, as
            it is where there is no separator.

    Reference:
        Gunasekar et al. 2018 (eps = 0): what gradient descent on a linear convolutional network of two filters finds.
    """
    require(p >= 1, "p", p, "must be a norm's exponent: 1 <= p <= inf")
    require(eps >= 0, "eps", eps, "must be 0 or more")
    scale = float(np.abs(z).max()) or 1.0
    lam, delta, w = _solved(z / scale, p, eps / scale)
    lam = np.maximum(lam, 0)
    lam, delta = lam / (lam.sum() or math.nan), scale * delta
    if (size := norm(delta, p)) > eps:
        delta *= eps / size
    upper = float(transform(z.T @ lam - delta).max())
    value, w = max((_margin(z, sign * w, p, eps) for sign in (1.0, -1.0)), key=itemgetter(0))
    found = MaxMargin(value, w, upper, lam, delta)
    if not (value > 0 and found.gap < _GAP):
        known = f"not decided; it lies in [{value:.10g}, {upper:.10g}]"
        raise ArithmeticError(f"robust margin (l_1 of the Fourier transform, p = {p:g}, eps = {eps:g}): {known}")
    return found


def _margin(z: Array, w: Array, p: float, eps: float) -> tuple[float, Array]:
    """The robust margin of ``w / ||F w||_1``, and that w; 0 where it is not positive."""
    size = float(transform(w).sum()) if np.isfinite(w).all() else 0.0
    if size == 0:
        return 0.0, w
    w = w / size
    return max(0.0, float((z @ w).min() - eps * norm(w, Norm(p).dual.p))), w


def _solved(z: Array, p: float, eps: float) -> tuple[Array, Array, Array]:
    """(lam, delta, multiplier of ``u = Z' lam - delta``, which is w up to sign and scale), not judged."""
    m, d = z.shape
    program = ConeProgram()
    lam, u, t = program.variables(m), program.variables(d), program.variables(1)
    delta, radius = program.variables(d), program.variables(1)
    program.combine(lam, z, u, delta)
    program.constrain([(0, radius, 1.0)], [eps], [clarabel.ZeroConeT(1)])
    program.norm_at_most(delta, p, radius)
    basis = np.fft.rfft(np.eye(d), norm="ortho").T  # (frequencies, d): the other half is conjugate
    for row in basis:  # |<row, u>| <= t
        parts = [(0, t, -1.0), (1, u, -row.real), (2, u, -row.imag)]
        program.constrain(parts, np.zeros(3), [clarabel.SecondOrderConeT(3)])
    x, multipliers = program.solve(t)
    return x[lam], x[delta], multipliers[:d]
