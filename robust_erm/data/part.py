"""Points and labels as files have them: labels are words, and bytes are pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from robust_erm.core.errors import in_one_line, require
from robust_erm.data import images
from robust_erm.data.dataset import Array


@dataclass(frozen=True, eq=False)
class Part:
    """Points and labels of one file, or of some that belong together.

    Args:
        key: the option that names it, for messages.
        source: what it says there.
        x: (n, d), numbers of any type.
        shape: of one input before it was flattened.
        names: the labels that occur, sorted.
        which: (n,), the position of each label among the names.
        pixels: whether numbers are bytes to be divided by 255.
        columns: what each input is called, where the file says so; else none.
    """

    key: str
    source: str
    x: npt.NDArray[Any]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    which: images.Labels
    pixels: bool = False
    columns: tuple[str, ...] = ()

    def as_in(self, other: Part) -> Part:
        """The inputs in the order of ``other``'s columns; as they are where either has no names.

        Raises:
            ConfigError: it lacks a column of ``other``, or has another one.
        """
        if not self.columns or not other.columns or self.columns == other.columns:
            return self
        one, two = set(self.columns), set(other.columns)
        says = f"has other columns than {other.source}: " + "; ".join(
            [f"lacks {few(sorted(two - one))}"] * bool(two - one) + [f"has {few(sorted(one - two))}"] * bool(one - two)
        )
        require(one == two, self.key, self.source, says)
        order = [self.columns.index(name) for name in other.columns]
        return replace(self, x=self.x[:, order], columns=other.columns)

    def values(self, rows: images.Labels) -> Array:
        """(len(rows), d)."""
        x = self.x[rows]
        return x / 255.0 if self.pixels else np.asarray(x, dtype=np.float64)

    def reach(self, rows: images.Labels | None = None) -> tuple[float, float]:
        """The least and the greatest number, of all points or of ``rows``."""
        x = self.x if rows is None else self.x[rows]
        unit = 255.0 if self.pixels else 1.0
        return float(x.min()) / unit, float(x.max()) / unit

    def places(self, names: Sequence[str]) -> images.Labels:
        """The position of each point's label among ``names``, (n,); -1 of others."""
        place = {name: k for k, name in enumerate(names)}
        return np.array([place.get(name, -1) for name in self.names], dtype=np.int64)[self.which]

    def rows(self, names: Sequence[str]) -> images.Labels:
        """The points of the classes ``names``."""
        return np.flatnonzero(self.places(names) >= 0)


def part(
    key: str,
    source: str,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    pixels: bool = False,
    columns: tuple[str, ...] = (),
) -> Part:
    """Inputs (n, ...) with their labels (n,), numbers or words.

    Raises:
        ConfigError: numbers or labels that are missing or not finite, or labels that are neither numbers nor words.
    """
    check_numbers(key, source, x, columns)
    check_labels(key, source, y)
    with in_one_line(key, source, "sorting its labels"):
        values, which = np.unique(y.ravel(), return_inverse=True)
    words = [word(value) for value in values]
    names = tuple(sorted(set(words), key=order))
    place = {name: k for k, name in enumerate(names)}
    codes = np.array([place[name] for name in words], dtype=np.int64)[which]
    return Part(key, source, x.reshape(len(x), -1), x.shape[1:], names, codes, pixels, columns)


def check_numbers(key: str, source: str, x: npt.NDArray[Any], columns: Sequence[str] = ()) -> None:
    """Refuse inputs that no training can use.

    Raises:
        ConfigError: inputs (n, ...) that are missing or not finite; it says where the first is.
    """
    bad = np.argwhere(~np.isfinite(x)) if x.dtype.kind == "f" else np.empty((0, 2))
    if not len(bad):
        return
    row, *place = bad[0].tolist()
    where = f"column {columns[place[0]]}" if columns else f"input {place[0] if len(place) == 1 else place}"
    says = f"has {len(bad)} numbers that are missing or not finite, the first in point {row + 1}, {where}"
    require(False, key, source, f"{says}; leave such points or columns out")


def check_labels(key: str, source: str, y: npt.NDArray[Any]) -> None:
    """Refuse labels that say nothing.

    Raises:
        ConfigError: labels that are missing.
    """
    missing = int(pd.isna(y).sum())
    require(not missing, key, source, f"has {missing} labels that are missing")


_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]{0,99})([.][0-9]+)?")


def word(value: Any) -> str:
    """A label as a word: 3, 3.0 and "3" are the same, but "007", "1_1" and "1e1" are words of their own."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return f"{int(value)}"
    if not _NUMBER.fullmatch(text):
        return text
    whole, _, rest = text.partition(".")
    return f"{float(text)!r}" if rest.strip("0") else f"{int(whole)}"


def order(word: str) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    return (0, float(word), word) if _NUMBER.fullmatch(word) else (1, 0.0, word)


def few(names: Sequence[str]) -> str:
    """The first eight."""
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
