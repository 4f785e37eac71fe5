"""MNIST, from a local folder or downloaded once with checksums."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pooch

from robust_erm.core.errors import ConfigError, home, one_of, require
from robust_erm.core.fields import later
from robust_erm.data import images
from robust_erm.data.dataset import Array, Dataset

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"

# name: (sha256 of the decompressed IDX file, number of items). The decompressed bytes are checked,
# because the gzip headers of the mirrors differ.
FILES = {
    "train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 60_000),
    "train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_000),
    "t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 10_000),
    "t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_000),
}


def _decompressed(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def _verified(path: Path, name: str, key: str) -> bytes:
    """The decompressed bytes of ``path``, or a :class:`ConfigError` that names the file."""
    expected = FILES[name][0]
    try:
        data = _decompressed(path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ConfigError(key, path, f"is not readable ({error}); replace or delete this file") from error
    found = hashlib.sha256(data).hexdigest()
    require(
        found == expected,
        key,
        path,
        f"is corrupt: sha256 of the decompressed bytes is {found[:12]}..., the official file has {expected[:12]}...; "
        "replace or delete this file",
    )
    return data


def _local(folder: Path, name: str) -> bytes:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return _verified(path, name, "folder")
    raise ConfigError("folder", folder, f"has neither {name}.gz nor {name}")


def _cached(cache: Path, url: str, name: str) -> bytes:
    path = cache / f"{name}.gz"
    if not path.is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("cache", cache, f"cannot be made ({error}); choose a writable folder") from error
        require(os.access(cache, os.W_OK), "cache", cache, "is not writable; choose a writable folder")
        try:
            pooch.retrieve(f"{url.rstrip('/')}/{name}.gz", known_hash=None, fname=path.name, path=cache)
        except Exception as error:  # requests, urllib3 and pooch each raise their own kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            advice = f"could not be downloaded ({reason:.200}); set data.folder to a local copy of the IDX files"
            raise ConfigError("url", f"{url.rstrip('/')}/{name}.gz", advice) from error
    return _verified(path, name, "cache")


@lru_cache(maxsize=2)
def load(folder: str | None, cache: str, url: str, part: str) -> tuple[Array, images.Labels]:
    """Images (n, 784) in [0, 1] and labels (n,) of ``part``, train or t10k."""

    def read(name: str) -> bytes:
        return _local(home("folder", folder), name) if folder else _cached(home("cache", cache), url, name)

    pixels, raw = read(f"{part}-images-idx3-ubyte"), read(f"{part}-labels-idx1-ubyte")
    _, n, height, width = struct.unpack(">4I", pixels[:16])
    x = np.frombuffer(pixels, dtype=np.uint8, offset=16).reshape(n, height * width)
    return x / 255.0, np.frombuffer(raw, dtype=np.uint8, offset=8).astype(np.int64)


@dataclass(frozen=True)
class MNIST(images.OfClasses):
    """m images of MNIST's training set; its whole test set of the same classes.

    Args:
        classes: the digits; of two, the first is labelled +1.
        m: training images.
        sample: ``random`` draws them anew for each seed, ``first`` takes the first m of the file for every seed.
        m_test: test images, drawn at random; null takes all (10,000 for ten classes).
        folder: local copy of the four IDX files, gzipped or not; null downloads to ``cache``.
        cache: where downloads go; null is the user's cache folder.
        url: where downloads come from.
    """

    classes: tuple[int, ...] = (2, 7)
    m: int = 100
    sample: str = later("random")
    m_test: int | None = None
    folder: str | None = field(default=None, metadata={"identity": False})
    cache: str | None = field(default=None, metadata={"identity": False})
    url: str = field(default=MIRROR, metadata={"identity": False})

    def __post_init__(self) -> None:
        images.check_classes(self.classes)
        one_of("sample", self.sample, images.SAMPLES)
        require(self.m >= 1, "m", self.m, "must be 1 or more")
        require(self.m_test is None or self.m_test >= 1, "m_test", self.m_test, "must be 1 or more, or null")
        folder = self.folder
        require(folder is None or home("folder", folder).is_dir(), "folder", folder, "is not a folder")

    def _load(self, part: str) -> tuple[Array, images.Labels]:
        cache = str(home("cache", self.cache) if self.cache else pooch.os_cache("robust_erm") / "mnist")
        require(
            self.folder is not None or not cache.startswith("~"), "cache", cache, "there is no home; set data.cache"
        )
        return load(self.folder, cache, self.url, part)

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return 784

    def check(self) -> None:
        """The files must be there and whole, and m at most what they hold."""
        for key, wanted, part in (("m", self.m, "train"), ("m_test", self.m_test or 1, "t10k")):
            size = len(images.rows_of(self._load(part)[1], self.classes))
            require(wanted <= size, key, wanted, f"must be at most {size}, the images of {list(self.classes)}")

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""
        x, y = self._load("train")
        x_test, y_test = self._load("t10k")
        chosen = images.ordered(images.rows_of(y, self.classes), seed, self.sample)[: self.m]
        test = images.rows_of(y_test, self.classes)
        if self.m_test is not None:
            test = np.sort(images.shuffled(test, seed, "test")[: self.m_test])
        return images.dataset((x, y, chosen), (x_test, y_test, test), self.classes)
