"""CIFAR-10 in all the forms that it lies about in: of 20 images a file here, with a checksum of its own."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import served

from robust_erm.core.errors import ConfigError
from robust_erm.data import cifar10
from robust_erm.data.cifar10 import CIFAR10, CLASSES
from robust_erm.store.config import Run
from robust_erm.store.identity import as_data
from robust_erm.training.pack import train_pack

NAMES = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    cifar10._load.cache_clear()


@pytest.fixture
def archive(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .tar.gz of the six files in a folder of its own; its checksum takes the official one's place."""
    (tmp_path / "served").mkdir()
    path = tmp_path / "served" / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        for name in NAMES:
            made.add(cifar / name, f"cifar-10-batches-bin/{name}")
    official(path, monkeypatch)
    return path


def official(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(path.read_bytes()).hexdigest())


@pytest.fixture
def server(archive: Path) -> Iterator[str]:
    with served(archive.parent) as address:
        yield f"{address}/{archive.name}"


def test_the_official_file_is_named() -> None:
    assert CIFAR10().url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert cifar10.MD5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert cifar10.IMAGES * 6 == 60_000


def test_images_and_their_labels(cifar: Path) -> None:
    """Red, green and blue planes of [0, 1] as the records have them; classes by name or number."""
    data = CIFAR10(classes=("truck", "0"), m=10, sample="first", folder=str(cifar))
    data.check()
    assert (data.dimension, data.n_classes) == (3072, 2)
    assert data == CIFAR10(classes=("9", "airplane"), m=10, sample="first", folder=str(cifar))
    raw = np.concatenate([np.fromfile(cifar / name, dtype=np.uint8).reshape(20, 3073) for name in NAMES[:5]])
    chosen = raw[np.isin(raw[:, 0], (0, 9))][:10]
    drawn = data.draw(4)
    assert np.array_equal(drawn.x_train, chosen[:, 1:] / 255.0)
    assert drawn.y_train.tolist() == np.where(chosen[:, 0] == 9, 1.0, -1.0).tolist()
    tests = np.fromfile(cifar / NAMES[5], dtype=np.uint8).reshape(20, 3073)
    tests = tests[np.isin(tests[:, 0], (0, 9))]
    assert np.array_equal(drawn.x_test, tests[:, 1:] / 255.0)
    assert drawn.domain == (0.0, 1.0)
    everything = CIFAR10(classes=None, m=None, folder=str(cifar)).draw(0)
    places = {row[1:].tobytes(): row[0] for row in raw}
    assert len(everything.y_train) == 100
    for x, y in zip(everything.x_train, everything.y_train, strict=True):
        assert places[np.rint(x * 255).astype(np.uint8).tobytes()] == y
    assert CLASSES[3] == "cat"


def test_random_images_and_held_out_ones(cifar: Path) -> None:
    data, plain = CIFAR10(m=8, validation=5, folder=str(cifar)), CIFAR10(m=8, m_test=3, folder=str(cifar))
    data.check()
    assert not np.array_equal(data.draw(0).x_train, data.draw(1).x_train)
    assert np.array_equal(data.draw(0).x_train, plain.draw(0).x_train)
    held = {x.tobytes() for x in data.draw(0).x_test}
    assert len(held) == 5
    assert not held & {x.tobytes() for x in (*plain.draw(0).x_train, *CIFAR10(m=1, folder=str(cifar)).draw(0).x_test)}
    assert len(plain.draw(0).y_test) == 3


def test_every_place_holds_the_same(cifar: Path, archive: Path, server: str, tmp_path: Path) -> None:
    """Extracted, in a folder above, archived, above the archive, downloaded: one fingerprint, the same points."""
    above = tmp_path / "above"
    above.mkdir()
    (above / "cifar-10-batches-bin").symlink_to(cifar)
    places = [cifar, above, archive, archive.parent]
    found = [CIFAR10(m=6, folder=str(place)) for place in places]
    found.append(CIFAR10(m=6, cache=str(tmp_path / "cache"), url=server))
    for data in found:
        data.check()
    assert len({data.fingerprint() for data in found}) == 1
    assert len({data.draw(0).x_train.tobytes() for data in found}) == 1
    archive.unlink()
    cifar10._load.cache_clear()
    assert found[-1].draw(0).x_train.tobytes() == found[0].draw(0).x_train.tobytes(), "from the cache"
    record = bytearray((cifar / NAMES[5]).read_bytes())
    record[-1] ^= 1
    before = found[0].fingerprint()
    (cifar / NAMES[5]).write_bytes(bytes(record))
    assert found[0].fingerprint() != before


