"""What every data component gives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
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


def checked(found: Dataset, dimension: int, n_classes: int, name: str) -> Dataset:
    """``found``, whose training points are what they must be, and whose test points will be looked at when drawn.

    Args:
        found: a draw.
        dimension: d, as the component says.
        n_classes: number of classes, as the component says.
        name: of the component, for messages.

    Raises:
        ConfigError: shapes that do not fit, numbers that are not finite or outside the domain, labels that are not
            in {-1, +1} (two classes) or 0..n_classes-1.
    """

    def test() -> tuple[Points, Array]:
        x, y = found.test()
        return _checked_part(x, y, "test", found.domain, dimension, n_classes, name)

    x, y = _checked_part(found.x_train, found.y_train, "train", found.domain, dimension, n_classes, name)
    return replace(found, x_train=x, y_train=y, test=test)


def _checked_part(
    x: Points, y: Array, part: str, domain: tuple[float, float] | None, dimension: int, n_classes: int, name: str
) -> tuple[Points, Array]:
    def must(condition: bool, gives: str, expected: str) -> None:
        require(condition, "data", name, f"{gives}, must {expected}")

    if not sparse.issparse(x):
        x = np.asarray(x)
        real = x.dtype.kind in "fiub"
        must(real, f"gives x_{part} of type {x.dtype}", "give real numbers")
    y = np.asarray(y)
    must(y.dtype.kind in "fiub", f"gives y_{part} of type {y.dtype}", "give labels as numbers")
    shape = tuple(x.shape)
    must(len(shape) == 2 and shape[1] == dimension, f"gives x_{part} of shape {shape}", f"give (n, {dimension})")
    must(shape[0] >= 1, f"gives no points in x_{part}", "give one at least")
    must(y.shape == shape[:1], f"gives y_{part} of shape {y.shape} for {shape[0]} points", f"give ({shape[0]},)")
    values = x.data if sparse.issparse(x) else x
    finite = np.isfinite(values)
    must(
        bool(finite.all()), f"gives {int((~finite).sum())} numbers in x_{part} that are not finite", "give finite ones"
    )
    if domain is not None:
        low, high = float(values.min(initial=domain[0])), float(values.max(initial=domain[1]))
        inside = domain[0] <= low and high <= domain[1]
        must(inside, f"gives x_{part} from {low:g} to {high:g}", f"stay in its domain {list(domain)}")
    known = [-1.0, 1.0] if n_classes == 2 else [float(k) for k in range(n_classes)]
    unknown = np.setdiff1d(y, known)
    labels = "-1 and +1" if n_classes == 2 else f"0 to {n_classes - 1}"
    some = ", ".join(f"{v:g}" for v in np.unique(y)[:4]) + (", ..." if len(np.unique(y)) > 4 else "")
    must(not len(unknown), f"gives labels {some} in y_{part}", f"give {labels} for {n_classes} classes")
    return x if sparse.issparse(x) else x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)


class Data(Hashable, Protocol):
    """A way to draw a data set.

    One that also has ``describe(seed) -> str`` is asked for a line on what a draw satisfies, before training.
    """

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
