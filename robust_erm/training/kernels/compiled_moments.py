"""The loop of :mod:`robust_erm.training.kernels.moments`, compiled by numba.

What a run has one of is float64 until it is stored; rows are of the run's dtype throughout.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def moments_row(grad, m, v, keep, new, keep2, root, scale, more, next_m, next_v, given):
    """``m <- keep m + new g``, ``v <- keep2 v + (root g)^2``, and ``m / (scale sqrt(v) + more)``, 0 over 0."""
    nothing = more * 0
    for j in range(grad.shape[0]):
        g = grad[j]
        scaled = root * g
        first = keep * m[j] + new * g
        second = keep2 * v[j] + scaled * scaled
        size = scale * np.sqrt(second) + more
        next_m[j], next_v[j] = first, second
        given[j] = first / size if size != 0 else nothing


@njit(cache=True, nogil=True, error_model="numpy")
def moments_into(grad, log_loss, beta1, beta2, epsilon, most, before, after, given):
    """:meth:`robust_erm.accumulators.moments.Moments.update` of R runs.

    Before and after are m, v (R, P), unit and count (R,); ``most`` bounds what is left of an old unit, as a log.
    """
    m, v, unit, count = before
    next_m, next_v, next_unit, next_count = after
    kind = grad.dtype.type
    for r in range(grad.shape[0]):
        b1, b2, loss, was = np.float64(beta1[r]), np.float64(beta2[r]), np.float64(log_loss[r]), np.float64(unit[r])
        decayed = was + np.log(b2) / 2
        now = decayed if decayed > loss else loss  # nan of the loss stays
        old, new = np.exp(most if was - now > most else was - now), np.exp(loss - now)
        next_unit[r], next_count[r] = now, count[r] + 1
        seen1, seen2 = 1 - np.exp(next_count[r] * np.log(b1)), 1 - np.exp(next_count[r] * np.log(b2))
        moments_row(
            grad[r],
            m[r],
            v[r],
            kind(b1 * old),
            kind((1 - b1) * new),
            kind(b2 * old * old),
            kind(np.sqrt(1 - b2) * new),
            kind(seen1 / np.sqrt(seen2)),
            kind(epsilon * seen1 * np.exp(-now) if epsilon > 0 else 0.0),  # not 0 times infinity
            next_m[r],
            next_v[r],
            given[r],
        )
