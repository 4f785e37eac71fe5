"""Exact test accuracy of linear predictors on dense Gaussian data."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr, owens_t

from robust_erm.core.norms import Norm

Array = npt.NDArray[np.float64]


def gaussian_accuracy(w: Array, w_star: Array, eps: float, p: float) -> float:
    """``P(y <w, x> - eps ||w||_{p*} > 0)`` for x ~ N(0, I), y = sgn<w_star, x>.

    With ``a = eps ||w||_{p*} / ||w||_2`` and rho the cosine of w and w_star the error is
    ``Phi(a) - 2 T(a, rho / sqrt(1 - rho^2))``, T Owen's function; at eps = 0 the accuracy is
    ``1 - arccos(rho) / pi``. sqrt(1 - rho^2) is computed from the part of w orthogonal to w_star,
    without cancellation.

    Args:
        w: (d,) predictor.
        w_star: (d,) teacher, not zero.
        eps: radius.
        p: exponent of the threat's norm.

    Returns:
        The accuracy; 0 for w = 0, which is never right by a positive margin; nan if w is not finite.

    Reference:
        Owen 1956, "Tables for computing bivariate normal probabilities".
    """
    if not np.isfinite(w).all():
        return math.nan
    if not w.any():
        return 0.0
    u, v = _unit(w), _unit(w_star)
    along = float(u @ v)
    across = float(np.linalg.norm(u - along * v))
    a = eps * float(Norm(p).dual.value(torch.from_numpy(u)))
    slope = along / across if across > 0 else math.copysign(math.inf, along)
    return float(1 - (ndtr(a) - 2 * owens_t(a, slope)))


def _unit(v: Array) -> Array:
    """V / ||v||_2, of entries of any size."""
    v = np.ldexp(v, -np.frexp(np.abs(v).max())[1])  # exact, and squares neither over- nor underflow
    return v / np.linalg.norm(v)
