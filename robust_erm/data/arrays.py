"""Points and labels from a file of one's own: .npz, .npy, .csv or .parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from robust_erm.core.errors import ConfigError, first_line, hint, home, require
from robust_erm.data import images
from robust_erm.data.dataset import Array, Dataset

Labels = npt.NDArray[np.str_]  # as words

_LABELS = ("label", "labels", "y", "target", "class")  # names that say by themselves that they are labels
_KINDS = (".npz", ".npy", ".csv", ".parquet")


@dataclass(frozen=True)
class Arrays:
    """m random points of a file for each seed; all others, or a file of their own, are the test points.

    Labels may be any numbers or words. Two classes become +1 (the first of ``classes``) and -1, more become 0, 1, ...

    Args:
        file: .npz with arrays of inputs (n, d), or (n, ...), and labels (n,); .npy of inputs, its labels in another;
            .csv (with a header) or .parquet, whose columns but the labels' are the inputs. Numbers all.
        labels: the array or column of the labels, or the .npy file; null: what is called label, labels, y, target or
            class.
        inputs: the array of the inputs in an .npz; null: ``x`` or ``X``, or the only one beside the labels.
        test: a file of test points in the same form; null: those that are not drawn for training.
        test_labels: the .npy file of their labels.
        classes: the labels to keep, in order; null: all, sorted.
        m: training points, drawn at random; null: four fifths of them, or all where there is a test file.
        m_test: test points, drawn at random; null: all.
        standardise: subtract the training points' mean from each input and divide by their standard deviation.
        domain: the interval that every number lives in, such as [0, 1]: attacks with ``box`` stay in it; or null.

    The file's hash is recorded with every run: one that has changed since is told (``stale``).
    """

    file: str
    labels: str | None = None
    inputs: str | None = None
    test: str | None = None
    test_labels: str | None = None
    classes: tuple[str, ...] | None = None
    m: int | None = None
    m_test: int | None = None
    standardise: bool = False
    domain: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for key in ("m", "m_test"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, value, "must be 1 or more, or null")
        if self.classes is not None:
            words = tuple(map(_word, self.classes))
            distinct = len(set(words)) == len(words) >= 2
            require(distinct, "classes", list(self.classes), "must be two or more different labels, or null for all")
            object.__setattr__(self, "classes", words)
        if self.domain is not None:
            ordered = len(self.domain) == 2 and self.domain[0] < self.domain[1]
            require(ordered, "domain", list(self.domain), "must be two numbers, the lower first, or null")
            says = "moves numbers out of the domain; leave one of them out"
            require(not self.standardise, "standardise", "true", says)

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return int(self._part("file")[0].shape[1])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self._names)

    def check(self) -> None:
        """The files must be there and fit one another, and hold as many points as are asked for."""
        x, y = self._part("file")
        kept, found = len(self._rows(y)), sorted(set(y), key=_order)
        missing = next((name for name in self._names if name not in found), None)
        says = f"is no label of the file, which has {_few(found)}"
        require(missing is None, "classes", missing, says + hint(str(missing), found))
        m = self._drawn(kept)
        if self.test is not None:
            other, labels = self._part("test")
            says = f"has {other.shape[1]} numbers in a point, {self.file} has {x.shape[1]}"
            require(other.shape[1] == x.shape[1], "test", self.test, says)
            left = len(self._rows(labels))
            require(left >= 1, "test", self.test, f"has no point of the classes {', '.join(self._names)}")
            require(m <= kept, "m", m, f"must be at most {kept}, the points of these classes")
        else:
            require(m < kept, "m", m, f"must be below {kept}, the points of these classes: the rest are for tests")
            left = kept - m
        wanted = 1 if self.m_test is None else self.m_test
        require(wanted <= left, "m_test", wanted, f"must be at most {left}, the points that are left for tests")

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        x, y = self._part("file")
        order = images.shuffled(self._rows(y), seed, "train")
        m = self._drawn(len(order))
        if self.test is None:
            x_test, y_test, rest = x, y, np.sort(order[m:])
        else:
            x_test, y_test = self._part("test")
            rest = self._rows(y_test)
        if self.m_test is not None:
            rest = np.sort(images.shuffled(rest, seed, "test")[: self.m_test])
        shift, scale = (x[order[:m]].mean(0), x[order[:m]].std(0)) if self.standardise else (0.0, 1.0)
        scale = np.where(scale == 0, 1.0, scale)

        def points(x: Array, y: Labels, rows: images.Labels) -> tuple[Array, Array]:
            return (x[rows] - shift) / scale, images.labels(self._places(y[rows]), tuple(range(self.n_classes)))

        domain = None if self.domain is None else (float(self.domain[0]), float(self.domain[1]))
        return Dataset(*points(x, y, order[:m]), lambda: points(x_test, y_test, rest), domain=domain)

    @property
    def _names(self) -> tuple[str, ...]:
        return self.classes or tuple(sorted(set(self._part("file")[1]), key=_order))

    def _places(self, y: Labels) -> images.Labels:
        """The position of each label among the classes; -1 of others."""
        values, which = np.unique(y, return_inverse=True)
        place = {name: k for k, name in enumerate(self._names)}
        return np.array([place.get(value, -1) for value in values])[which]

    def _rows(self, y: Labels) -> images.Labels:
        """The points of the classes."""
        return np.flatnonzero(self._places(y) >= 0)

    def _drawn(self, kept: int) -> int:
        """Training points, of so many of these classes."""
        return self.m or (max(1, 4 * kept // 5) if self.test is None else kept)

    def _part(self, key: str) -> tuple[Array, Labels]:
        file = getattr(self, key)
        labels = self.labels if key == "file" or Path(file).suffix != ".npy" else self.test_labels
        path = home(key, file)
        require(path.is_file(), key, file, "is no file" + ("" if path.exists() else ": there is nothing there"))
        says = f"must be one of {', '.join(_KINDS)}"
        require(path.suffix in _KINDS, key, file, says)
        stat = path.stat()
        return _load(key, str(path), stat.st_mtime_ns, stat.st_size, labels, self.inputs)


@lru_cache(maxsize=4)
def _load(
    key: str, path: str, _changed: int, _size: int, labels: str | None, inputs: str | None
) -> tuple[Array, Labels]:
    """Inputs (n, d) and labels (n,), as words."""
    kind = Path(path).suffix
    try:
        x, y = {".npz": _npz, ".npy": _npy, ".csv": _table, ".parquet": _table}[kind](path, labels, inputs)
    except ConfigError:
        raise
    except Exception as error:  # numpy, zipfile, pandas and pyarrow have kinds of their own
        raise ConfigError(key, path, f"cannot be read: {first_line(error)}") from error
    require(x.ndim >= 2 and len(x) >= 1, key, path, f"has inputs of shape {x.shape}, must have (n, d) or (n, ...)")
    require(y.shape in ((len(x),), (len(x), 1)), key, path, f"has labels of shape {y.shape} for {len(x)} points")
    require(x.dtype.kind in "fiub", key, path, f"has inputs of type {x.dtype}, must have numbers")
    missing = int(pd.isna(y).sum())
    require(not missing, key, path, f"has {missing} labels that are missing")
    values, which = np.unique(y.ravel(), return_inverse=True)
    return np.asarray(x, dtype=np.float64).reshape(len(x), -1), np.array([_word(value) for value in values])[which]


def _npz(path: str, labels: str | None, inputs: str | None) -> tuple[Any, Any]:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
        names = list(kept.files)
        label = _named("labels", labels, names, _LABELS)
        others = [name for name in names if name != label]
        known = ("x", "X") if len(others) != 1 else (*others,)
        return kept[_named("inputs", inputs, others, known)], kept[label]


def _npy(path: str, labels: str | None, _: str | None) -> tuple[Any, Any]:
    require(labels is not None, "labels", "null", f"must be the .npy file of the labels beside {path}")
    assert labels is not None
    other = home("labels", labels)
    require(other.is_file(), "labels", labels, "is no file")
    return np.load(path, allow_pickle=False), np.load(other, allow_pickle=False)


def _table(path: str, labels: str | None, _: str | None) -> tuple[Any, Any]:
    frame = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path)
    frame.columns = frame.columns.map(str)
    label = _named("labels", labels, [str(column) for column in frame], _LABELS)
    x = frame.drop(columns=label)
    words = [str(column) for column in x if x[column].dtype.kind not in "fiub"]
    require(not words, "file", path, f"has columns that are not numbers: {', '.join(words[:4])}; leave them out")
    return x.to_numpy(dtype=np.float64), frame[label].to_numpy()


def _named(key: str, asked: str | None, names: list[str], known: tuple[str, ...]) -> str:
    """The one of ``names`` that is asked for, or whose name says what it is."""
    shown = _few(names)
    if asked is not None:
        require(asked in names, key, asked, f"is not in the file, which has {shown}{hint(asked, names)}")
        return asked
    found = [name for name in names if name in known]
    require(len(found) == 1, key, "null", f"must say which of {shown} it is")
    return found[0]


def _word(value: Any) -> str:
    """A label as a word: 3, 3.0 and "3" are the same."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{int(number)}" if number.is_integer() and abs(number) < 2**53 else f"{number!r}"


def _order(word: str) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    try:
        return 0, float(word), word
    except ValueError:
        return 1, 0.0, word


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
