"""The loops of :mod:`robust_erm.training.kernels.net`, compiled by numba."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def pgd_step(x, given, pull, y, last, change, step, eps, low, high, tolerance):
    """One step of l_inf PGD on the margin, in place: x <- clip(given + clip(x - step sign(y pull) - given)).

    Leaves in ``last`` the step that x took, and in ``change`` that minus the step before.

    Returns:
        How many entries of the two are not zero.
    """
    n, d = x.shape
    moves, turns = 0, 0
    for i in range(n):
        for j in range(d):
            slope = y[i] * pull[i, j]
            sign = 1.0 if slope > 0 else (-1.0 if slope < 0 else 0.0)
            offset = min(max(x[i, j] - step * sign - given[i, j], -eps), eps)
            new = min(max(given[i, j] + offset, low), high)
            took = new - x[i, j]
            turn = took - last[i, j]
            x[i, j], last[i, j], change[i, j] = new, took, turn
            moves += abs(took) > tolerance
            turns += abs(turn) > tolerance
    return moves, turns


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_rows(coefficients, rows, out, tolerance):
    """Out (n, h) += coefficients (n, d) rows (d, h), for coefficients that are mostly zero.

    Four rows at a time, in the order of one at a time: what is added to is read and written a quarter as often.
    """
    n, d = coefficients.shape
    places, weights = np.empty(d + 1, np.int64), np.empty(d + 1, rows.dtype)
    for i in range(n):
        total, count = out[i], 0
        for j in range(d):
            c = coefficients[i, j]
            places[count], weights[count] = j, c
            count += abs(c) > tolerance
        for q in range(0, count - 3, 4):
            a, b, c, e = weights[q], weights[q + 1], weights[q + 2], weights[q + 3]
            one, two, three, four = rows[places[q]], rows[places[q + 1]], rows[places[q + 2]], rows[places[q + 3]]
            for k in range(total.shape[0]):
                total[k] = total[k] + a * one[k] + b * two[k] + c * three[k] + e * four[k]
        for q in range(count // 4 * 4, count):
            a, one = weights[q], rows[places[q]]
            for k in range(total.shape[0]):
                total[k] += a * one[k]


@njit(cache=True, nogil=True)
def count_switched(hidden, on):
    """How many units of all samples are not as ``on`` says."""
    count = 0
    for i in range(hidden.shape[0]):
        for k in range(hidden.shape[1]):
            count += (hidden[i, k] > 0) != on[i, k]
    return count


@njit(cache=True, nogil=True, fastmath={"contract"})
def switch(hidden, on, v, w, pull):
    """Bring ``on`` = 1[hidden > 0] and pull = (on v) w up to date, for units of which few have switched."""
    for i in range(hidden.shape[0]):
        for k in range(hidden.shape[1]):
            now = hidden[i, k] > 0
            if now != on[i, k]:
                on[i, k] = now
                c = v[k] if now else -v[k]
                for j in range(pull.shape[1]):
                    pull[i, j] += c * w[k, j]
