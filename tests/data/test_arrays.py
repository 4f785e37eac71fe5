"""Data of one's own, from files: read alike in every form, drawn by the seed, refused in one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shell import command

from robust_erm.core.errors import ConfigError
from robust_erm.data.arrays import Arrays
from robust_erm.results import load

N, D = 30, 3
X = np.random.default_rng(0).standard_normal((N, D))
WORDS = np.array(["no", "yes", "perhaps"])[np.arange(N) % 3]


def frame(y: Any = WORDS) -> pd.DataFrame:
    return pd.DataFrame(X, columns=list("abc")).assign(label=y)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    np.savez(tmp_path / "both.npz", x=X, y=WORDS)
    np.save(tmp_path / "x.npy", X.reshape(N, D, 1))
    np.save(tmp_path / "y.npy", WORDS)
    frame().to_csv(tmp_path / "all.csv", index=False)
    frame().to_parquet(tmp_path / "all.parquet")
    frame().iloc[:9].to_csv(tmp_path / "test.csv", index=False)
    return tmp_path


FORMS = {"both.npz": {}, "x.npy": {"labels": "y.npy"}, "all.csv": {}, "all.parquet": {"labels": "label"}}


@pytest.mark.parametrize("name", FORMS)
def test_all_forms_are_read_alike(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    data = Arrays(file=name, m=12, **FORMS[name])  # type: ignore[arg-type]
    data.check()
    assert (data.dimension, data.n_classes) == (D, 3)
    drawn, other = data.draw(1), data.draw(2)
    assert drawn.x_train.shape == (12, D)
    assert len(drawn.y_test) == N - 12
    assert not np.array_equal(drawn.x_train, other.x_train)
    names = ["no", "perhaps", "yes"]  # sorted
    for x, y in ((drawn.x_train, drawn.y_train), (drawn.x_test, drawn.y_test)):
        rows = [int(np.flatnonzero((point == X).all(1))[0]) for point in x]
        assert [names[int(k)] for k in y] == WORDS[rows].tolist()
    both = np.concatenate([drawn.x_train, drawn.x_test])
    assert len(np.unique(both, axis=0)) == N, "each point once"


def test_two_classes_are_signs(place: Path) -> None:
    """The first that is named is +1; the points of the others are left out."""
    data = Arrays(file=str(place / "all.csv"), classes=("yes", "no"))
    data.check()
    drawn = data.draw(0)
    assert data.n_classes == 2
    assert len(drawn.y_train) == 16, "four fifths of 20"
    rows = [int(np.flatnonzero(np.isclose(X, point).all(1))[0]) for point in drawn.x_train]
    assert (WORDS[rows] == "yes").tolist() == (drawn.y_train == 1).tolist()
    assert set(drawn.y_train) == {-1.0, 1.0}


def test_labels_that_are_numbers(place: Path) -> None:
    """3, 3.0 and "3" are one label; numbers are sorted by size."""
    frame(np.arange(N) % 2 * 8 + 2).to_csv(place / "numbers.csv", index=False)
    frame((np.arange(N) % 2 * 8 + 2).astype(float)).to_parquet(place / "numbers.parquet")
    one, other = (Arrays(file=str(place / f"numbers.{kind}")) for kind in ("csv", "parquet"))
    assert one._names == other._names == ("2", "10")
    assert np.array_equal(one.draw(0).y_train, other.draw(0).y_train)
    named = Arrays(file=str(place / "numbers.csv"), classes=("10.0", "2"))
    assert np.array_equal(named.draw(0).y_train, -one.draw(0).y_train)


def test_a_test_file_and_standardised_inputs(place: Path) -> None:
    data = Arrays(file=str(place / "all.csv"), test=str(place / "test.csv"), standardise=True, m_test=7)
    data.check()
    drawn = data.draw(0)
    assert len(drawn.y_train) == N
    assert drawn.x_train.mean(0) == pytest.approx(0, abs=1e-12)
    assert drawn.x_train.std(0) == pytest.approx(1)
    back = drawn.x_test * X.std(0) + X.mean(0)
    assert len(back) == 7
    assert all(np.isclose(X[:9], point).all(1).any() for point in back)


def test_the_domain_is_the_attacks_box(place: Path) -> None:
    assert Arrays(file=str(place / "all.csv"), domain=(-9.0, 9.0)).draw(0).domain == (-9.0, 9.0)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"file": "none.csv"}, "there is nothing there"),
    "kind": ({"file": "notes.txt"}, "must be one of .npz, .npy, .csv, .parquet"),
    "broken": ({"file": "broken.npz"}, "cannot be read"),
    "words": ({"file": "words.csv"}, "has columns that are not numbers: a"),
    "column": ({"file": "all.csv", "labels": "lable"}, "has a, b, c, label (did you mean label?)"),
    "which": ({"file": "plain.csv"}, "labels = null: must say which of a, b, c it is"),
    "npy": ({"file": "x.npy"}, "must be the .npy file of the labels"),
    "lengths": ({"file": "x.npy", "labels": "short.npy"}, "has labels of shape (5,) for 30 points"),
    "class": ({"file": "all.csv", "classes": ("yes", "noo")}, "has no, perhaps, yes (did you mean no?)"),
    "one": ({"file": "all.csv", "classes": ("yes",)}, "two or more different labels"),
    "m": ({"file": "all.csv", "m": 30}, "must be below 30"),
    "m_test": ({"file": "all.csv", "m": 20, "m_test": 11}, "must be at most 10"),
    "wide": ({"file": "all.csv", "test": "wide.csv"}, "has 4 numbers in a point, all.csv has 3"),
    "gap": ({"file": "gap.csv"}, "has 1 labels that are missing"),
    "domain": ({"file": "all.csv", "domain": (1.0, 0.0)}, "the lower first"),
    "scaled": ({"file": "all.csv", "domain": (0.0, 1.0), "standardise": True}, "leave one of them out"),
    "pickle": ({"file": "objects.npy", "labels": "y.npy"}, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_in_one_line(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "notes.txt").write_text("x")
    (place / "broken.npz").write_bytes((place / "both.npz").read_bytes()[:200])
    frame().assign(a="word").to_csv("words.csv", index=False)
    frame().drop(columns="label").to_csv("plain.csv", index=False)
    frame().assign(d=1.0).to_csv("wide.csv", index=False)
    np.save("short.npy", WORDS[:5])
    np.save("objects.npy", np.array([{"a": 1}] * N, dtype=object), allow_pickle=True)
    gap = frame(np.where(np.arange(N) == 4, math.nan, 1.0))
    gap.to_csv("gap.csv", index=False)
    options, message = BAD[name]
    with pytest.raises(ConfigError) as caught:
        Arrays(**options).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_from_a_csv_to_a_table(place: Path) -> None:
    """The command line; a file that has changed since is told, and its old results are not taken for new."""
    line = ["data=arrays", "data.file=all.csv", "data.classes=[yes,no]", "data.m=12", "stop.steps=3", "logger=none"]
    done = command("-m", *line, "optimizer=gd,sd", "seed=0,1", cwd=place)
    assert done.returncode == 0, done.stderr
    table = load(place / "outputs")
    assert len(table) == 4
    assert set(table["data.file"]) == {"all.csv"}
    frame().iloc[::-1].to_csv(place / "all.csv", index=False)
    again = command("-m", *line, "optimizer=gd,sd", "seed=0,1", cwd=place)
    assert again.returncode == 2
    assert "all.csv" in again.stdout + again.stderr
    bad = command(*line, "data.labels=lable", cwd=place)
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1), bad.stderr
    missing = command("data=arrays", cwd=place)
    assert missing.returncode == 2
    assert "data.file" in missing.stderr
