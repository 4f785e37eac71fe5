"""Linear teachers on dense or sparse inputs (tsilivis2024 App. F.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

from robust_erm.core.errors import one_of, require
from robust_erm.core.fields import later, per_run
from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array, Dataset, GaussianTeacher, Points, Synthetic

_CHUNK = 256  # rows per draw, fixed: then a larger m extends the same sequence of points
_CHUNK_SPARSE = 4096
_RARE = 1e-3  # share of points that a teacher's margin must leave


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
        scale: none; unit: x / ||x||; ball: x over the length of the longest training point, so that all of them lie
            in the unit ball (lyu2022 Sec. 2); or signs: the signs of x, independent +-1 (Baek, Song & Yun 2025).
            Other than none: dense points only, and test accuracies are sampled.
        teacher_margin: points with ``|<w*, x>| < teacher_margin ||w*||`` are drawn again, x as ``scale: unit`` has it,
            or before it is scaled. Dense points only; above 0 test accuracies are sampled.
    """

    d: int = 512
    m: int = 64
    k_w: int = per_run(512)
    k_x: int = 512
    ties: str = per_run("resample")
    m_test: int = 10_000
    scale: str = later("none")
    teacher_margin: float = later(0.0)

    def __post_init__(self) -> None:
        self._check_sizes()
        require(1 <= self.k_w <= self.d, "k_w", self.k_w, f"must be between 1 and d = {self.d}")
        require(1 <= self.k_x <= self.d, "k_x", self.k_x, f"must be between 1 and d = {self.d}")
        one_of("ties", self.ties, ("resample", "negative"))
        one_of("scale", self.scale, ("none", "unit", "ball", "signs"))
        require(0 <= self.teacher_margin < math.inf, "teacher_margin", self.teacher_margin, "must be 0 or more")
        dense = f"needs dense points, k_x = d = {self.d}"
        require(self.k_x == self.d or self.scale == "none", "scale", self.scale, dense)
        require(self.k_x == self.d or not self.teacher_margin, "teacher_margin", self.teacher_margin, dense)
        says = "must be 0 with scale=signs: how many points have it is not known"
        require(self.scale != "signs" or not self.teacher_margin, "teacher_margin", self.teacher_margin, says)
        if self.teacher_margin:
            share = self._kept
            says = f"only {share:.1g} of all points have it, {_RARE:g} at least must: make it smaller"
            require(share >= _RARE, "teacher_margin", self.teacher_margin, says)

    @property
    def _kept(self) -> float:
        """P(|<w*, x>| >= teacher_margin ||w*||): of a coordinate of the sphere, or of N(0, 1)."""
        c = self.teacher_margin
        if self.scale != "unit":
            return math.erfc(c / math.sqrt(2))
        if self.d == 1 or c >= 1:
            return float(c <= 1 and self.d == 1)
        return float(special.betaincc(0.5, (self.d - 1) / 2, c * c))

    @property
    def _normal(self) -> bool:
        """Whether x ~ N(0, I)."""
        return self.k_x == self.d and self.scale == "none" and not self.teacher_margin

    @property
    def sparse(self) -> bool:
        """Whether most entries of a point are zero."""
        return 8 * self.k_x <= self.d

    @property
    def linear_test_bytes(self) -> int:
        """What the test points take where the model is linear: none are drawn, or sparse ones, twice while drawing."""
        if self.k_x == self.d:
            return 0 if self._normal else 8 * self.m_test * self.d
        return 2 * self.m_test * (5 * self.k_x + 12)

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
        law = GaussianTeacher(w_star) if self._normal else None
        over = float(np.linalg.norm(x_train, axis=1).max()) if self.scale == "ball" else 1.0

        def test() -> tuple[Points, Array]:
            x, y = points("test", self.m_test)
            return (x / over if over != 1 else x), y

        return Dataset(x_train / over if over != 1 else x_train, y_train, test, law=law)

    def _teacher(self, rng: np.random.Generator) -> Array:
        if self.k_w == self.d:
            return rng.standard_normal(self.d)
        w_star = np.zeros(self.d)
        while not w_star.any():
            w_star[:] = _sparse(rng, 1, self.d, self.k_w / self.d).toarray()
        return w_star

    def _dense_points(self, rng: np.random.Generator, w_star: Array) -> tuple[Array, Array]:
        x = rng.standard_normal((_CHUNK, self.d))
        if self.scale == "unit":
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        elif self.scale == "signs":
            x = np.sign(x)
        score = x @ w_star
        kept = (score != 0) | (self.ties == "negative")
        if self.teacher_margin:
            kept &= np.abs(score) >= self.teacher_margin * np.linalg.norm(w_star)
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
