"""The loops of :mod:`robust_erm.training.kernels.scores`, compiled by numba.

Rows are stored in the run's dtype; what happens between two stores is float64. No array is unpacked, or filled at once:
numba's code for that words errors first, and takes seconds to compile.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import numpy as np
from numba import njit

from robust_erm.training.kernels.compiled import copy_into, exp_into, least, total

_NONE = -1000.0  # its exp is 0
_LOW = -40.0  # a score whose logistic loss is the exponential one, to rounding


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def log_into(x, out, bits):
    """``out = log(x)`` to 1e-15, for normal numbers x > 0; nan of nan and inf.

    ``log(2^k m) = k log 2 + 2 atanh((m - 1) / (m + 1))``, 2^-1/2 <= m < 2^1/2: loops that vectorise as those of
    :func:`robust_erm.training.kernels.compiled.exp_into` do.
    """
    given = x.view(np.int64)
    for i in range(x.shape[0]):
        k = (given[i] - 0x3FE6A09E667F3BCD) >> 52
        out[i] = np.float64(k)
        bits[i] = given[i] - (k << 52)
    fraction = bits.view(np.float64)
    for i in range(x.shape[0]):
        k = out[i]
        z = (fraction[i] - 1.0) / (fraction[i] + 1.0)
        q = z * z
        p = 2.0 / 21.0
        p = p * q + 2.0 / 19.0
        p = p * q + 2.0 / 17.0
        p = p * q + 2.0 / 15.0
        p = p * q + 2.0 / 13.0
        p = p * q + 2.0 / 11.0
        p = p * q + 2.0 / 9.0
        p = p * q + 2.0 / 7.0
        p = p * q + 2.0 / 5.0
        p = p * q + 2.0 / 3.0
        p = p * q + 2.0
        out[i] = (k * 1.90821492927058770002e-10 + p * z) + k * 0.693147180369123816490 + 0.0 * x[i]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def below_top(x, top, rows):
    """Take off x (rows n) the largest of each of n columns, ``top`` (n,); what is far below becomes _NONE."""
    n = top.shape[0]
    copy_into(x, top)
    for c in range(1, rows):
        for i in range(n):
            v = x[c * n + i]
            top[i] = v if v > top[i] else top[i]
    for c in range(rows):
        for i in range(n):
            v = x[c * n + i] - top[i]
            x[c * n + i] = _NONE if v < _NONE else v


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def share_out(s, soft, share, e, work, bits):
    """Log of the sum of the losses of scores s (n,), and ``share``, its derivatives in s."""
    n = s.shape[0]
    for i in range(n):
        work[i] = -s[i]
    top = -least(work, n)
    if not soft or top <= _LOW:  # below, log(1 + exp(s)) is exp(s)
        for i in range(n):
            v = s[i] - top
            work[i] = _NONE if v < _NONE else v
        exp_into(work, 1.0, 0.0, e, bits)
        whole = total(e)
        for i in range(n):
            share[i] = e[i] / whole
        return top + np.log(whole)
    for i in range(n):
        v = -abs(s[i])
        share[i] = _NONE if v < _NONE else v
    exp_into(share, 1.0, 0.0, e, bits)
    for i in range(n):
        work[i] = 1.0 + e[i]
    log_into(work, share, bits)
    for i in range(n):
        t, near = e[i], work[i]
        softplus = max(s[i], 0.0) + (share[i] + (t - (near - 1.0)) / near)  # of what 1 + t has lost
        share[i] = (t if s[i] < 0.0 else 1.0) / near  # sigmoid(s)
        work[i] = softplus
    whole = total(work)
    for i in range(n):
        share[i] /= whole
    return np.log(whole)


@njit(cache=True, nogil=True, error_model="numpy")
def shares_into(s, soft, less, log_loss, out):
    """Of every row of s (R, n): log of the sum of losses, minus ``less``, and its derivatives in s."""
    n = s.shape[1]
    e, work, given, share = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    bits = np.empty(n, np.int64)
    for r in range(s.shape[0]):
        copy_into(s[r], given)
        log_loss[r] = share_out(given, soft, share, e, work, bits) - less
        copy_into(share, out[r])


@njit(cache=True, nogil=True, error_model="numpy")
def slopes_into(f, y, soft, less, log_loss, out):
    """The same of outputs f (R, n, C) and labels y (R, n), and its derivatives in f."""
    runs, n, classes = f.shape
    e, work, s, share = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    top, whole, bits = np.empty(n), np.empty(n), np.empty(n, np.int64)
    logits, exps, all_bits = np.empty(classes * n), np.empty(classes * n), np.empty(classes * n, np.int64)
    own = np.empty(n, np.int64)
    for r in range(runs):
        if classes == 1:
            for i in range(n):
                s[i] = -y[r, i] * f[r, i, 0]
            log_loss[r] = share_out(s, soft, share, e, work, bits) - less
            for i in range(n):
                out[r, i, 0] = -y[r, i] * share[i]
            continue
        for c in range(classes):
            for i in range(n):
                logits[c * n + i] = f[r, i, c]
        for i in range(n):
            k = np.int64(y[r, i])
            known = 0 <= k < classes
            own[i] = (k if known else 0) * n + i
            s[i] = -logits[own[i]] if known else np.nan  # no such class: a loss that ends the run, and no stray write
            logits[own[i]] = -np.inf
        below_top(logits, top, classes)
        exp_into(logits, 1.0, 0.0, exps, all_bits)
        for i in range(n):
            whole[i] = 0.0
        for c in range(classes):
            for i in range(n):
                whole[i] += exps[c * n + i]
        log_into(whole, work, bits)
        for i in range(n):
            s[i] += top[i] + work[i]
        log_loss[r] = share_out(s, soft, share, e, work, bits) - less
        for i in range(n):
            exps[own[i]] = -whole[i]
            share[i] /= whole[i]
        for i in range(n):
            for c in range(classes):
                out[r, i, c] = share[i] * exps[c * n + i]
