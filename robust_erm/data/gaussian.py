"""Linear teachers on dense or sparse inputs (tsilivis2024 App. F.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from robust_erm.core.errors import one_of, require
from robust_erm.core.fields import per_run
from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array, Dataset, GaussianTeacher, Points, Synthetic

_CHUNK = 256  # rows per draw, fixed: then a larger m extends the same sequence of points
_CHUNK_SPARSE = 4096


def _sparse(rng: np.random.Generator, n: int, d: int, share: float) -> Points:
    """N rows with entries in {-1, 0, 1}, P(+1) = P(-1) = share / 2; what is drawn are the gaps between non-zeros."""
    expected = n * d * share
    places = np.full(1, -1)
    while places[-1] < n * d:
        gaps = rng.geometric(share, int(expected + 6 * expected**0.5) + 16)
        places = np.r_[places, places[-1] + np.cumsum(gaps)]
    places = places[1 : np.searchsorted(places, n * d)]
    signs = 2 * rng.integers(0, 2, len(places), dtype=np.int8) - 1
    starts = np.searchsorted(places, d * np.arange(n + 1)).astype(np.int32)
    return sparse.csr_array((signs, (places % d).astype(np.int32), starts), shape=(n, d))


def _collect(draw: Callable[[], tuple[Points, Array]], n: int) -> tuple[Points, Array]:
    """The first n accepted points of a sequence of draws (x, y)."""
    xs: list[Points] = []
    ys: list[Array] = []
    found = 0
    while found < n:
        x, y = draw()
        xs.append(x)
        ys.append(y)
        found += len(y)
    stacked = sparse.vstack(xs, format="csr") if sparse.issparse(xs[0]) else np.concatenate(xs)
    return stacked[:n], np.concatenate(ys)[:n]


@dataclass(frozen=True)
class Gaussian(Synthetic):
    """y = sgn<w*, x>, with x and the teacher w* dense, N(0, I), or k-sparse in {-1, 0, 1}^d.

    The teacher and the test set do not depend on m; the training sets of one seed
    are nested in m. A teacher or a point that is zero everywhere is drawn again.

    Args:
        d: dimension.
        m: training points.
        k_w: expected number of non-zeros of the teacher; d means dense.
        k_x: expected number of non-zeros of a point; d means dense.
        ties: what becomes of <w*, x> = 0: resample (our reading: the label is undefined there) or
            negative (labelled -1).
        m_test: test points; the paper uses d^2. Not needed, and not used, where the test accuracy
            is known in closed form (linear predictors, k_x = d).
    """

    d: int = 512
    m: int = 64
    k_w: int = per_run(512)
    k_x: int = 512
    ties: str = per_run("resample")
    m_test: int = 10_000

    def __post_init__(self) -> None:
        self._check_sizes()
        require(1 <= self.k_w <= self.d, "k_w", self.k_w, f"must be between 1 and d = {self.d}")
        require(1 <= self.k_x <= self.d, "k_x", self.k_x, f"must be between 1 and d = {self.d}")
        one_of("ties", self.ties, ("resample", "negative"))

    @property
    def sparse(self) -> bool:
        """Whether most entries of a point are zero."""
        return 8 * self.k_x <= self.d

    @property
    def linear_test_bytes(self) -> int:
        """What the test points take where the model is linear: none are drawn, or sparse ones, twice while drawing."""
        return 0 if self.k_x == self.d else 2 * self.m_test * (5 * self.k_x + 12)

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``; its test points are a sparse array where k_x < d."""
        w_star = self._teacher(numpy_stream(seed, "teacher"))
        once = self._dense_points if self.k_x == self.d else self._sparse_points

        def points(stream: str, n: int) -> tuple[Points, Array]:
            rng = numpy_stream(seed, stream)
            return _collect(lambda: once(rng, w_star), n)

        x_train, y_train = points("train", self.m)
        if sparse.issparse(x_train):
            x_train = x_train.toarray().astype(float)
        law = GaussianTeacher(w_star) if self.k_x == self.d else None
        return Dataset(x_train, y_train, lambda: points("test", self.m_test), law=law)

    def _teacher(self, rng: np.random.Generator) -> Array:
        if self.k_w == self.d:
            return rng.standard_normal(self.d)
        w_star = np.zeros(self.d)
        while not w_star.any():
            w_star[:] = _sparse(rng, 1, self.d, self.k_w / self.d).toarray()
        return w_star

    def _dense_points(self, rng: np.random.Generator, w_star: Array) -> tuple[Array, Array]:
        x = rng.standard_normal((_CHUNK, self.d))
        score = x @ w_star
        kept = (score != 0) | (self.ties == "negative")
        return x[kept], np.where(score[kept] > 0, 1.0, -1.0)

    def _sparse_points(self, rng: np.random.Generator, w_star: Array) -> tuple[Points, Array]:
        """First the teacher's own coordinates, which decide the label; the others where the point is kept."""
        own, others = np.flatnonzero(w_star), np.flatnonzero(w_star == 0)
        share = self.k_x / self.d
        head = _sparse(rng, _CHUNK_SPARSE, len(own), share)
        score = head @ w_star[own]
        kept = np.flatnonzero((score != 0) | (self.ties == "negative"))
        x = head[kept]
        if len(others):
            x = sparse.hstack([x, _sparse(rng, len(kept), len(others), share)], format="csr")
        places = np.r_[own, others].astype(np.int32)
        x = sparse.csr_array((x.data, places[x.indices], x.indptr), shape=x.shape)
        x.sort_indices()
        filled = np.flatnonzero(np.diff(x.indptr))
        return x[filled], np.where(score[kept][filled] > 0, 1.0, -1.0)
