"""Classifiers that need no training, and their l_2 distances to another label: linear, and of nearest prototypes.

Arrays are float64, as a :class:`robust_erm.data.dataset.Dataset` has them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from robust_erm.core.errors import require

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
_HELD = 2**22  # numbers held at once
_SAME = 1e-12  # of the largest squared length: squared distances below it are rounding


@dataclass(frozen=True)
class Distances:
    """What a classifier says of n points, and how far each is from another answer.

    Args:
        label: (n,), in {-1, +1}.
        lower, upper: (n,) bounds of the l_2 distance to the nearest point with another label; equal where it is exact.
    """

    label: Array
    lower: Array
    upper: Array


def class_direction(means: Array, labels: Array) -> Array:
    """``u = sum_q y_q mu_q`` (d,) of means (k, d) and labels (k,): what sign(<u, x>) is called after in Lemma 2.1."""
    u: Array = labels @ means
    return u


def linear(u: Array, x: Array) -> Distances:
    """Of ``sign(<u, x>)``, -1 at 0: exactly ``|<u, x>| / ||u||``, for u (d,) and x (n, d).

    Raises:
        ConfigError: u = 0, which gives every point one label.
    """
    norm = float(np.linalg.norm(u))
    require(norm > 0, "u", 0, "must not be 0: its labels have no boundary")
    score = x @ u
    distance = np.abs(score) / norm
    return Distances(np.where(score > 0, 1.0, -1.0), distance, distance)


def linear_failure(means: Array, labels: Array, sigma: float) -> float:
    """P[y != sign(<u, x>)] over Gaussian clusters, exactly: ``mean_q Phi(-y_q <u, mu_q> / (sigma ||u||))``.

    Args:
        means: (k, d).
        labels: (k,), in {-1, +1}.
        sigma: of the noise N(0, sigma^2 I); 0: the share of means that are on the wrong side.

    Raises:
        ConfigError: ``sum_q y_q mu_q = 0``.

    Reference:
        frei2023 Lemma 2.1, which bounds it: :func:`linear_failure_bound`.
    """
    u = class_direction(means, labels)
    sides = linear(u, means)
    if sigma == 0:
        return float((sides.label != labels).mean())
    return float(special.ndtr(-labels * (means @ u) / (sigma * np.linalg.norm(u))).mean())


def linear_failure_bound(d: int) -> float:
    """``2 d^{1 - ln(d) / 2}`` (frei2023 Lemma 2.1)."""
    return 2 * math.pow(d, 1 - math.log(d) / 2)


def half_way(means: Array, labels: Array) -> float:
    """Half the least distance of two means (k, d) with different labels: no classifier has more at both of them.

    Raises:
        ConfigError: means of one label only.
    """
    require(set(np.unique(labels)) == {-1.0, 1.0}, "labels", labels.shape, "must be -1 and +1, both among them")
    positive, negative = means[labels > 0], means[labels < 0]
    return math.sqrt(float(_squared(positive, negative).min())) / 2


def nearest_prototype(prototypes: Array, labels: Array, x: Array, segments: int = 5) -> Distances:
    """Of the label of the nearest prototype: 1-nearest-neighbour of training points, nearest-mean of the means.

    The lower bound is ``min_o max_s (||x - o||^2 - ||x - s||^2) / (2 ||o - s||)`` over prototypes o of the other label
    and s of the one that x has: a point is given to o only where o is nearer than each s. The upper bound is attained:
    the first change of label on the segments from x to the nearest o, found exactly, cell by cell.

    Args:
        prototypes: (N, d), of both labels.
        labels: (N,), in {-1, +1}.
        x: (n, d).
        segments: so many of the nearest o, or all where there are fewer.

    Raises:
        ConfigError: shapes or labels that do not fit.
    """
    fits = prototypes.ndim == 2 == x.ndim and x.shape[1] == prototypes.shape[1]
    require(fits, "x", x.shape, f"must have shape (n, d) beside prototypes of shape {prototypes.shape}")
    both = labels.shape == prototypes.shape[:1] and set(np.unique(labels)) == {-1.0, 1.0}
    require(both, "labels", labels.shape, f"must be ({len(prototypes)},) labels, both -1 and +1 among them")
    require(segments >= 1, "segments", segments, "must be 1 or more")
    squares = _squared(x, prototypes)
    label = labels[squares.argmin(1)]
    lower, upper = np.zeros(len(x)), np.zeros(len(x))
    for sign in (-1.0, 1.0):
        mine, other = np.flatnonzero(label == sign), labels == -sign
        apart = _squared(prototypes[other], prototypes[~other])
        scale = float((prototypes**2).sum(1).max())
        apart[apart <= _SAME * scale] = 0.0
        many = min(segments, int(other.sum()))
        for at in _blocks(len(mine), max(apart.size, many * max(prototypes.shape))):
            some = mine[at]
            lower[some] = _lower(squares[some][:, other], squares[some][:, ~other], apart)
            ends = np.flatnonzero(other)[np.argpartition(squares[some][:, other], many - 1, axis=1)[:, :many]]
            upper[some] = _first_change(x[some], prototypes, other, squares[some], ends).min(1)
    return Distances(label, lower, upper)


def _lower(to_other: Array, to_own: Array, apart: Array) -> Array:
    """(n,) from squared distances (n, a) to o, (n, b) to s, and (a, b) between them; coincident pairs say nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        planes = (to_other[:, :, None] - to_own[:, None, :]) / (2 * np.sqrt(apart))
    planes[:, apart == 0] = -math.inf
    found: Array = np.maximum(planes.max(2).min(1), 0.0)
    return found


def _first_change(x: Array, prototypes: Array, other: npt.NDArray[np.bool_], squares: Array, ends: Index) -> Array:
    """Lengths (n, a) from x to where the segments to prototypes ``ends`` (n, a) first enter a cell of ``other`` (N,).

    At ``x + t (o - x)`` the squared distances are ``||x - p||^2 - 2 t <p, o - x>``, up to what all p share: lines in t,
    whose lower envelope is followed from one cell to the next.
    """
    way = prototypes[ends] - x[:, None]
    slope = -2 * way @ prototypes.T
    height = np.broadcast_to(squares[:, None], slope.shape)
    at = squares.argmin(1)[:, None].repeat(ends.shape[1], 1)[..., None]
    t, open_ = np.zeros(ends.shape), np.ones(ends.shape, dtype=bool)
    while open_.any():
        fall = np.take_along_axis(slope, at, 2) - slope
        with np.errstate(divide="ignore", invalid="ignore"):
            meets = np.where(fall > 0, (height - np.take_along_axis(height, at, 2)) / fall, math.inf)
        after = meets.argmin(2)[..., None]
        t = np.where(open_, np.take_along_axis(meets, after, 2)[..., 0], t)
        at = np.where(open_[..., None], after, at)
        open_ &= np.isfinite(t) & ~other[at[..., 0]]
    found: Array = np.maximum(t, 0.0) * np.linalg.norm(way, axis=2)
    return found


def _squared(a: Array, b: Array) -> Array:
    """``||a_i - b_j||^2`` (n, N), to rounding of the squared lengths."""
    found: Array = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.maximum(found, 0.0)


def _blocks(n: int, each: int) -> list[slice]:
    """Parts of n rows that hold ``each`` numbers a row."""
    size = max(1, _HELD // each)
    return [slice(at, at + size) for at in range(0, n, size)]
