"""Clusters with far-apart means (frei2023 Sec. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robust_erm.core.errors import one_of, require
from robust_erm.core.fields import later, per_run
from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array, Dataset, Synthetic
from robust_erm.data.separation import separation

Members = npt.NDArray[np.int64]
NOISES = ("gaussian", "rademacher", "ball", "anisotropic")


@dataclass(frozen=True)
class Clusters(Synthetic):
    """x = mu_q + sigma g, q uniform over k clusters, ||mu_q|| = sqrt(d), y the label of the cluster.

    The paper leaves the labels of the clusters free, as long as both occur. Cluster 0 always has +1.

    Args:
        d: dimension.
        m: training points (the paper's n >= k ln(d)^2).
        k: clusters.
        sigma: standard deviation within a cluster.
        means: random (uniform on the sphere) or orthogonal (exactly; needs k <= d).
        m_test: test points.
        positive: the first so many clusters have the label +1, the others -1; null: +1, -1, +1, ...
        noise: law of g, of mean 0 and E ||g||^2 = d. gaussian: N(0, I). rademacher: independent +-1. ball: uniform in
            the ball of radius sqrt(d + 2), of covariance I. anisotropic: N(0, S), S diagonal with :func:`variances`.
        correlation: c in [0, 1). Orthogonal means get <mu_i, mu_j> = c d, by the symmetric root of (1 - c) I + c 11'.
            The same root is applied to random means, which are then made sqrt(d) long again.
        norm_spread: s in [0, 1). Means are then multiplied by r_q, independent and uniform in [1 - s, 1 + s].
        balanced: training points take the clusters in turns: 0, 1, ..., k - 1, 0, ... Test points have q uniform.
        labels: class, +-1; or cluster: y is q itself, in k classes (of two, the first is +1 and the second -1).

    Reference:
        frei2023 Sec. 2 (noise, norms: its remarks on Assumption 2.2); Li, Pan, Lyu & Li 2025 (labels=cluster).
    """

    d: int = 1000
    m: int = 500
    k: int = per_run(10)
    sigma: float = per_run(1.0)
    means: str = per_run("random")
    m_test: int = 1000
    positive: int | None = later(None, per_run=True)
    noise: str = later("gaussian", per_run=True)
    correlation: float = later(0.0, per_run=True)
    norm_spread: float = later(0.0, per_run=True)
    balanced: bool = later(False, per_run=True)
    labels: str = later("class")

    def __post_init__(self) -> None:
        self._check_sizes()
        require(self.k >= 1, "k", self.k, "must be 1 or more")
        require(0 <= self.sigma < math.inf, "sigma", self.sigma, "must be 0 or more, and finite")
        one_of("means", self.means, ("random", "orthogonal"))
        orthogonal = self.means == "orthogonal"
        require(not orthogonal or self.k <= self.d, "k", self.k, f"at most d = {self.d} means can be orthogonal")
        both = f"must be between 1 and k - 1 = {self.k - 1}: both labels occur; null: labels alternate"
        require(self.positive is None or 1 <= self.positive < self.k, "positive", self.positive, both)
        one_of("noise", self.noise, NOISES)
        for key in ("correlation", "norm_spread"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "must be 0 or more, and below 1")
        one_of("labels", self.labels, ("class", "cluster"))
        require(self.labels == "class" or self.k >= 2, "k", self.k, "must be 2 or more where clusters are the classes")

    @property
    def n_classes(self) -> int:
        """2, or k where y is the cluster."""
        return self.k if self.labels == "cluster" else 2

    def cluster_means(self, seed: int) -> Array:
        """Mu (k, d) of ``seed``, rows of norm sqrt(d), or sqrt(d) r_q with ``norm_spread``."""
        mu = numpy_stream(seed, "teacher").standard_normal((self.k, self.d))
        if self.means == "orthogonal":
            mu = np.linalg.qr(mu.T)[0].T
        if self.correlation:
            mu /= np.linalg.norm(mu, axis=1, keepdims=True)
            own, c = math.sqrt(1 - self.correlation), self.correlation
            mu = own * mu + (math.sqrt(1 - c + self.k * c) - own) / self.k * mu.sum(0)
        mu *= math.sqrt(self.d) / np.linalg.norm(mu, axis=1, keepdims=True)
        if self.norm_spread:
            s = self.norm_spread
            mu *= numpy_stream(seed, "norms").uniform(1 - s, 1 + s, (self.k, 1))
        return mu

    def cluster_labels(self) -> Array:
        """(k,), in {-1, +1}: the label of each cluster."""
        q = np.arange(self.k)
        return np.where(q % 2 == 0 if self.positive is None else q < self.positive, 1.0, -1.0)

    def members(self, seed: int) -> tuple[Members, Members]:
        """The clusters q (m,) of the training points and (m_test,) of the test points of ``seed``."""
        train, test = (self._members(numpy_stream(seed, part), part) for part in ("train", "test"))
        return train, test

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        mu = self.cluster_means(seed)
        y = np.arange(self.k, dtype=np.float64) if self.n_classes > 2 else self.cluster_labels()

        def points(part: str) -> tuple[Array, Array]:
            rng = numpy_stream(seed, part)
            q = self._members(rng, part)
            return mu[q] + self.sigma * noise(self.noise, rng, len(q), self.d), y[q]

        return Dataset(*points("train"), lambda: points("test"))

    def describe(self, seed: int) -> str:
        """Whether the draw of ``seed`` satisfies Assumption 2.2 of frei2023: one line."""
        return str(separation(self, seed))

    def _members(self, rng: np.random.Generator, part: str) -> Members:
        n = self.m if part == "train" else self.m_test
        return np.arange(n) % self.k if self.balanced and part == "train" else rng.integers(self.k, size=n)


def noise(law: str, rng: np.random.Generator, n: int, d: int) -> Array:
    """(n, d): n draws of one of :data:`NOISES`, of mean 0 and with a covariance of trace d."""
    if law == "rademacher":
        return rng.choice([-1.0, 1.0], size=(n, d))
    g = rng.standard_normal((n, d))
    if law == "ball":
        radius = math.sqrt(d + 2) * rng.random((n, 1)) ** (1 / d)
        g *= radius / np.linalg.norm(g, axis=1, keepdims=True)
    if law == "anisotropic":
        g *= np.sqrt(variances(d))
    return g


def variances(d: int) -> Array:
    """The diagonal (d,) of the anisotropic covariance: ``4 (1 - u_i)^3 / (1 - 1 / (2 d^2))``, ``u_i = (i - 1/2) / d``.

    The trace is d and the largest eigenvalue below 4, near it where d is large.
    """
    u = (np.arange(d) + 0.5) / d
    return 4 * (1 - u) ** 3 / (1 - 1 / (2 * d * d))
