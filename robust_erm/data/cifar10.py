"""CIFAR-10, from a local copy or downloaded once with its checksum."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pooch

from robust_erm.core.errors import ConfigError, first_line, hint, home, require
from robust_erm.data.part import Part, part
from robust_erm.data.split import Split

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # of the archive, as its authors give it
IMAGES = 10_000  # in each file
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_TRAIN, _TEST = tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"
_INSIDE, _ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
_BYTES = 1 + 3 * 32 * 32  # the label, then 1,024 numbers each of red, green and blue


@dataclass(frozen=True)
class CIFAR10(Split):
    """m images of CIFAR-10's training set; its whole test set of the same classes.

    Inputs have 3,072 pixels in [0, 1], channel first: 32 x 32 of red, then green, then blue.

    Args:
        classes: names or numbers, in order; of two, the first is labelled +1; null: all ten.
        m: training images; null: all.
        sample: ``random`` draws them anew for each seed, ``first`` takes the first m of the files for every seed.
        m_test: test images, drawn at random; null: all (10,000 for ten classes).
        validation: training images that are held out: the run is tested on them instead; null: on the test images.
        folder: local copy of the six files of the binary version, or of its .tar.gz; null downloads to ``cache``.
        cache: where the download goes; null is the user's cache folder.
        url: where it comes from.

    What the files hold is recorded with every run, by its hash.
    """

    classes: tuple[str, ...] | None = ("airplane", "automobile")
    m: int | None = 100
    sample: str = "random"
    m_test: int | None = None
    validation: int | None = None
    folder: str | None = field(default=None, metadata={"identity": False})
    cache: str | None = field(default=None, metadata={"identity": False})
    url: str = field(default=URL, metadata={"identity": False})

    def __post_init__(self) -> None:
        named = {str(number): name for number, name in enumerate(CLASSES)}
        classes = tuple(named.get(str(one), str(one)) for one in (CLASSES if self.classes is None else self.classes))
        unknown = next((one for one in classes if one not in CLASSES), None)
        says = f"must be 0 to 9, or one of {', '.join(CLASSES)}{hint(str(unknown), [*CLASSES])}"
        require(unknown is None, "classes", unknown, says)
        object.__setattr__(self, "classes", classes)
        self._check_split()

    @property
    def dimension(self) -> int:
        """Numbers in one input."""
        return 3072

    def fingerprint(self) -> str:
        """Of what the files hold, however they are kept."""
        return _load(*self._place())[2]

    def _parts(self) -> tuple[Part, Part]:
        return _load(*self._place())[:2]

    def _place(self) -> tuple[str, Path, tuple[int, ...]]:
        """The option that says where the files are, the folder or archive, and when its files were changed."""
        if self.folder is None:
            path, key = _downloaded(self.cache, self.url), "cache"
        else:
            path, key = home("folder", self.folder), "folder"
            places = [path, path / _INSIDE, path / _ARCHIVE] if path.is_dir() else [path]
            path = next((p for p in places if p.is_file() or (p / _TRAIN[0]).is_file()), path)
            says = f"has neither {_TRAIN[0]} nor {_ARCHIVE}: it must have the binary version, not the Python one"
            require(not path.is_dir() or (path / _TRAIN[0]).is_file(), key, self.folder, says)
            require(path.exists(), key, self.folder, "is neither a folder nor a file: there is nothing there")
        files = [path / name for name in (*_TRAIN, _TEST)] if path.is_dir() else [path]
        return key, path, tuple(file.stat().st_mtime_ns for file in files if file.is_file())


def _downloaded(cache: str | None, url: str) -> Path:
    """The archive in the cache; what lies there already is checked when it is read."""
    place = home("cache", cache) if cache else Path(pooch.os_cache("robust_erm")) / "cifar10"
    require(not str(place).startswith("~"), "cache", place, "there is no home; set data.cache")
    if (place / _ARCHIVE).is_file():
        return place / _ARCHIVE
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("cache", place, f"cannot be made ({error}); choose a writable folder") from error
    try:
        return Path(pooch.retrieve(url, known_hash=f"md5:{MD5}", fname=_ARCHIVE, path=place))
    except Exception as error:  # requests, urllib3 and pooch each raise their own kinds
        advice = f"could not be downloaded ({first_line(error)}); set data.folder to a local copy"
        raise ConfigError("url", url, advice) from error


@lru_cache(maxsize=1)
def _load(key: str, path: Path, _changed: tuple[int, ...]) -> tuple[Part, Part, str]:
    """Training images, test images, and the hash of both."""
    files = _extracted(key, path) if path.is_dir() else _archived(key, path)
    held = hashlib.sha256()
    for name, raw in files.items():
        says = f"is damaged: {name} has {len(raw):,} bytes, must have {IMAGES * _BYTES:,}"
        require(len(raw) == IMAGES * _BYTES, key, path, says)
        held.update(raw)
    train = _part(key, path, b"".join(files[name] for name in _TRAIN))
    return train, _part(key, path, files[_TEST]), held.hexdigest()[:16]


def _extracted(key: str, folder: Path) -> dict[str, bytes]:
    lacking = [name for name in (*_TRAIN, _TEST) if not (folder / name).is_file()]
    require(not lacking, key, folder, f"lacks {', '.join(lacking)}")
    try:
        return {name: (folder / name).read_bytes() for name in (*_TRAIN, _TEST)}
    except OSError as error:
        raise ConfigError(key, folder, f"cannot be read: {first_line(error)}") from error


def _archived(key: str, path: Path) -> dict[str, bytes]:
    """The six files, read by their names: nothing is written, and nothing else is looked at."""
    found: dict[str, bytes] = {}
    try:
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        says = f"is not the archive that its authors give: its md5 is {md5}, theirs {MD5}; replace or delete it"
        require(md5 == MD5, key, path, says)
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix(f"{_INSIDE}/")
                whole = name in (*_TRAIN, _TEST) and member.isreg() and member.size == IMAGES * _BYTES
                if whole and (kept := archive.extractfile(member)):
                    found[name] = kept.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ConfigError(key, path, f"cannot be read: {first_line(error)}") from error
    lacking = [name for name in (*_TRAIN, _TEST) if name not in found]
    require(not lacking, key, path, f"lacks {', '.join(lacking)}, of {IMAGES:,} images each")
    return {name: found[name] for name in (*_TRAIN, _TEST)}


def _part(key: str, path: Path, raw: bytes) -> Part:
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, _BYTES)
    labels = records[:, 0]
    wrong = int((labels >= len(CLASSES)).sum())
    require(not wrong, key, path, f"is damaged: {wrong} labels are not 0 to 9")
    return part(key, str(path), records[:, 1:], np.array(CLASSES)[labels], pixels=True)
