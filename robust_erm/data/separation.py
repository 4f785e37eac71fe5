"""Whether a draw of clusters is what the theorems of frei2023 ask for, and by how much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robust_erm.core.errors import require
from robust_erm.data.dataset import Array

if TYPE_CHECKING:
    from robust_erm.data.clusters import Clusters, Members

_HELD = 2**22  # inner products held at once


@dataclass(frozen=True)
class Separation:
    """How far apart the clusters of one draw are, in the terms of the theorems.

    Args:
        kind: literal, Assumption 2.2 holds as printed; empirical, ``ratio <= 1/10``; bounds, ``ratio < 1/3``, where
            bounds on the multipliers of KKT points still follow; or relaxed.
        k: clusters.
        n: training points.
        delta: ``4 sigma sqrt(d) ln d``.
        inner: ``max_{i != j} |<mu_i, mu_j>|``.
        k_most: the k up to which Assumption 2.2 has its third part, see :func:`most_clusters`.
        enough: ``k ln(d)^2``, the training points that the theorems ask for.
        across: P, the largest ``|<x, x'> + 1|`` over pairs of points of different clusters; 0 without one.
        within_least, within_most: D_- and D_+, the least and the largest ``<x, x'> + 1`` over pairs of points of one
            cluster, each point with itself too.
        ratio: ``k P / D_-``; inf where D_- is not positive.
    """

    kind: str
    k: int
    n: int
    delta: float
    inner: float
    k_most: float
    enough: float
    across: float
    within_least: float
    within_most: float
    ratio: float

    def __str__(self) -> str:
        says = {
            "literal": "Assumption 2.2 holds",
            "empirical": "Assumption 2.2 does not hold, but its consequence x <= 1/10 does",
            "bounds": "Assumption 2.2 does not hold; x < 1/3, so that the bounds on KKT points do",
            "relaxed": "Assumption 2.2 does not hold, nor do the bounds on KKT points follow",
        }[self.kind]
        return (
            f"{self.kind}: {says} (k = {self.k}, at most {self.k_most:.3g} with Delta = {self.delta:.3g} and "
            f"max |<mu_i, mu_j>| = {self.inner:.3g}; x = k P / D_- = {self.ratio:.3g}, P = {self.across:.4g}, "
            f"D_- = {self.within_least:.4g}, D_+ = {self.within_most:.4g}; "
            f"n = {self.n} {'>=' if self.n >= self.enough else '<'} k ln(d)^2 = {self.enough:.4g})"
        )


def separation(data: Clusters, seed: int) -> Separation:
    """What the draw of ``seed`` satisfies; P, D_- and D_+ are over training and test points together.

    Literal asks for means of length sqrt(d), ``0 < sigma <= 1``, ``k <= k_most``, two labels and Gaussian noise.

    Reference:
        frei2023 Assumption 2.2; that its proofs use the data through ``k P / D_-`` alone is our reading.
    """
    mu, drawn = data.cluster_means(seed), data.draw(seed)
    delta, inner = 4 * data.sigma * math.sqrt(data.d) * math.log(data.d), largest_inner(mu)
    k_most = most_clusters(data.d, data.sigma, inner)
    x, q = np.concatenate([drawn.x_train, drawn.x_test]), np.concatenate(data.members(seed))
    across, least, most = spread(x, q)
    ratio = data.k * across / least if least > 0 else math.inf
    sizes = np.allclose(np.linalg.norm(mu, axis=1), math.sqrt(data.d), rtol=1e-9) and 0 < data.sigma <= 1
    literal = sizes and 2 <= data.k <= k_most and data.noise == "gaussian"
    kind = "literal" if literal else "empirical" if ratio <= 0.1 else "bounds" if ratio < 1 / 3 else "relaxed"
    enough = data.k * math.log(data.d) ** 2
    return Separation(kind, data.k, data.m, delta, inner, k_most, enough, across, least, most, ratio)


def most_clusters(d: int, sigma: float, inner: float = 0.0) -> float:
    """The k of ``k (p + Delta + 1) = (d - Delta + 1) / 10``, ``p = max |<mu_i, mu_j>|``; negative where d is too small.

    Reference:
        frei2023 Assumption 2.2.
    """
    delta = 4 * sigma * math.sqrt(d) * math.log(d)
    return (d - delta + 1) / (10 * (inner + delta + 1))


def largest_inner(means: Array) -> float:
    """``max_{i != j} |<mu_i, mu_j>|`` of means (k, d); 0 of one alone."""
    gram = np.abs(means @ means.T)
    np.fill_diagonal(gram, 0.0)
    return float(gram.max())


def spread(x: Array, q: Members) -> tuple[float, float, float]:
    """P, D_- and D_+ of :class:`Separation`, of points x (n, d) in the clusters q (n,); in blocks of pairs.

    Raises:
        ConfigError: no point, or clusters that do not fit the points.
    """
    n = len(x)
    require(n >= 1 and q.shape == (n,), "q", q.shape, f"must have shape ({n},), of one point or more")
    across, least, most = 0.0, math.inf, -math.inf
    size = max(1, _HELD // n)
    for at in range(0, n, size):
        inner = x[at : at + size] @ x[at:].T + 1
        same = q[at : at + size, None] == q[None, at:]
        across = max(across, float(np.abs(inner).max(initial=0.0, where=~same)))
        least = min(least, float(inner.min(initial=math.inf, where=same)))
        most = max(most, float(inner.max(initial=-math.inf, where=same)))
    return across, least, most
