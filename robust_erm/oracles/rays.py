"""Where a net with one hidden ReLU layer changes its mind along a ray: exactly, for it is piecewise linear there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.params import Params
from robust_erm.core.stack import alternating
from robust_erm.models.mlp import one_hidden_relu
from robust_erm.models.model import Model

Array = npt.NDArray[np.float64]
_BLOCK = 2**24  # breakpoints held at once


@dataclass(frozen=True)
class Flips:
    """The t > 0 at which ``y_i f(x_i + t s_i)`` is below a level: open intervals of each of n points.

    Args:
        first: (n,) where the first interval begins; inf where there is none.
        common: where the first interval that all points share begins; inf where there is none.
        point: (k,) whose each interval is, in order.
        start, end: (k,) the intervals, in order of ``start`` for each point.
    """

    first: Array
    common: float
    point: npt.NDArray[np.int64]
    start: Array
    end: Array

    @property
    def many(self) -> npt.NDArray[np.int64]:
        """(n,) intervals of each point; more than 1 where its label comes back and goes again."""
        return np.bincount(self.point, minlength=len(self.first))

    def least(self, share: float) -> float:
        """The least t right of which at least this share of the points is below the level; inf where none is."""
        return _common(math.ceil(share * len(self.first) - 1e-9), self.start, self.end)

    def at(self, t: float) -> npt.NDArray[np.bool_]:
        """(n,) whether each point is below the level at t."""
        inside = (self.start < t) & (t < self.end)
        return np.bincount(self.point[inside], minlength=len(self.first)) > 0


def flips(model: Model, params: Params, x: Tensor, y: Tensor, rays: Tensor, level: float = 0.0) -> Flips:
    """Of every point, all t > 0 with ``y_i f(x_i + t s_i) < level``.

    A unit's pre-activation ``a_j + t b_j`` is 0 at one t at most, where the slope of f rises by ``v_j |b_j|``. So f is
    known from its value at 0 and the sorted breakpoints, without a grid and without a bisection, in O(n k log k).

    Args:
        model: an MLP with one hidden layer of ReLUs and one logit.
        params: of the model.
        x: (n, d).
        y: (n,), in {-1, +1}.
        rays: s (n, d), or one (d,) for all.
        level: 0 for a flip of the sign.

    Raises:
        ConfigError: another model, or a ray of another dimension.
    """
    w, b, v, c = _hidden(model, params)
    points, labels, s = (a.double().cpu().numpy() for a in (x, y, rays))
    d = points.shape[1]
    require(s.shape in ((d,), points.shape), "rays", s.shape, f"must have shape ({d},) or {points.shape}")
    s = np.broadcast_to(s, points.shape)
    size = max(1, _BLOCK // max(1, len(v)))
    found = []
    for at in range(0, max(len(points), 1), size):
        some = slice(at, at + size)
        a, slope = points[some] @ w.T + b, s[some] @ w.T
        value, change, signs = labels[some, None] * v, labels[some, None] * v * np.abs(slope), labels[some] * c
        place, start, end = _below(a, slope, value, change, signs, level)
        found.append((place + at, start, end))
    point, start, end = (np.concatenate(parts) for parts in zip(*found, strict=True))
    first = np.full(len(points), math.inf)
    np.minimum.at(first, point, start)
    return Flips(first, _common(len(points), start, end), point, start, end)


def _hidden(model: Model, params: Params) -> tuple[Array, Array, Array, float]:
    """W (k, d), b (k,), v (k,) and the last bias."""
    says = "is followed exactly for one hidden layer of ReLUs and one logit only"
    require(one_hidden_relu(model), "model", type(model).__name__.lower(), says)
    w = params["W1"].double().cpu().numpy()
    zero = np.zeros(len(w))
    b = params["b1"].double().cpu().numpy() if "b1" in params else zero
    last = params["W2"] if "W2" in params else alternating(params["W1"])
    require(len(last) == 1, "model", type(model).__name__.lower(), says)
    v = last.double().cpu().numpy()[0]
    return w, b, v, float(params["b2"][0]) if "b2" in params else 0.0


def _below(
    a: Array, slope: Array, value: Array, change: Array, last: Array, level: float
) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """The intervals of t > 0 on which ``sum_j value_j relu(a_j + t slope_j) + last`` is below the level.

    ``change`` (n, k), as a, slope and value are, is what the slope of the sum gains where a unit turns; last is (n,).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(slope != 0, -a / slope, math.inf)
    t = np.where(t > 0, t, math.inf)
    on = (a > 0) | ((a == 0) & (slope > 0))
    order = np.argsort(t, axis=1)
    knots = np.column_stack([np.zeros(len(a)), np.take_along_axis(t, order, 1)])
    turned = np.where(np.isfinite(knots[:, 1:]), np.take_along_axis(change, order, 1), 0.0)
    slopes = np.cumsum(np.column_stack([(value * slope * on).sum(1), turned]), axis=1)  # right of each knot
    steps = np.diff(np.where(np.isfinite(knots), knots, 0.0), axis=1)
    steps = np.where(np.isfinite(knots[:, 1:]), steps, 0.0)
    heights = np.cumsum(np.column_stack([(value * np.maximum(a, 0)).sum(1) + last, slopes[:, :-1] * steps]), axis=1)
    low = heights - level
    ends = np.column_stack([knots[:, 1:], np.full(len(a), math.inf)])
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(np.isfinite(knots), knots - low / slopes, math.inf)
    # on [knot, end) the line starts at low and has one slope: where it is below 0
    begins = np.where(low < 0, knots, np.where((slopes < 0) & (low >= 0), cross, math.inf))
    stops = np.where((low < 0) & (slopes > 0), np.minimum(cross, ends), ends)
    valid = np.isfinite(knots) & (begins < stops)
    place, _ = np.nonzero(valid)
    begin, stop = begins[valid], stops[valid]
    if not len(place):
        return place, begin, stop
    joined = np.concatenate([[False], (place[1:] == place[:-1]) & (begin[1:] <= stop[:-1] * (1 + 1e-15))])
    heads = np.flatnonzero(~joined)
    tails = np.concatenate([heads[1:] - 1, [len(place) - 1]])
    return place[heads], begin[heads], stop[tails]


def _common(n: int, start: Array, end: Array) -> float:
    """The least t right of which the intervals of n points are open; those of one point do not overlap."""
    times, kinds = np.concatenate([start, end]), np.concatenate([np.ones(len(start)), -np.ones(len(end))])
    order = np.lexsort((kinds, times))  # what ends at t ends before what begins there
    full = np.flatnonzero(np.cumsum(kinds[order]) >= n)
    full = full[kinds[order][full] > 0]
    return float(times[order][full[0]]) if len(full) else math.inf
