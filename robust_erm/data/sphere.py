"""Uniform points on a sphere with uniform labels (vardi2022 Sec. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robust_erm.data.dataset import Array, Dataset
from robust_erm.errors import require
from robust_erm.streams import numpy_stream


@dataclass(frozen=True)
class Sphere:
    """x uniform on sqrt(d) S^{d-1}, y uniform in {-1, +1} and independent of x.

    Nothing can be learned: the test accuracy is 1/2 in expectation. The data set is for questions
    about the training points.

    Args:
        d: dimension.
        m: training points.
        m_test: test points.
    """

    d: int = 1000
    m: int = 1000
    m_test: int = 1000

    def __post_init__(self) -> None:
        require(self.d >= 1, "d", self.d, "must be 1 or more")
        require(self.m >= 1, "m", self.m, "must be 1 or more")
        require(self.m_test >= 1, "m_test", self.m_test, "must be 1 or more")

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return self.d

    @property
    def n_classes(self) -> int:
        """2."""
        return 2

    def check(self) -> None:
        """Nothing beyond the above."""

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""

        def points(stream: str, n: int) -> tuple[Array, Array]:
            rng = numpy_stream(seed, stream)
            x = rng.standard_normal((n, self.d))
            x *= math.sqrt(self.d) / np.linalg.norm(x, axis=1, keepdims=True)
            return x, rng.choice([-1.0, 1.0], size=n)

        return Dataset(*points("train", self.m), *points("test", self.m_test))
