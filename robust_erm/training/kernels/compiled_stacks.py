"""The loops of :mod:`robust_erm.training.kernels.stacks`, compiled by numba around BLAS.

``row``: parameters (P,) of one run. ``layers``: of each layer where its weight begins in ``row``, its rows and columns,
and where its bias begins, or -1. ``work``: room for the values of all layers, one after another. ``turned``: of
:func:`turned_of`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import numpy as np
from numba import njit

from robust_erm.training.kernels.compiled_attacks import length_step_into, margin_slopes_into, sign_step_into
from robust_erm.training.kernels.compiled_scores import slopes_into

WEIGHT, OUT, IN, BIAS = range(4)
LINE = 64  # bytes: arrays that begin with a line of the cache are multiplied faster


@njit(cache=True, nogil=True)
def part(numbers, begin, rows, columns):
    """A matrix (rows, columns) out of ``numbers``, a view."""
    return numbers[begin : begin + rows * columns].reshape(rows, columns)


@njit(cache=True, nogil=True)
def lines(count):
    """So many numbers, in whole lines of float32."""
    return -(-count // (LINE // 4)) * (LINE // 4)


@njit(cache=True, nogil=True)
def fresh(count, like):
    """Room for so many numbers of the type of ``like``, from the begin of a line on."""
    found = np.empty(count + LINE // like.itemsize, like.dtype)
    skip = -found.ctypes.data % LINE // like.itemsize
    return found[skip : skip + count]


@njit(cache=True, nogil=True)
def room(layers, n):
    """How many numbers n points make: of all layers together, and of the widest side of one."""
    every, widest = 0, 1
    for k in range(layers.shape[0]):
        every += lines(n * layers[k, OUT])
        widest = max(widest, n * layers[k, OUT], n * layers[k, IN])
    return every, lines(widest)


@njit(cache=True, nogil=True)
def turns(layers, k, n):
    """Whether n points times a transposed weight take longer than to transpose it: in BLAS's kernels for small ones."""
    return n >= 32 and layers[k, OUT] > 1 and n * layers[k, OUT] * layers[k, IN] <= 10**6


@njit(cache=True, nogil=True)
def turned_of(theta, layers, n):
    """Of each run (R, P) the transposed weights that :func:`forward` asks for, each where it stands in its row."""
    some = False
    for k in range(layers.shape[0]):
        some |= turns(layers, k, n)
    width = lines(theta.shape[1]) if some else 0
    found = fresh(theta.shape[0] * width, theta).reshape(theta.shape[0], width)
    for r in range(theta.shape[0] if some else 0):
        for k in range(layers.shape[0]):
            if turns(layers, k, n):
                weight = part(theta[r], layers[k, WEIGHT], layers[k, OUT], layers[k, IN])
                out = part(found[r], layers[k, WEIGHT], layers[k, IN], layers[k, OUT])
                for j in range(out.shape[0]):
                    for i in range(out.shape[1]):
                        out[j, i] = weight[i, j]
    return found


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def dot(a, b):
    """In float64."""
    whole = 0.0
    for j in range(a.shape[0]):
        whole += np.float64(a[j]) * np.float64(b[j])
    return whole


@njit(cache=True, nogil=True)
def add_rows_of(slopes, inputs, sums, out):
    """``out_j = sum_i slopes_i inputs_ij`` for slopes (n, 1), added up in float64; ``sums`` is for work."""
    for j in range(out.shape[0]):
        sums[j] = 0.0
    for i in range(inputs.shape[0]):
        s = np.float64(slopes[i, 0])
        for j in range(out.shape[0]):
            sums[j] += s * np.float64(inputs[i, j])
    for j in range(out.shape[0]):
        out[j] = sums[j]


@njit(cache=True, nogil=True)
def activate(z, slope):
    """``z`` where that is above 0, ``slope z`` elsewhere, in place; nan stays."""
    for i in range(z.shape[0]):
        row = z[i]
        if slope == 0:  # where z may be infinite
            for j in range(row.shape[0]):
                v = row[j]
                row[j] = 0 if v <= 0 else v
        else:
            for j in range(row.shape[0]):
                v = row[j]
                row[j] = slope * v if v <= 0 else v


@njit(cache=True, nogil=True)
def activate_back(slopes, a, slope):
    """Slopes in z from those in ``a = activate(z)``, in place; at the kink as on the left."""
    for i in range(a.shape[0]):
        row, values = slopes[i], a[i]
        if slope == 0:
            for j in range(row.shape[0]):
                s = row[j]
                row[j] = 0 if values[j] <= 0 else s
        else:
            for j in range(row.shape[0]):
                s = row[j]
                row[j] = slope * s if values[j] <= 0 else s


@njit(cache=True, nogil=True)
def forward(row, turned, layers, slope, x, work, count):
    """Values of the first ``count`` layers at x (n, d), in ``work`` one after another; slope 1 is no activation.

    What is given back are those of the last of them.
    """
    n, begin, h = x.shape[0], 0, x
    for k in range(count):
        weight = part(row, layers[k, WEIGHT], layers[k, OUT], layers[k, IN])
        z = part(work, begin, n, layers[k, OUT])
        if layers[k, OUT] == 1:
            for i in range(n):
                z[i, 0] = dot(h[i], weight[0])
        elif turns(layers, k, n):
            np.dot(h, part(turned, layers[k, WEIGHT], layers[k, IN], layers[k, OUT]), z)
        else:
            np.dot(h, weight.T, z)
        if layers[k, BIAS] >= 0:
            for i in range(n):
                for j in range(z.shape[1]):
                    z[i, j] += row[layers[k, BIAS] + j]
        if k + 1 < layers.shape[0] and slope != 1:
            activate(z, slope)
        begin, h = begin + lines(z.size), z
    return h


