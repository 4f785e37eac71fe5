"""Points and labels from a file of one's own: .npz, .npy, .csv, .parquet, or a saved Hugging Face data set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from robust_erm.core.errors import ConfigError, first_line, hint, home, require
from robust_erm.core.fields import later
from robust_erm.data import tables
from robust_erm.data.part import Part, few, part
from robust_erm.data.split import Split

_LABELS = ("label", "labels", "y", "target", "class")  # names that say by themselves that they are labels
_COLUMNS = "columns"
_KINDS = (".npz", ".npy", ".csv", ".parquet")


@dataclass(frozen=True)
class Arrays(Split):
    """m random points of a file for each seed; all others, or a file of their own, are the test points.

    Labels may be any numbers or words. Two classes become +1 and -1: the first of ``classes`` is +1, or
    1 of -1, 1 and of 0, 1, and True. More become 0, 1, ...

    Args:
        file: .npz with arrays of inputs (n, d), or (n, ...), and labels (n,), and perhaps ``columns`` (d,), what the
            inputs are called; .npy of inputs, its labels in another; .csv (with a header) or .parquet, whose columns
            but the labels' are the inputs; or a folder that ``save_to_disk`` of Hugging Face's ``datasets`` has made,
            read alike. Numbers all, or lists of numbers.
        labels: the array or column of the labels, or the .npy file; null: what is called label, labels, y, target or
            class.
        inputs: the array of the inputs in an .npz; null: ``x`` or ``X``, or the only one beside the labels.
        test: a file of test points in the same form; null: those that are not drawn for training, or the split
            ``test`` of a folder that has one.
        test_labels: the .npy file of their labels.
        classes: the labels to keep, in order; null: all, sorted.
        m: training points, drawn at random; null: four fifths of them, or all where there is a test file.
        m_test: test points, drawn at random; null: all.
        standardise: subtract the training points' mean from each input and divide by their standard deviation.
        domain: the interval that every number lives in, such as [0, 1]: attacks with ``box`` stay in it; or null.
        validation: points held out of the file, neither training points nor (at this seed) test points: the run is
            tested on them instead; null: on the test points. Beside tests from the same file ``m_test`` must be given.

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
    validation: int | None = later(None)

    def __post_init__(self) -> None:
        self._check_split()
        says = "moves numbers out of the domain; leave one of them out"
        require(self.domain is None or not self.standardise, "standardise", "true", says)

    def files(self) -> list[str]:
        """Those in folders that fields name: their hashes are recorded too."""
        named = (os.path.expanduser(value) for value in (self.file, self.test) if value)
        return [str(path) for place in named if os.path.isdir(place) for path in tables.files_of(Path(place))]

    def _parts(self) -> tuple[Part, Part | None]:
        path = home("file", self.file)
        splits = tables.splits("file", path) if path.is_dir() else {"train": path}
        says = f"has no split train, but {few([*splits])}: name the folder of one"
        require("train" in splits, "file", self.file, says)
        train = _part("file", self.file, splits["train"], self.labels, self.inputs)
        if self.test is None:
            beside = splits.get("test")
            return train, _part("file", f"{self.file}/test", beside, self.labels, self.inputs) if beside else None
        path = home("test", self.test)
        if path.is_dir():
            splits = tables.splits("test", path)
            path = splits.get("test", splits.get("train", path))
        labels = self.test_labels if path.suffix == ".npy" else self.labels
        return train, _part("test", self.test, path, labels, self.inputs)


def _part(key: str, source: str, path: Path, labels: str | None, inputs: str | None) -> Part:
    require(path.exists(), key, source, "is no file: there is nothing there")
    files = tables.files_of(path) if path.is_dir() else [path]
    says = f"must be one of {', '.join(_KINDS)}, or a folder that save_to_disk of a Hugging Face data set has made"
    require(path.is_dir() or path.suffix in _KINDS, key, source, says)
    stamps = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _load(key, source, path, stamps, labels, inputs)


@lru_cache(maxsize=4)
def _load(key: str, source: str, path: Path, _stamps: Any, labels: str | None, inputs: str | None) -> Part:
    """Inputs (n, d) and labels (n,)."""
    try:
        x, y, columns = {".npz": _npz, ".npy": _npy}.get(path.suffix, _table)(path, labels, inputs)
    except ConfigError:
        raise
    except Exception as error:  # numpy, zipfile, pandas and pyarrow have kinds of their own
        raise ConfigError(key, path, f"cannot be read: {first_line(error)}") from error
    require(x.ndim >= 2 and len(x) >= 1, key, path, f"has inputs of shape {x.shape}, must have (n, d) or (n, ...)")
    require(y.shape in ((len(x),), (len(x), 1)), key, path, f"has labels of shape {y.shape} for {len(x)} points")
    require(x.dtype.kind in "fiub", key, path, f"has inputs of type {x.dtype}, must have numbers")
    return part(key, source, np.asarray(x, dtype=np.float64).reshape(len(x), -1), y, columns=columns)


def _npz(path: Path, labels: str | None, inputs: str | None) -> tuple[Any, Any, tuple[str, ...]]:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
        names = list(kept.files)
        label = _named("labels", labels, names, _LABELS)
        others = [name for name in names if name not in (label, _COLUMNS)]
        known = ("x", "X") if len(others) != 1 else (*others,)
        x = kept[_named("inputs", inputs, others, known)]
        columns = tuple(map(str, kept[_COLUMNS].ravel())) if _COLUMNS in names else ()
        says = f"has {len(columns)} columns, must name each of the {x.shape[-1]} inputs once"
        require(not columns or (x.ndim == 2 and len(set(columns)) == len(columns) == x.shape[1]), "file", path, says)
        return x, kept[label], columns


def _npy(path: Path, labels: str | None, _: str | None) -> tuple[Any, Any, tuple[str, ...]]:
    require(labels is not None, "labels", "null", f"must be the .npy file of the labels beside {path}")
    assert labels is not None
    other = home("labels", labels)
    require(other.is_file(), "labels", labels, "is no file")
    return np.load(path, allow_pickle=False), np.load(other, allow_pickle=False), ()


def _table(path: Path, labels: str | None, _: str | None) -> tuple[Any, Any, tuple[str, ...]]:
    frame = tables.read(path)
    says = f"has one column alone, {frame.columns[0]!r}: separate columns by commas"
    require(frame.shape[1] > 1, "file", path, says)
    label = _named("labels", labels, [str(column) for column in frame], _LABELS)
    says = "is a column of lists, must have a number or a word for each point"
    require(not tables.is_list(frame[label]), "labels", label, says)
    x, columns = tables.inputs(frame.drop(columns=label), path)
    return x, frame[label].to_numpy(), columns


def _named(key: str, asked: str | None, names: list[str], known: tuple[str, ...]) -> str:
    """The one of ``names`` that is asked for, or whose name says what it is."""
    shown = few(names)
    if asked is not None:
        require(asked in names, key, asked, f"is not in the file, which has {shown}{hint(asked, names)}")
        return asked
    found = [name for name in names if name in known]
    require(len(found) == 1, key, "null", f"must say which of {shown} it is")
    return found[0]
