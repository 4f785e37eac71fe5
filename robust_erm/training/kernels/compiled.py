"""The loops of :mod:`~robust_erm.training.kernels.dense` and ``sparse``, compiled by numba.

All in one file, long as it is: numba keeps compiled code for as long as a function's own file is unchanged, and
would go on using it after a change to a helper in another one.

Every run is a row, and no row looks at another: a run's bits do not depend on its neighbours. Rows are stored in
the run's dtype; what happens between two stores is float64.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import numpy as np
from numba import njit

from robust_erm.training.kernels.plan import (
    BEST,
    BOUNDED_LOSS,
    CONSTANT,
    ENDED,
    EPS,
    SHIFT,
    SLOT,
    STATUS,
    STEP_A,
    STEP_B,
    TARGET,
    TOTAL,
)

RUNNING, CONVERGED, DIVERGED = 0, 1, 3  # as in robust_erm.training.status

_SUM = {"reassoc", "contract", "nsz"}  # vector sums; nan and inf keep their meaning


@njit(cache=True, nogil=True)
def copy_into(a, out):
    """As many numbers of a as out has; ``out[:] = a`` takes numba seconds to compile."""
    for i in range(out.shape[0]):
        out[i] = a[i]


@njit(cache=True, nogil=True, fastmath={"contract"})
def exp_into(x, sign, shift, out, bits):
    """``out = exp(sign x - shift)`` to 1e-15, for arguments of at most 0; 0 below -708.

    ``exp(t) = 2^k exp(r)``, |r| <= log(2) / 2, and Taylor's polynomial of degree 13: a loop that
    vectorises without a vector library.
    """
    for i in range(x.shape[0]):
        t = sign * x[i] - shift
        k = np.floor(t * 1.4426950408889634 + 0.5)
        r = (t - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
        p = 1.0 / 6227020800.0
        p = p * r + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        out[i] = p * r + 1.0
        bits[i] = (np.int64(max(min(k, 1023.0), -1023.0)) + 1023) << 52  # 2^k as a float64, 0 at the bottom
    power = bits.view(np.float64)
    for i in range(x.shape[0]):
        out[i] = out[i] * power[i] + (0.0 * x[i])  # nan and inf stay visible


@njit(cache=True, nogil=True, fastmath=_SUM)
def total(x):
    """Sum of x."""
    s = 0.0
    for i in range(x.shape[0]):
        s += x[i]
    return s


@njit(cache=True, nogil=True)
def scaled_norm(w, d):
    """``||w||_2`` of the first d entries, whose squares leave the range of numbers."""
    top = 0.0
    for j in range(d):
        top = max(top, abs(np.float64(w[j])))
    if top == 0.0 or not np.isfinite(top):
        return top
    s = 0.0
    for j in range(d):
        s += (np.float64(w[j]) / top) ** 2
    return top * np.sqrt(s)


@njit(cache=True, nogil=True, fastmath=_SUM)
def dual_norm(w, d, dual):
    """``||w||_1`` or ``||w||_2`` of the first d entries."""
    s = 0.0
    if dual == 1:
        for j in range(d):
            s += abs(np.float64(w[j]))
        return s
    for j in range(d):
        s += np.float64(w[j]) * np.float64(w[j])
    return scaled_norm(w, d) if s < 1e-280 or s > 1e280 else np.sqrt(s)


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def least(x, m):
    """The smallest of the first m entries; any of them where there are nans."""
    a = b = c = d = np.float64(x[0])  # four chains: one would wait for each comparison
    whole = m // 4 * 4
    for i in range(0, whole, 4):
        a, b = min(a, np.float64(x[i])), min(b, np.float64(x[i + 1]))
        c, d = min(c, np.float64(x[i + 2])), min(d, np.float64(x[i + 3]))
    for i in range(whole, m):
        a = min(a, np.float64(x[i]))
    return min(min(a, b), min(c, d))


@njit(cache=True, nogil=True)
def weigh(margins, out, w, info, num, m, d, dual, e, bits):
    """Out (slots, m): ``exp(s_i - max s)`` of every running row, s_i = eps ||w||_* - margins_i.

    TOTAL of ``num`` is their sum, so that ``log L`` (a sum over samples) is SHIFT + log(TOTAL), and
    ``d log L / d s_i`` is out_i / TOTAL. Not yet divided, equal weights are 1: sums of points that cancel
    are 0, and their sign is not rounding's.
    """
    for r in range(info.shape[0]):
        if info[r, STATUS] != RUNNING:
            continue
        s = info[r, SLOT]
        low = least(margins[s], m)
        exp_into(margins[s, :m], -1.0, -low, e, bits)
        num[r, SHIFT] = num[r, EPS] * dual_norm(w[s], d, dual) - low
        num[r, TOTAL] = total(e)
        for i in range(m):
            out[s, i] = e[i]


@njit(cache=True, nogil=True, fastmath=_SUM)
def negated(x, tot, out, d):
    """Out = -x / tot, and its l_1 norm, of the first d entries."""
    s = 0.0
    for j in range(d):
        out[j] = -np.float64(x[j]) / tot
        s += abs(out[j])
    return s


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_subgradient(g, w, c, d, dual):
    """G + c s in place, s the subgradient of ``||w||_dual`` at w for which ``||g + c s||_2`` is least."""
    if c == 0.0:
        return
    if dual == 1:
        for j in range(d):
            at = np.float64(w[j])
            kink = np.copysign(max(abs(g[j]) - c, 0.0), g[j])
            g[j] = kink if at == 0.0 else g[j] + np.copysign(c, at)
        return
    size = dual_norm(w, d, 2)
    if size > 0.0:
        for j in range(d):
            g[j] += c * w[j] / size
        return
    scale = max(1.0 - c / max(dual_norm(g, d, 2), 1e-300), 0.0)
    for j in range(d):
        g[j] *= scale


@njit(cache=True, nogil=True)
def log_eta(kind, a, b, growths, log_loss):
    """Log of the step size on L."""
    if kind == CONSTANT:
        return a
    if kind == BOUNDED_LOSS:
        return min(a, b - log_loss)
    return a + growths * b


@njit(cache=True, nogil=True, fastmath=_SUM)
def product_weight(theta, w, d, depth):
    """W = u_+^depth - u_-^depth; W = theta for depth 0, the linear model."""
    if depth == 0:
        return
    for j in range(d):
        plus, minus = 1.0, 1.0
        for _ in range(depth):
            plus *= theta[j]
            minus *= theta[d + j]
        w[j] = plus - minus


@njit(cache=True, nogil=True)
def pulled_back(g, theta, d, depth):
    """Gradient in theta (g has room for 2 d) from the gradient in w, in place."""
    if depth == 0:
        return
    for j in range(d):
        plus, minus = 1.0 * depth, 1.0 * depth
        for _ in range(depth - 1):
            plus *= theta[j]
            minus *= theta[d + j]
        g[d + j] = -g[j] * minus
        g[j] *= plus


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def largest(g, p):
    """Index of the first of the largest ``|g_j|``, j < p; of numbers that are all finite."""
    top = 0.0
    for j in range(p):
        top = max(top, abs(g[j]))
    for j in range(p):
        if abs(g[j]) == top:
            return j
    return 0


@njit(cache=True, nogil=True)
def landed(old, new, kinked):
    """New, or 0 where the step from old would pass over the kink of eps ||w||_1 there."""
    return 0.0 if kinked and old * new < 0.0 else new


@njit(cache=True, nogil=True, fastmath={"contract"})
def move(theta, g, p, r, normalized, log_loss, log_step, kinked):
    """One steepest-descent step of theta in l_r, r = 1, 2, or 0 for inf; it stops on kinks.

    Returns:
        For r = 1 the coordinate that moved, and by how much; else -1 and 0.
    """
    if r == 2:
        scale = np.exp(log_step) / max(dual_norm(g, p, 2), 1e-300) if normalized else np.exp(log_step + log_loss)
        for j in range(p):
            theta[j] = landed(theta[j], theta[j] - scale * g[j], kinked)
        return -1, 0.0
    if r == 1:
        at = largest(g, p)
        old = np.float64(theta[at])
        scale = np.exp(log_step) if normalized else np.exp(log_step + log_loss) * abs(g[at])
        theta[at] = landed(theta[at], theta[at] - scale * np.sign(g[at]), kinked)
        return at, theta[at] - old
    scale = np.exp(log_step) if normalized else np.exp(log_step + log_loss) * dual_norm(g, p, 1)
    for j in range(p):
        theta[j] = landed(theta[j], theta[j] - scale * np.sign(g[j]), kinked)
    return -1, 0.0


@njit(cache=True, nogil=True)
def judged(log_loss, finite, theta, best, info, num, p, t):
    """Keep the best state, and say whether the run ends at step t."""
    if log_loss < num[BEST]:
        num[BEST] = log_loss
        copy_into(theta, best[:p])
    if finite and log_loss > num[TARGET]:
        return False
    info[STATUS] = CONVERGED if finite else DIVERGED
    info[ENDED] = t
    return True


@njit(cache=True, nogil=True)
def update(
    grads, theta, w, best, margins, zt, block, info, num, g,
    d, depth, dual, r, normalized, kind, offset, growths, t, go,
):  # fmt: skip
    """Judge every running row at step t and, where ``go``, take its step.

    ``grads`` (slots, d) holds sum_i weight_i z_i, of the weights of :func:`weigh`. For coordinate
    descent ``margins`` follow the coordinate that moved; else zt is empty. ``offset`` is log(n) for a
    mean over samples.

    Returns:
        How many rows are still running.
    """
    running = 0
    p = d if depth == 0 else 2 * d
    for k in range(info.shape[0]):
        if info[k, STATUS] != RUNNING:
            continue
        s = info[k, SLOT]
        log_loss = num[k, SHIFT] + np.log(num[k, TOTAL]) - offset
        size = negated(grads[s], num[k, TOTAL], g, d)
        add_subgradient(g, w[s], num[k, EPS], d, dual)
        if depth > 0:
            pulled_back(g, theta[s], d, depth)
            size = dual_norm(g, p, 1)
        finite = np.isfinite(log_loss) and np.isfinite(size)
        if judged(log_loss, finite, theta[s], best[s], info[k], num[k], p, t):
            continue
        running += 1
        if not go:
            continue
        step = log_eta(kind, num[k, STEP_A], num[k, STEP_B], growths, log_loss)
        kinked = depth == 0 and dual == 1 and num[k, EPS] > 0.0
        at, change = move(theta[s], g, p, r, normalized, log_loss, step, kinked)
        if depth > 0:
            old = np.float64(w[s, at % d])
            product_weight(theta[s], w[s], d, depth)
            change = w[s, at % d] - old
        if zt.shape[0] > 0:
            column = zt[block[k], at % d]
            for i in range(margins.shape[1]):
                margins[s, i] += change * column[i]
    return running


@njit(cache=True, nogil=True)
def refresh(w, csr, margins, e, sums, bits, num, k):
    """Margins z_i'w, weights e_i = exp(-margin_i - SHIFT), their TOTAL, and sums = sum_i e_i z_i."""
    indptr, index, value = csr
    m = margins.shape[0]
    for i in range(m):
        f = 0.0
        for q in range(indptr[i], indptr[i + 1]):
            f += value[q] * w[index[q]]
        margins[i] = f
    num[k, SHIFT] = -least(margins, m)
    exp_into(margins, -1.0, num[k, SHIFT], e, bits)
    num[k, TOTAL] = total(e)
    sums[:] = 0.0
    for i in range(m):
        for q in range(indptr[i], indptr[i + 1]):
            sums[index[q]] += e[i] * value[q]


