"""What digits and MNIST share: m random images per draw, of some classes, pixels in [0, 1]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robust_erm.core.errors import require
from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array, Dataset

Labels = npt.NDArray[np.int64]


class OfClasses:
    """What data sets of chosen classes share."""

    classes: tuple[int, ...]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)


def check_classes(classes: tuple[int, ...]) -> None:
    """Two or more different digits."""
    valid = len(classes) >= 2 and len(set(classes)) == len(classes) and set(classes) <= set(range(10))
    require(valid, "classes", list(classes), "must be two or more different digits, such as [2,7] or [0,1,...,9]")


def labels(raw: Labels, classes: tuple[int, ...]) -> Array:
    """+1 / -1 for the first / second of two classes, else the position in ``classes``."""
    position = np.argmax(raw[:, None] == np.asarray(classes)[None, :], axis=1)
    return np.where(position == 0, 1.0, -1.0) if len(classes) == 2 else position.astype(np.float64)


def rows_of(raw: Labels, classes: tuple[int, ...]) -> Labels:
    """Indices of the images of ``classes``."""
    return np.flatnonzero(np.isin(raw, classes))


SAMPLES = ("random", "first")


def ordered(rows: Labels, seed: int, sample: str) -> Labels:
    """``rows`` such that the first m are those to train on: mixed (``random``), or as they are (``first``)."""
    return rows if sample == "first" else shuffled(rows, seed, "train")


def shuffled(rows: Labels, seed: int, stream: str) -> Labels:
    """A random order of ``rows``, so that the first m are m random ones."""
    return numpy_stream(seed, stream).permutation(rows)


def dataset(
    train: tuple[Array, Labels, Labels], test: tuple[Array, Labels, Labels], classes: tuple[int, ...]
) -> Dataset:
    """The data set made of (images, labels, chosen rows) for train and test."""
    (x, y, chosen), (x_test, y_test, chosen_test) = train, test
    return Dataset(
        x[chosen],
        labels(y[chosen], classes),
        lambda: (x_test[chosen_test], labels(y_test[chosen_test], classes)),
        domain=(0.0, 1.0),
    )
