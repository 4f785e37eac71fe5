"""Linear teachers on dense or sparse inputs (tsilivis2024 App. F.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robust_erm.data.dataset import Array, Dataset, GaussianTeacher, Synthetic
from robust_erm.errors import one_of, require
from robust_erm.fields import per_run
from robust_erm.streams import numpy_stream

_CHUNK = 256  # rows per draw, fixed: then a larger m extends the same sequence of points


def _rows(rng: np.random.Generator, n: int, d: int, k: int) -> Array:
    """N rows: N(0, I_d) for k = d, else entries in {-1, 0, 1} with P(+1) = P(-1) = k / (2 d)."""
    if k == d:
        return rng.standard_normal((n, d))
    u = rng.random((n, d))
    return np.where(u < k / (2 * d), 1.0, 0.0) - np.where(u >= 1 - k / (2 * d), 1.0, 0.0)


def _collect(draw: Callable[[], tuple[Array, Array]], n: int, d: int) -> tuple[Array, Array]:
    """The first n accepted points of a sequence of draws (x, y)."""
    xs, ys, found = [np.empty((0, d))], [np.empty(0)], 0
    while found < n:
        x, y = draw()
        xs.append(x)
        ys.append(y)
        found += len(y)
    return np.concatenate(xs)[:n], np.concatenate(ys)[:n]


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

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        teacher = numpy_stream(seed, "teacher")
        w_star = _rows(teacher, 1, self.d, self.k_w)[0]
        while not w_star.any():
            w_star = _rows(teacher, 1, self.d, self.k_w)[0]

        def points(stream: str, n: int) -> tuple[Array, Array]:
            rng = numpy_stream(seed, stream)

            def once() -> tuple[Array, Array]:
                x = _rows(rng, _CHUNK, self.d, self.k_x)
                score = x @ w_star
                kept = x.any(axis=1) & ((score != 0) | (self.ties == "negative"))
                return x[kept], np.where(score[kept] > 0, 1.0, -1.0)

            return _collect(once, n, self.d)

        x_train, y_train = points("train", self.m)
        law = GaussianTeacher(w_star) if self.k_x == self.d else None
        return Dataset(x_train, y_train, lambda: points("test", self.m_test), law=law)
