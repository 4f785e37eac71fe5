"""The loops of :mod:`robust_erm.training.kernels.attacks`, compiled by numba."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def steepest_into(bits, out):
    """The bits of the largest size of an entry of each row: floats without signs are ordered as integers are.

    In one vectorised pass, which a search among floats is not; nan is above all.
    """
    most = np.iinfo(bits.dtype).max
    for i in range(bits.shape[0]):
        top = bits[i, 0] & most
        for j in range(bits.shape[1]):
            size = bits[i, j] & most
            top = size if size > top else top
        out[i] = top


@njit(cache=True, nogil=True, error_model="numpy")
def sign_step_into(x, gradient, bits, length, rounding, ball, center, radius, low, high, out):
    """Out = x - length sign(gradient) of rows (n, d), for entries within ``rounding`` of their row's largest.

    The others do not move. Then into the l_inf ball, where ``ball``, and the box; nan stays. ``bits``: of the gradient,
    the same memory as integers. Sums and minima vectorise better than choices of choices, and a call for each row would
    take as long as a row.
    """
    held = np.empty(x.shape[0], bits.dtype)
    steepest_into(bits, held)
    top, nothing = held.view(x.dtype), x.dtype.type(0)  # of the rows' type: else loops would go by way of float64
    for i in range(x.shape[0]):
        bar, step, row, slopes, moved = rounding * top[i], length[i], x[i], gradient[i], out[i]
        if not ball:
            for j in range(row.shape[0]):
                g = slopes[j]
                at = row[j] - ((step if g > bar else nothing) - (step if g < -bar else nothing) + g * nothing)
                at = high if at > high else at
                moved[j] = low if at < low else at
            continue
        middle, far = center[i], radius[i]
        for j in range(row.shape[0]):
            g = slopes[j]
            at = row[j] - ((step if g > bar else nothing) - (step if g < -bar else nothing) + g * nothing)
            off = at - middle[j]
            off = far if off > far else off
            at = middle[j] + (-far if off < -far else off)
            at = high if at > high else at
            moved[j] = low if at < low else at


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def sum_of_squares(row):
    """In float64."""
    whole = 0.0
    for j in range(row.shape[0]):
        v = np.float64(row[j])
        whole += v * v
    return whole


@njit(cache=True, nogil=True, error_model="numpy")
def length_of(row):
    """``||row||_2`` in float64; no overflow for finite results, and nan stays."""
    whole = sum_of_squares(row)
    if 1e-200 < whole < 1e200 or whole != whole:
        return np.sqrt(whole)
    top = 0.0
    for j in range(row.shape[0]):
        top = max(top, np.float64(abs(row[j])))
    if top == 0 or top == np.inf:
        return top
    whole = 0.0
    for j in range(row.shape[0]):
        v = row[j] / top
        whole += v * v
    return top * np.sqrt(whole)


@njit(cache=True, nogil=True, error_model="numpy")
def length_step_row(x, gradient, step, ball, center, radius, off, out):
    """Out = x - step gradient / ||gradient||_2 of one row, then into the l_2 ball; ``off`` is float64 and for work."""
    size = length_of(gradient)
    size = 1.0 if size == 0 else size
    for j in range(x.shape[0]):
        off[j] = np.float64(x[j]) - center[j] - step * (gradient[j] / size)
    share = 1.0
    if ball:
        far = length_of(off)
        share = radius / far if far > radius else 1.0
    for j in range(x.shape[0]):
        out[j] = center[j] + share * off[j]


@njit(cache=True, nogil=True, error_model="numpy")
def length_step_into(x, gradient, length, ball, center, radius, low, high, out):
    """The same of rows (n, d); then into the box."""
    off = np.empty(x.shape[1])
    for i in range(x.shape[0]):
        length_step_row(x[i], gradient[i], length[i], ball, center[i], radius[i], off, out[i])
        if low > -np.inf or high < np.inf:
            row = out[i]
            for j in range(row.shape[0]):
                at = high if row[j] > high else row[j]
                row[j] = low if at < low else at


@njit(cache=True, nogil=True, error_model="numpy")
def margin_slopes_into(f, y, out):
    """Derivatives of ``f_y - max_{c != y} f_c`` in f (n, C); those that tie share; nan stays."""
    n, classes = f.shape
    for i in range(n):
        k = np.int64(y[i])
        top, ties = -np.inf, 0
        for c in range(classes):
            if c != k and f[i, c] > top:
                top = f[i, c]
        for c in range(classes):
            ties += c != k and f[i, c] == top
        for c in range(classes):
            v = f[i, c]
            out[i, c] = 1.0 if c == k else (-1.0 / ties if v == top else v * 0.0)
