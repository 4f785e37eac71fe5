"""Gaussian clusters with far-apart means (frei2023 Sec. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robust_erm.core.errors import one_of, require
from robust_erm.core.fields import per_run
from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array, Dataset, Synthetic


@dataclass(frozen=True)
class Clusters(Synthetic):
    """x = mu_q + sigma g, q uniform over k clusters, ||mu_q|| = sqrt(d), y the label of the cluster.

    Labels alternate between +1 and -1 over the clusters, so that both occur when k > 1 (the paper
    leaves them free).

    Args:
        d: dimension.
        m: training points (the paper's n >= k ln(d)^2).
        k: clusters.
        sigma: standard deviation within a cluster.
        means: random (uniform on the sphere) or orthogonal (exactly; needs k <= d).
        m_test: test points.
    """

    d: int = 1000
    m: int = 500
    k: int = per_run(10)
    sigma: float = per_run(1.0)
    means: str = per_run("random")
    m_test: int = 1000

    def __post_init__(self) -> None:
        self._check_sizes()
        require(self.k >= 1, "k", self.k, "must be 1 or more")
        require(0 <= self.sigma < math.inf, "sigma", self.sigma, "must be 0 or more, and finite")
        one_of("means", self.means, ("random", "orthogonal"))
        orthogonal = self.means == "orthogonal"
        require(not orthogonal or self.k <= self.d, "k", self.k, f"at most d = {self.d} means can be orthogonal")

    def cluster_means(self, seed: int) -> Array:
        """Mu (k, d) of ``seed``, rows of norm sqrt(d)."""
        mu = numpy_stream(seed, "teacher").standard_normal((self.k, self.d))
        if self.means == "orthogonal":
            mu = np.linalg.qr(mu.T)[0].T
        mu *= math.sqrt(self.d) / np.linalg.norm(mu, axis=1, keepdims=True)
        return mu

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        mu = self.cluster_means(seed)

        def points(stream: str, n: int) -> tuple[Array, Array]:
            rng = numpy_stream(seed, stream)
            q = rng.integers(self.k, size=n)
            return mu[q] + self.sigma * rng.standard_normal((n, self.d)), np.where(q % 2 == 0, 1.0, -1.0)

        return Dataset(*points("train", self.m), lambda: points("test", self.m_test))
