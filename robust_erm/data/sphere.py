"""Uniform points on a sphere with uniform labels (vardi2022 Sec. 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array, Dataset, Synthetic


@dataclass(frozen=True)
class Sphere(Synthetic):
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
        self._check_sizes()

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""

        def points(stream: str, n: int) -> tuple[Array, Array]:
            rng = numpy_stream(seed, stream)
            x = rng.standard_normal((n, self.d))
            x *= math.sqrt(self.d) / np.linalg.norm(x, axis=1, keepdims=True)
            return x, rng.choice([-1.0, 1.0], size=n)

        return Dataset(*points("train", self.m), lambda: points("test", self.m_test))