def _set(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "one is missing": (lambda folder: (folder / NAMES[5]).unlink(), "lacks test_batch.bin"),
    "all are missing": (
        lambda folder: [p.unlink() for p in folder.iterdir()],
        "has neither data_batch_1.bin nor",
    ),
    "cut": (_set(NAMES[2], lambda raw: raw[:-1]), "data_batch_3.bin has 61,459 bytes, must have 61,460"),
    "an image less": (_set(NAMES[2], lambda raw: raw[:-3073]), "data_batch_3.bin has 58,387 bytes, must have 61,460"),
    "empty": (_set(NAMES[0], lambda raw: b""), "data_batch_1.bin has 0 bytes"),
    "a label": (_set(NAMES[5], lambda raw: b"\x0a" + raw[1:]), "is damaged: 1 labels are not 0 to 9"),
    "a folder": (lambda folder: ((folder / NAMES[5]).unlink(), (folder / NAMES[5]).mkdir()), "lacks test_batch.bin"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused_in_one_line(name: str, cifar: Path) -> None:
    damage, message = DAMAGE[name]
    damage(cifar)
    with pytest.raises(ConfigError) as caught:
        CIFAR10(folder=str(cifar)).check()
    assert str(caught.value).startswith("folder = ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archives_that_are_not_what_they_should_be(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another checksum, no archive, cut, without files, with links: a line each, and nothing is written."""
    whole = archive.read_bytes()

    def refused(content: bytes, says: str, trusted: bool = True) -> None:
        archive.write_bytes(content)
        if trusted:
            official(archive, monkeypatch)
        cifar10._load.cache_clear()
        with pytest.raises(ConfigError, match=says) as caught:
            CIFAR10(folder=str(archive)).check()
        assert "\n" not in str(caught.value)

    refused(whole + b"x", "is not the archive that its authors give: its md5 is", trusted=False)
    refused(whole[: len(whole) // 2], "cannot be read: EOFError")
    refused(b"no archive", "cannot be read: ReadError")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as out:
        for name in ("../test_batch.bin", "/tmp/data_batch_1.bin", "x/data_batch_2.bin"):
            member = tarfile.TarInfo(name)
            member.size = 20 * 3073
            out.addfile(member, io.BytesIO(b"\1" * member.size))
        link = tarfile.TarInfo("cifar-10-batches-bin/data_batch_3.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "../x/data_batch_2.bin"
        out.addfile(link)
        large = tarfile.TarInfo("cifar-10-batches-bin/data_batch_4.bin")
        large.size = 40 * 3073
        out.addfile(large, io.BytesIO(b"\0" * large.size))
    before = sorted(tmp_path.rglob("*"))
    refused(made.getvalue(), f"lacks {', '.join(NAMES)}, of 20 images each")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is extracted to the disk"


def test_downloads_that_fail(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ConfigError, match=r"url = .*could not be downloaded.*set data.folder"):
        CIFAR10(cache=str(cache), url=f"{server}.none").check()
    monkeypatch.setattr(cifar10, "MD5", "0" * 32)
    with pytest.raises(ConfigError, match=r"could not be downloaded.*does not match the known hash") as caught:
        CIFAR10(cache=str(cache), url=server).check()
    assert "\n" not in str(caught.value)
    assert not list(cache.iterdir()), "nothing that is not what it should be is kept"
    (cache / "cifar-10-binary.tar.gz").write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"cache = .*is not the archive that its authors give.*replace or delete it"):
        CIFAR10(cache=str(cache), url=server).check()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cache = .*cannot be made.*choose a writable folder"):
        CIFAR10(cache=str(tmp_path / "file" / "cache"), url=server).check()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": ("cat", "dgo")}, "classes = dgo: must be 0 to 9, or one of airplane"),
        ({"classes": ("cat", "dgo")}, "(did you mean dog?)"),
        ({"classes": ("3", "10")}, "classes = 10: must be 0 to 9"),
        ({"classes": ("cat", "3")}, "two or more different labels"),
        ({"classes": ()}, "two or more different labels"),
        ({"m": 0}, "m = 0: must be 1 or more"),
        ({"m": 21}, "m = 21: must be at most 20"),
        ({"m": 15, "validation": 6}, "validation = 6: must be at most 5"),
        ({"m_test": 5}, "m_test = 5: must be at most 4"),
        ({"sample": "last"}, "must be one of random, first"),
        ({"folder": "/none/there"}, "folder = /none/there: is neither a folder nor a file"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], says: str, cifar: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        CIFAR10(**{"folder": str(cifar), "m": 10, **options}).check()
    assert says in str(caught.value)


def test_identity_ignores_where_the_files_lie(resolved: Callable[..., Run], cifar: Path) -> None:
    named = resolved("data=cifar10", "data.m=5", f"data.folder={cifar}", "data.classes=[0,cat]")
    data = as_data(named, "identity")["data"]
    assert data["classes"] == ["airplane", "cat"]
    assert set(data) == {"_target_", "classes", "m", "sample", "m_test", "validation"}


def test_the_convolutional_net_takes_its_three_channels(resolved: Callable[..., Run], cifar: Path) -> None:
    line = ("data=cifar10", "data.m=5", "data.m_test=4", f"data.folder={cifar}", "model=cnn", "model.channels=[2,3]")
    run = resolved(*line, "model.hidden=4", "data.classes=[0,1]", "stop.steps=2", "attack.steps=2", "eps=0.01")
    (summary,) = train_pack([run])
    assert summary["step"] == 2
    assert 0 <= summary["test_robust_acc"] <= 1
