"""The l_p margin of a data set of several classes: how far its points may move and still be separated."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import clarabel
import numpy as np
import numpy.typing as npt
import torch

from robust_erm.core.errors import require
from robust_erm.core.norms import Norm
from robust_erm.oracles.cones import ConeProgram

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

_ROUNDS = 30
_SIZE = 10**6  # points, other classes and coordinates: some minutes
_SMALL = 10.0 ** np.arange(-12, 0)  # multipliers, of the largest: a bound is found without those below each


@dataclass(frozen=True)
class ClassMargin:
    """``eps* = max_W min_i min_{c != y_i} <w_{y_i} - w_c, x_i> / ||w_{y_i} - w_c||_{p*}``, from both sides.

    Args:
        value: ``w`` is robust at every radius below; 0 where no W separates the points.
        w: (C, d).
        upper: no W is robust there: some lam in the simplex, over points and other classes, has
            ``sum lam_ic <w_{y_i} - w_c, x_i> <= upper sum lam_ic ||w_{y_i} - w_c||_{p*}`` for every W.
    """

    value: float
    w: Array
    upper: float

    @property
    def gap(self) -> float:
        """Relative, of the two sides; 0 where there is no separator."""
        return 0.0 if self.value == 0 else (self.upper - self.value) / self.upper


def max_margin_of_classes(x: Array, y: npt.NDArray[Any], p: float, classes: int | None = None) -> ClassMargin:
    """The greatest radius at which a linear model of several classes, without biases, can be robust on the points.

    Dinkelbach's method, scaled: at a radius eps the W with the greatest ``min (<w_y - w_c, x> - eps ||w_y - w_c||_{p*})
    / l_{yc}``, l the lengths of the last W, is robust up to a larger one, its own; the multipliers bound every W's
    radius from above. Two classes have the margin of :func:`robust_erm.oracles.margin.max_margin`.

    Args:
        x: (n, d).
        y: (n,) classes, from 0.
        p: exponent of the threat's norm, in [1, inf].
        classes: of the model, if more than those of the points: W keeps the points from all of them.

    Raises:
        ConfigError: an exponent below 1.
        ArithmeticError: the two sides are not within 1e-4 of each other (1e-3 for exponents other than 1, 2 and inf),
            with what is known; or the data set is too large.

    Reference:
        Crouzeix, Ferland & Schaible 1985, "An algorithm for generalized fractional programs", and 1986, its note.
    """
    require(p >= 1, "p", p, "must be a norm's exponent: 1 <= p <= inf")
    scale = float(np.abs(x).max()) or 1.0
    x, y = x / scale, np.asarray(y, dtype=np.int64)
    classes, gap = classes or int(y.max()) + 1, 1e-4 if p in (1, 2, np.inf) else 1e-3
    if x.size * (classes - 1) > _SIZE:
        size = f"{len(x):,} points in R^{x.shape[1]:,}: with other classes {x.size * (classes - 1):,} coordinates"
        raise ArithmeticError(f"margin of {classes} classes: {size}, more than {_SIZE:,}; use eps_unit=absolute")
    best = ClassMargin(0.0, np.zeros((classes, x.shape[1])), np.inf)
    a, b = _pairs(classes).T
    eps, lengths = 0.0, np.ones(len(a))
    for _ in range(_ROUNDS):
        w, lam, delta = _solved(x, y, classes, lengths, p, eps)
        reached = _radius(x, y, w, p)
        most = lam.max()
        bounds = [_bound(x, y, classes, np.where(lam > t * most, lam, 0.0), delta, p) for t in _SMALL]
        upper = min([best.upper, *bounds])
        best = ClassMargin(*((reached, w) if reached > best.value else (best.value, best.w)), upper)
        if best.value == 0 or best.gap < gap / 100 or best.value <= eps:
            break
        eps, lengths = best.value, _lengths(best.w[a] - best.w[b], Norm(p).dual)
    if best.value == 0 and best.upper < 1e-9:
        return ClassMargin(0.0, best.w, scale * best.upper)
    if best.value == 0 or best.gap > gap:
        known = f"not decided; it lies in [{scale * best.value:.10g}, {scale * best.upper:.10g}]"
        raise ArithmeticError(f"margin of {classes} classes (p = {p:g}): {known}")
    return ClassMargin(scale * best.value, best.w, scale * best.upper)


def _pairs(classes: int) -> Index:
    return np.array(list(combinations(range(classes), 2)), dtype=np.int64)


def _others(y: Index, classes: int) -> tuple[Index, Index, Index]:
    """Of every point and other class: the point, the class, and the place of its pair of classes."""
    point, other = np.nonzero(y[:, None] != np.arange(classes))
    place = np.zeros((classes, classes), dtype=np.int64)
    a, b = _pairs(classes).T
    place[a, b] = place[b, a] = np.arange(len(a))
    return point, other, place[y[point], other]


def _radius(x: Array, y: Index, w: Array, p: float) -> float:
    """Up to which W is robust; 0 where it does not separate."""
    point, other, _ = _others(y, len(w))
    apart = w[y[point]] - w[other]
    lengths = _lengths(apart, Norm(p).dual)
    values = (apart * x[point]).sum(1)
    rounding = (x.shape[1] + 4) * 2.0**-53 * (np.abs(apart) * np.abs(x[point])).sum(1)
    if not np.isfinite(values).all() or (values <= rounding).any():
        return 0.0
    return float((values / lengths).min())


def _bound(x: Array, y: Index, classes: int, lam: Array, delta: Array, p: float) -> float:
    """A radius at which no W is robust, by multipliers lam of points and classes, and delta (pairs, d) of class pairs.

    What is missing of ``sum lam_ic x_i (e_y - e_c)' = sum delta_ab (e_a - e_b)'`` is spread over the pairs like a
    current over a network whose conductances are the pairs' shares of lam; then ``||delta_ab||_p`` per share bounds.
    """
    if not (np.isfinite(lam).all() and lam.sum() > 0 and np.isfinite(delta).all()):
        return np.inf
    point, other, place = _others(y, classes)
    a, b = _pairs(classes).T
    share = np.bincount(place, lam, len(a))
    missing = np.zeros((classes, x.shape[1]))
    np.add.at(missing, y[point], lam[:, None] * x[point])
    np.add.at(missing, other, -lam[:, None] * x[point])
    delta = np.where(share[:, None] > 0, delta, 0.0)
    np.add.at(missing, a, -delta)
    np.add.at(missing, b, delta)
    network = np.zeros((classes, classes))
    network[a, b] = network[b, a] = -share
    network -= np.diag(network.sum(1))
    level = np.linalg.pinv(network, hermitian=True) @ missing
    current = delta + share[:, None] * (level[a] - level[b])
    used = share > 0
    return float((_lengths(current[used], Norm(p)) / share[used]).max())


def _lengths(rows: Array, of: Norm) -> Array:
    return np.asarray(of.value(torch.from_numpy(rows)))


def _solved(x: Array, y: Index, classes: int, lengths: Array, p: float, eps: float) -> tuple[Array, Array, Array]:
    """(W, lam, delta) at radius eps, with ``||W||_F <= 1``; not judged."""
    d, q = x.shape[1], Norm(p).dual.p
    point, other, place = _others(y, classes)
    a, b = _pairs(classes).T
    program = ConeProgram()
    w, short, one = program.variables(classes * d).reshape(classes, d), program.variables(1), program.variables(1)
    apart, size = program.variables(len(a) * d).reshape(len(a), d), program.variables(len(a))
    each = np.arange(len(a) * d).reshape(len(a), d)
    definition: list[tuple[Any, Any, Any]] = [(each, apart, 1.0), (each, w[a], -1.0), (each, w[b], 1.0)]
    program.constrain(definition, np.zeros(len(a) * d), [clarabel.ZeroConeT(len(a) * d)])
    row = np.arange(len(point))
    margins: list[tuple[Any, Any, Any]] = [(row[:, None], w[y[point]], -x[point]), (row[:, None], w[other], x[point])]
    margins += [(row, size[place], eps), (row, short, -lengths[place])]  # <w_y - w_c, x> - eps size + short l >= 0
    program.constrain(margins, np.zeros(len(row)), [clarabel.NonnegativeConeT(len(row))])
    program.constrain([(0, one, 1.0)], [1.0], [clarabel.ZeroConeT(1)])
    program.norm_at_most(w.ravel(), 2, one)
    for k in range(len(a)):
        program.norm_at_most(apart[k], q, size[k : k + 1])
    found, multipliers = program.solve(short)
    first = len(a) * d
    return found[w], multipliers[first : first + len(row)], -multipliers[:first].reshape(len(a), d)
