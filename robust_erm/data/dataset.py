"""What every data component gives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from robust_erm.core.errors import require

Array = npt.NDArray[np.float64]
Points: TypeAlias = Any  # points by rows: an Array, or a scipy.sparse.csr_array


@dataclass(frozen=True)
class GaussianTeacher:
    """The law x ~ N(0, I_d), y = sgn<w_star, x>: test accuracies of linear predictors are exact."""

    w_star: Array


@dataclass(frozen=True)
class Dataset:
    """One draw.

    Args:
        x_train: (m, d).
        y_train: (m,); in {-1, +1} for two classes, else 0..classes-1.
        test: gives x_test (m_test, d), which may be a sparse array, and y_test (m_test,); called when first needed.
        domain: the interval that every input coordinate lives in, or None for the whole line.
        law: what is known of the population, or None.
    """

    x_train: Array
    y_train: Array
    test: Callable[[], tuple[Points, Array]]
    domain: tuple[float, float] | None = None
    law: GaussianTeacher | None = None

    @cached_property
    def _test(self) -> tuple[Points, Array]:
        return self.test()

    @property
    def x_test(self) -> Array:
        """(m_test, d)."""
        x: Array = self._test[0] if self.sparse_test is None else self.sparse_test.toarray().astype(float)
        return x

    @property
    def sparse_test(self) -> Points | None:
        """X_test where it is a sparse array."""
        x = self._test[0]
        return x if sparse.issparse(x) else None

    @property
    def y_test(self) -> Array:
        """(m_test,)."""
        return self._test[1]


class Data(Hashable, Protocol):
    """A way to draw a data set."""

    @property
    def dimension(self) -> int:
        """d, known before anything is drawn."""
        ...

    @property
    def n_classes(self) -> int:
        """Number of classes, known before anything is drawn."""
        ...

    def check(self) -> None:
        """Raise :class:`ConfigError` where ``draw`` would fail; called before any training."""
        ...

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        ...


class Synthetic:
    """What the two-class data sets drawn from a law share: their sizes d, m and m_test."""

    d: int
    m: int
    m_test: int

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return self.d

    @property
    def n_classes(self) -> int:
        """2."""
        return 2

    def check(self) -> None:
        """Nothing can fail beyond what making the object has checked."""

    def _check_sizes(self) -> None:
        for key in ("d", "m", "m_test"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "must be 1 or more")