@njit(cache=True, nogil=True)
def sparse_descent(
    csr, csc, theta, w, best, margins, weights, sums, info, num, g, bits,
    d, depth, dual, normalized, kind, offset, every, t, n, last, period,
):  # fmt: skip
    """N steps of coordinate descent from step t of every row, touching only what the moved column touches.

    Args:
        csr, csc: Z (m, d) by rows and by columns: (start of each, index, value).
        margins, weights, sums: the state of :func:`refresh`, (R, m), (R, m), (R, d).
        period: steps between two refreshes.
    """
    indptr, index, value = csr
    start, row, entry = csc
    m, p = margins.shape[1], (d if depth == 0 else 2 * d)
    for k in range(info.shape[0]):
        for at in range(t, t + n + last):
            if info[k, STATUS] != RUNNING:
                break
            if at % period == 0 or not (0.0625 <= num[k, TOTAL] <= 16.0 * m):
                refresh(w[k], csr, margins[k], weights[k], sums[k], bits, num, k)
            tot = num[k, TOTAL]
            log_loss = num[k, EPS] * dual_norm(w[k], d, dual) + num[k, SHIFT] + np.log(tot) - offset
            for j in range(d):
                g[j] = -sums[k, j] / tot
            add_subgradient(g, w[k], num[k, EPS], d, dual)
            pulled_back(g, theta[k], d, depth)
            finite = np.isfinite(log_loss) and np.isfinite(dual_norm(g, p, 1))
            if judged(log_loss, finite, theta[k], best[k], info[k], num[k], p, at) or at == t + n:
                break
            step = log_eta(kind, num[k, STEP_A], num[k, STEP_B], np.float64(at // every), log_loss)
            kinked = depth == 0 and dual == 1 and num[k, EPS] > 0.0
            moved, change = move(theta[k], g, p, 1, normalized, log_loss, step, kinked)
            j = moved % d
            if depth > 0:
                old = np.float64(w[k, j])
                product_weight(theta[k], w[k], d, depth)
                change = w[k, j] - old
            for q in range(start[j], start[j + 1]):
                i = row[q]
                margins[k, i] += change * entry[q]
                e = np.exp(-margins[k, i] - num[k, SHIFT])
                difference = e - weights[k, i]
                weights[k, i] = e
                num[k, TOTAL] += difference
                for s in range(indptr[i], indptr[i + 1]):
                    sums[k, index[s]] += difference * value[s]
