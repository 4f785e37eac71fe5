"""Pairs of IDX files: every type as it is written, split by the seed, and each way to be broken in one line."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shell import command, folders

from robust_erm.core.errors import ConfigError
from robust_erm.data.idx import IDX, NAMES
from robust_erm.data.mnist import MNIST

N = 30
X = np.random.default_rng(0).integers(0, 256, (N, 4, 3), dtype=np.uint8)
Y = (np.arange(N) % 3 + 1).astype(np.uint8)
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def written(values: Any, code: int | None = None) -> bytes:
    """An array in the form of IDX."""
    kind = values.dtype.str[1:]
    head = bytes([0, 0, CODES[kind] if code is None else code, values.ndim])
    return head + np.array(values.shape, dtype=">u4").tobytes() + values.astype(f">{kind}").tobytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("x").write_bytes(written(X))
    Path("y").write_bytes(written(Y))
    Path("x.gz").write_bytes(gzip.compress(written(X)))
    Path("zipped").write_bytes(gzip.compress(written(X)))
    Path("tests").write_bytes(written(X[:9]))
    Path("answers").write_bytes(written(Y[:9]))
    Path("f4").write_bytes(written(X.astype("f4")))
    return tmp_path


@pytest.mark.parametrize("file", ["x", "x.gz", "zipped"])
def test_bytes_are_pixels_gzipped_or_not(file: str, place: Path) -> None:
    data = IDX(file=file, labels="y", m=12)
    data.check()
    assert (data.dimension, data.n_classes) == (12, 3)
    drawn, other = data.draw(1), data.draw(2)
    assert drawn.domain == (0.0, 1.0)
    assert not np.array_equal(drawn.x_train, other.x_train)
    assert (len(drawn.y_train), len(drawn.y_test)) == (12, N - 12)
    points = (X / 255.0).reshape(N, -1)
    for x, y in ((drawn.x_train, drawn.y_train), (drawn.x_test, drawn.y_test)):
        rows = [int(np.flatnonzero((point == points).all(1))[0]) for point in x]
        assert y.tolist() == (Y[rows] - 1.0).tolist()
    assert len(np.unique(np.concatenate([drawn.x_train, drawn.x_test]), axis=0)) == N, "each point once"


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f4", "f8"])
def test_other_types_are_numbers(kind: str, place: Path) -> None:
    """Big-endian, with their sign, as they are."""
    values = (np.random.default_rng(1).standard_normal((N, 5)) * 40).astype(kind)
    Path("numbers").write_bytes(written(values))
    drawn = IDX(file="numbers", labels="y", m=29, sample="first").draw(0)
    assert np.array_equal(drawn.x_train, values[:29].astype(float))
    assert drawn.domain is None
    assert IDX(file="numbers", labels="y", domain=(-200.0, 200.0)).draw(0).domain == (-200.0, 200.0)


def test_classes_and_samples(place: Path) -> None:
    """The first class is +1; first takes the file's order for every seed."""
    data = IDX(file="x", labels="y", test="tests", test_labels="answers", classes=("3", "1"), m=6, sample="first")
    data.check()
    drawn = data.draw(0)
    assert drawn.y_train.tolist() == [-1.0, 1.0] * 3, "1 and 3 in turns"
    assert np.array_equal(drawn.x_train, data.draw(5).x_train)
    assert len(drawn.y_test) == 6
    assert len(IDX(file="x", labels="y", test="tests", test_labels="answers").draw(0).y_train) == N, "all"
    few = IDX(file="x", labels="y", test="tests", test_labels="answers", m=4, m_test=5)
    assert not np.array_equal(few.draw(0).x_train, few.draw(1).x_train)
    assert len(few.draw(0).y_test) == 5


