"""Inputs and labels from IDX files, the form of MNIST and its relatives: Fashion-MNIST, KMNIST, EMNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from robust_erm.core.errors import ConfigError, first_line, home, require
from robust_erm.data.part import Part, part
from robust_erm.data.split import Split

NAMES = {
    "file": "train-images-idx3-ubyte",
    "labels": "train-labels-idx1-ubyte",
    "test": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
"""What a folder calls the files of each option."""

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

Place: TypeAlias = tuple[str, Path, int, int]  # an option, its file, when that was changed, and its size


@dataclass(frozen=True)
class IDX(Split):
    """m points of a pair of IDX files for each seed; tests are on those of another pair, or on all others.

    Unsigned bytes are pixels: they are divided by 255, and their domain is [0, 1]. Other types are numbers as they are.

    Args:
        file: inputs (n, ...), gzipped or not.
        labels: their labels (n,).
        test: inputs of test points in the same form; null: those of ``file`` that are not drawn for training.
        test_labels: their labels.
        folder: instead of these, a folder with the four of them under their standard names, :data:`NAMES`, each
            gzipped (.gz) or not.
        classes: the labels to keep, in order; of two, the first is labelled +1; null: all, sorted.
        m: training points; null: four fifths of them, or all where there are test files.
        m_test: test points, drawn at random; null: all.
        sample: ``random`` draws them anew for each seed, ``first`` takes the first m of the file for every seed.
        domain: the interval that every number lives in; null: [0, 1] of unsigned bytes, the whole line of others.
        validation: points held out of ``file``, neither training points nor (at this seed) test points: the run is
            tested on them instead; null: on the test points. Beside tests from the same file ``m_test`` must be given.

    The files' hashes are recorded with every run: one that has changed since is told (``stale``).
    """

    file: str | None = None
    labels: str | None = None
    test: str | None = None
    test_labels: str | None = None
    folder: str | None = None
    classes: tuple[str, ...] | None = None
    m: int | None = None
    m_test: int | None = None
    sample: str = "random"
    domain: tuple[float, ...] | None = None
    validation: int | None = None

    def __post_init__(self) -> None:
        self._check_split()
        says = "must be an IDX file of inputs; or folder the one with the four files"
        require((self.file is None) != (self.folder is None), "file", self.file or "null", says)
        for one, other in (("file", "labels"), ("test", "test_labels")):
            both = (getattr(self, one) is None) == (getattr(self, other) is None)
            require(both, one, getattr(self, one) or "null", f"must be given with {other}: one file each")
        require(self.folder is None or self.test is None, "test", self.test, "lies in folder; leave one of them out")

    def files(self) -> list[str]:
        """Those in ``folder``: their hashes are recorded too."""
        if self.folder is None:
            return []
        places = (Path(self.folder) / f"{name}{end}" for name in NAMES.values() for end in (".gz", ""))
        return [str(place) for place in places]

    def _parts(self) -> tuple[Part, Part | None]:
        train = self._pair("file", "labels")
        alone = self.folder is None and self.test is None
        return train, None if alone else self._pair("test", "test_labels")

    def _pair(self, inputs: str, labels: str) -> Part:
        return _load(self._place(inputs), self._place(labels))

    def _place(self, key: str) -> Place:
        if self.folder is None:
            named = getattr(self, key)
            path = home(key, named)
            require(path.is_file(), key, named, "is no file" + ("" if path.exists() else ": there is nothing there"))
        else:
            folder, name, key = home("folder", self.folder), NAMES[key], "folder"
            require(folder.is_dir(), key, folder, "is not a folder")
            path = folder / f"{name}.gz" if (folder / f"{name}.gz").is_file() else folder / name
            require(path.is_file(), key, folder, f"has neither {name}.gz nor {name}")
        return key, path, path.stat().st_mtime_ns, path.stat().st_size


@lru_cache(maxsize=4)
def _load(inputs: Place, labels: Place) -> Part:
    """Points and labels that belong together."""
    (key, path, *_), (labels_key, labels_path, *_) = inputs, labels
    x, y = _read(key, path), _read(labels_key, labels_path)
    require(x.ndim > 1 or y.ndim == 1, key, path, f"holds labels, and {labels_path} inputs: swap the two")
    require(y.ndim == 1, labels_key, labels_path, f"has {y.ndim} dimensions, labels must have one")
    require(x.ndim > 1, key, path, "has one dimension, inputs must have two or more: (n, ...)")
    require(len(x) == len(y), key, path, f"has {len(x)} inputs, {labels_path} has {len(y)} labels")
    return part(key, str(path), x, y, pixels=x.dtype == np.uint8)


def _read(key: str, path: Path) -> npt.NDArray[Any]:
    """The array of one IDX file: 0 0 type rank, the dimensions as big-endian 32-bit numbers, the numbers."""
    raw = path.read_bytes()
    zipped = raw.startswith(b"\x1f\x8b")
    require(zipped or not raw or path.suffix != ".gz", key, path, "is not gzipped: its name must not end in .gz")
    try:
        raw = gzip.decompress(raw) if zipped else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(key, path, f"is gzipped, but damaged: {first_line(error)}") from error
    require(bool(raw), key, path, "is empty")
    says = f"is no IDX file: begins with {raw[:4].hex(' ')}, must with 00 00, a type and a number of dimensions"
    require(len(raw) >= 4 and raw[:2] == b"\0\0", key, path, says)
    known = ", ".join(f"{code:#04x} ({np.dtype(kind).name})" for code, kind in _TYPES.items())
    require(raw[2] in _TYPES, key, path, f"has numbers of type {raw[2]:#04x}, must be one of {known}")
    kind, start = np.dtype(_TYPES[raw[2]]), 4 + 4 * raw[3]
    require(raw[3] >= 1 and len(raw) >= start, key, path, f"ends within its header, of {raw[3]} dimensions")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    size, found, expected = " x ".join(map(str, shape)), len(raw) - start, math.prod(shape) * kind.itemsize
    says = f"is too {'short' if found < expected else 'long'}: {size} {kind.name} are {expected} bytes, it has {found}"
    require(found == expected, key, path, says)
    require(found >= 1, key, path, f"holds nothing: its dimensions are {size}")
    return np.frombuffer(raw, dtype=kind, offset=start).reshape(shape).astype(kind.newbyteorder("="), copy=False)