@njit(cache=True, nogil=True)
def down(row, layers, k, slopes, out):
    """Slopes (n, in) in the inputs of layer k from those (n, out) in what it gives."""
    weight = part(row, layers[k, WEIGHT], layers[k, OUT], layers[k, IN])
    if layers[k, OUT] > 1:
        np.dot(slopes, weight, out)
        return
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = slopes[i, 0] * weight[0, j]


@njit(cache=True, nogil=True)
def below(row, layers, slope, k, slopes, h, spare):
    """The same before the activation that gave layer k its inputs h (n, in); in one half of ``spare``."""
    found = part(spare[k % 2], 0, h.shape[0], h.shape[1])
    down(row, layers, k, slopes, found)
    if slope != 1:
        activate_back(found, h, slope)
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def margin_gradient(row, turned, layers, slope, x, y, work, spare, slopes, out):
    """Gradients (n, d) of the margins of labels y (n,) in x (n, d)."""
    n, last = x.shape[0], layers.shape[0] - 1
    if layers[last, OUT] == 1:  # whatever the one output is
        forward(row, turned, layers, slope, x, work, last)
        for i in range(n):
            slopes[i, 0] = y[i]
    else:
        margin_slopes_into(forward(row, turned, layers, slope, x, work, last + 1), y, slopes)
    begin, above = work.size - lines(slopes.size), slopes
    for k in range(last, 0, -1):
        begin -= lines(n * layers[k, IN])
        above = below(row, layers, slope, k, above, part(work, begin, n, layers[k, IN]), spare)
    down(row, layers, 0, above, out)


@njit(cache=True, nogil=True, error_model="numpy")
def descend_into(
    theta,
    turned,
    layers,
    slope,
    y,
    start,
    center,
    lengths,
    radii,
    ball,
    low,
    high,
    sign,
    rounding,
    steps,
    gradient,
    bits,
    out,
):
    """From ``start`` (R, n, d), ``steps`` steps against :func:`margin_gradient`, every one into ball and box.

    In l_inf, where ``sign``, or l_2. ``lengths`` of steps and ``radii`` of balls around ``center``: (R, n). Of labels,
    start and center there may be those of one run for all. ``gradient`` (n, d) is for work, ``bits`` the same memory
    as integers.
    """
    n = start.shape[1]
    every, widest = room(layers, n)
    work, spare = fresh(every, out), fresh(2 * widest, out).reshape(2, widest)
    slopes, other = np.empty((n, layers[-1, OUT]), out.dtype), fresh(gradient.size, out).reshape(gradient.shape)
    for r in range(theta.shape[0]):
        x, middle = start[r % start.shape[0]], center[r % center.shape[0]]
        labels, length, radius = y[r % y.shape[0]], lengths[r], radii[r]
        for left in range(steps - 1, -1, -1):
            to = other if left % 2 else out[r]  # not in place: such loops are not vectorised
            margin_gradient(theta[r], turned[r], layers, slope, x, labels, work, spare, slopes, gradient)
            if sign:
                sign_step_into(x, gradient, bits, length, rounding, ball, middle, radius, low, high, to)
            else:
                length_step_into(x, gradient, length, ball, middle, radius, low, high, to)
            x = to


@njit(cache=True, nogil=True, error_model="numpy")
def grads_into(theta, turned, layers, slope, x, y, soft, less, log_loss, grad):
    """Log losses (R,), less ``less``, and their gradients (R, P) in theta, at x as above."""
    n, last = x.shape[1], layers.shape[0] - 1
    every, widest = room(layers, n)
    work, spare = fresh(every, x), fresh(2 * widest, x).reshape(2, widest)
    sums, slopes = np.empty(widest), np.empty((1, n, layers[last, OUT]), x.dtype)
    for r in range(theta.shape[0]):
        row, at, own = theta[r], x[r % x.shape[0]], r % y.shape[0]
        f = forward(row, turned[r], layers, slope, at, work, last + 1)
        slopes_into(f.reshape(1, n, f.shape[1]), y[own : own + 1], soft, less, log_loss[r : r + 1], slopes)
        begin, above = every - lines(f.size), slopes[0]
        for k in range(last, -1, -1):
            out, width = layers[k, OUT], layers[k, IN]
            begin -= lines(n * width)
            h = part(work, begin, n, width) if k else at
            found = part(grad[r], layers[k, WEIGHT], out, width)
            if out == 1:
                add_rows_of(above, h, sums, found[0])
            else:
                np.dot(above.T, h, found)
            if layers[k, BIAS] >= 0:
                for j in range(out):
                    whole = 0.0
                    for i in range(n):
                        whole += above[i, j]
                    grad[r, layers[k, BIAS] + j] = whole
            if k:
                above = below(row, layers, slope, k, above, h, spare)