def test_a_folder_is_read_as_mnist_is(idx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same seed and classes: the same points, bit by bit."""
    one, other = IDX(folder=str(idx), classes=("2", "7"), m=6), MNIST(folder=str(idx), classes=(2, 7), m=6)
    one.check()
    a, b = one.draw(3), other.draw(3)
    for part in ("x_train", "y_train", "x_test", "y_test", "domain"):
        assert np.array_equal(getattr(a, part), getattr(b, part))
    for name in NAMES.values():
        (idx / name).write_bytes(gzip.decompress((idx / f"{name}.gz").read_bytes()))
        (idx / f"{name}.gz").unlink()
    assert np.array_equal(one.draw(3).x_train, a.x_train), "not gzipped"
    monkeypatch.chdir(idx)
    assert np.array_equal(IDX(folder="", classes=("2", "7"), m=6).draw(3).x_test, a.x_test), "of the files of tests"


def test_held_out_points(place: Path) -> None:
    data = IDX(file="x", labels="y", test="tests", test_labels="answers", m=20, validation=4)
    data.check()
    held, plain = data.draw(0), IDX(file="x", labels="y", test="tests", test_labels="answers", m=20).draw(0)
    assert np.array_equal(held.x_train, plain.x_train)
    rows = {point.tobytes() for point in held.x_test}
    assert len(rows) == 4
    assert not rows & {point.tobytes() for point in held.x_train}
    assert rows <= {point.tobytes() for point in (X / 255.0).reshape(N, -1)}


BROKEN: dict[str, tuple[bytes, str]] = {
    "not.gz": (written(X), "is not gzipped: its name must not end in .gz"),
    "cut.gz": (gzip.compress(written(X))[:-40], "is gzipped, but damaged: EOFError"),
    "flipped.gz": (gzip.compress(written(X))[:-6] + b"abcdef", "is gzipped, but damaged: BadGzipFile"),
    "magic": (b"\x89PNG" + written(X)[4:], "is no IDX file: begins with 89 50 4e 47, must with 00 00"),
    "type": (written(X, code=0x0A), "has numbers of type 0x0a, must be one of 0x08 (uint8), 0x09 (int8)"),
    "short": (written(X)[:-1], "is too short: 30 x 4 x 3 uint8 are 360 bytes, it has 359"),
    "long": (written(X) + b"\0", "is too long: 30 x 4 x 3 uint8 are 360 bytes, it has 361"),
    "wide": (written(X, code=0x0E), "is too short: 30 x 4 x 3 float64 are 2880 bytes, it has 360"),
    "head": (written(X)[:9], "ends within its header, of 3 dimensions"),
    "rank": (b"\0\0\x08\0", "ends within its header, of 0 dimensions"),
    "tiny": (b"\0", "is no IDX file: begins with 00"),
    "empty": (b"", "is empty"),
    "empty.gz": (b"", "is empty"),
    "nothing.gz": (gzip.compress(b""), "is empty"),
    "none": (written(X[:0]), "holds nothing: its dimensions are 0 x 4 x 3"),
    "flat": (written(Y), "has one dimension, inputs must have two or more"),
    "less": (written(X[:29]), "has 29 inputs, y has 30 labels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_one_line(name: str, place: Path) -> None:
    content, message = BROKEN[name]
    Path(name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        IDX(file=name, labels="y").check()
    assert str(caught.value).startswith(f"file = {name}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


PAIR = {"file": "x", "labels": "y"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({}, "file = null: must be an IDX file of inputs; or folder"),
    "both": ({**PAIR, "folder": "."}, "file = x: must be an IDX file of inputs; or folder"),
    "no labels": ({"file": "x"}, "file = x: must be given with labels"),
    "no answers": ({**PAIR, "test": "tests"}, "test = tests: must be given with test_labels"),
    "in the folder": ({"folder": ".", "test": "tests", "test_labels": "answers"}, "leave one of them out"),
    "nowhere": ({"file": "z", "labels": "y"}, "file = z: is no file: there is nothing there"),
    "a folder": ({"file": ".", "labels": "y"}, "file = .: is no file"),
    "swapped": ({"file": "y", "labels": "x"}, "file = y: holds labels, and x inputs: swap the two"),
    "labels": ({"file": "x", "labels": "f4"}, "labels = f4: has 3 dimensions, labels must have one"),
    "no folder": ({"folder": "none"}, "folder = none: is not a folder"),
    "lacking": ({"folder": "some"}, f"folder = some: has neither {NAMES['test']}.gz nor {NAMES['test']}"),
    "class": ({**PAIR, "classes": ("1", "4")}, "classes = 4: is no label of the file, which has 1, 2, 3"),
    "m": ({**PAIR, "m": N}, "m = 30: must be below 30"),
    "many": ({**PAIR, "m": N + 1, "test": "tests", "test_labels": "answers"}, "m = 31: must be at most 30"),
    "m_test": ({**PAIR, "m": 20, "m_test": 11}, "m_test = 11: must be at most 10"),
    "sample": ({**PAIR, "sample": "frist"}, "did you mean first?"),
    "kinds": ({**PAIR, "test": "f4", "test_labels": "y"}, "test = f4: has float32 numbers, x has uint8"),
    "shapes": (
        {**PAIR, "test": "turned", "test_labels": "y"},
        "has 3 x 4 numbers in a point, x has 4 x 3",
    ),
    "new": ({**PAIR, "test": "x", "test_labels": "shifted"}, "test = x: has the label 0, which x has not"),
    "one": ({"file": "x", "labels": "same"}, "file = x: has one label alone, 7"),
    "domain": ({**PAIR, "domain": (1.0, 0.0)}, "the lower first"),
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_do_not_fit(name: str, place: Path, idx: Path) -> None:
    shutil.copytree(idx, "some")
    Path("some", f"{NAMES['test']}.gz").unlink()
    Path("turned").write_bytes(written(X.transpose(0, 2, 1).copy()))
    Path("shifted").write_bytes(written(Y - 1))
    Path("same").write_bytes(written(np.full(N, 7, dtype=np.uint8)))
    options, message = BAD[name]
    with pytest.raises(ConfigError) as caught:
        IDX(**options).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["folder", "files"])
def test_a_file_that_has_changed_is_told(form: str, idx: Path, tmp_path: Path) -> None:
    """All four files' hashes are recorded with the run; after a change its old results are not taken for new."""
    named = {key: f"served/{name}.gz" for key, name in NAMES.items()}
    where = ["data.folder=served"] if form == "folder" else [f"data.{key}={path}" for key, path in named.items()]
    line = ["data=idx", *where, "data.classes=[2,7]", "data.m=6", "model.width=4", "stop.steps=2", "logger=none"]
    done = command(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = folders(tmp_path)
    recorded = json.loads((folder / "summary.json").read_text())["fingerprint"]
    assert {key for key in recorded if key.startswith("file ")} == {f"file {path}" for path in named.values()}
    changed = tmp_path / named["test_labels"]
    labels = bytearray(gzip.decompress(changed.read_bytes()))
    labels[-1] = (labels[-1] + 1) % 10
    changed.write_bytes(gzip.compress(bytes(labels)))
    again = command(*line, cwd=tmp_path)
    assert again.returncode == 2
    assert named["test_labels"] in again.stdout + again.stderr
    changed.write_bytes(b"")
    bad = command(*line, cwd=tmp_path)
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1), bad.stderr
    assert f"data.{'folder' if form == 'folder' else 'test_labels'} = {named['test_labels']}: is empty" in bad.stderr
