"""scikit-learn's bundled 8x8 digits: real images, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from robust_erm.core.errors import one_of, require
from robust_erm.core.fields import later
from robust_erm.data import images
from robust_erm.data.dataset import Array, Dataset


@lru_cache(maxsize=1)
def _load() -> tuple[Array, images.Labels]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.asarray(bunch.data, dtype=np.float64) / 16, np.asarray(bunch.target, dtype=np.int64)


@dataclass(frozen=True)
class Digits(images.OfClasses):
    """M training images of 1,797, d = 64, pixels in [0, 1]; all others are the test set.

    Args:
        classes: the digits; of two, the first is labelled +1.
        m: training images.
        sample: ``random`` draws them anew for each seed, ``first`` takes the first m of the file for every seed.
    """

    classes: tuple[int, ...] = (2, 7)
    m: int = 50
    sample: str = later("random")

    def __post_init__(self) -> None:
        images.check_classes(self.classes)
        one_of("sample", self.sample, images.SAMPLES)
        require(self.m >= 1, "m", self.m, "must be 1 or more")

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return 64

    def check(self) -> None:
        """M must leave test images."""
        size = len(images.rows_of(_load()[1], self.classes))
        require(self.m < size, "m", self.m, f"must be below {size}, the number of images of {list(self.classes)}")

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        x, y = _load()
        order = images.ordered(images.rows_of(y, self.classes), seed, self.sample)
        return images.dataset((x, y, order[: self.m]), (x, y, np.sort(order[self.m :])), self.classes)
