"""Data of one's own, from files: read alike in every form, drawn by the seed, refused in one line."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shell import command

from robust_erm.core.errors import ConfigError
from robust_erm.data.arrays import Arrays
from robust_erm.data.part import word
from robust_erm.results import load
from robust_erm.store.config import Run
from robust_erm.store.fingerprint import differing, of_components
from robust_erm.store.identity import as_data
from robust_erm.sweeps.datasets import described

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


def test_an_npz_may_name_its_inputs(tmp_path: Path) -> None:
    """Then test points go by these names, as the columns of a table do."""
    np.savez(tmp_path / "x.npz", x=X, y=WORDS, columns=["a", "b", "c"])
    np.savez(tmp_path / "test.npz", x=X[:, ::-1], y=WORDS, columns=["c", "b", "a"])
    data = Arrays(file=str(tmp_path / "x.npz"), test=str(tmp_path / "test.npz"))
    assert data.columns == ("a", "b", "c")
    assert np.array_equal(data.draw(0).x_test, X)


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
    assert one._parts()[0].names == other._parts()[0].names == ("2", "10")
    assert np.array_equal(one.draw(0).y_train, other.draw(0).y_train)
    named = Arrays(file=str(place / "numbers.csv"), classes=("10.0", "2"))
    assert np.array_equal(named.draw(0).y_train, -one.draw(0).y_train)


@pytest.mark.parametrize("labels", [(-1, 1), (0, 1), ("-1", "+1"), (-1.0, 1.0), (False, True)], ids=str)
def test_labels_that_say_which_is_positive_are_taken_at_their_word(labels: Any, tmp_path: Path) -> None:
    """A net trained on -1 and +1 is positive where these are +1; words and other numbers are as sorted."""
    y = np.array(labels)[np.arange(N) % 2]
    np.savez(tmp_path / "signs.npz", x=X, y=y)
    drawn = Arrays(file=str(tmp_path / "signs.npz"), m=N - 1).draw(0)
    whole = {tuple(x): label for x, label in zip(X, y, strict=True)}
    theirs = np.array([whole[tuple(x)] for x in drawn.x_train])
    assert np.array_equal(drawn.y_train > 0, theirs == labels[1])
    asked = Arrays(file=str(tmp_path / "signs.npz"), m=N - 1, classes=tuple(map(str, labels))).draw(0)
    assert np.array_equal(asked.y_train > 0, theirs == labels[0]), "an order that is asked for is kept"


def test_words_that_are_not_plain_numbers_stay_apart(tmp_path: Path) -> None:
    words = [
        "1_1",
        "11",
        "011",
        "1.1e1",
        "11.0",
        "9007199254740993",
        "9007199254740992",
        "nan",
        "NaN",
        "inf",
        "Infinity",
    ]
    np.savez(tmp_path / "words.npz", x=np.eye(len(words)), y=np.array(words))
    names = set(Arrays(file=str(tmp_path / "words.npz"), m=3).names)
    assert names == set(words) - {"11.0"}, "11 and 11.0 are one label"
    assert [word(v) for v in (3, 3.0, "3", b"3.0", "+3", np.float32(3), np.int8(3), 2**60 + 1)] == [
        *["3"] * 7,
        str(2**60 + 1),
    ]


@pytest.mark.parametrize("value", [0.1, -1e6 / 3, 0.0, 1e300, "0.1 + 0.2"])
def test_a_constant_input_is_not_scaled_by_rounding(value: Any, tmp_path: Path) -> None:
    """Its standard deviation is what rounding leaves of it: a test point with another value is not far away."""
    column = np.full(60, 0.3 if isinstance(value, str) else value)
    column[::2] = 0.1 + 0.2 if isinstance(value, str) else value
    x = np.column_stack([np.random.default_rng(0).standard_normal(60), column])
    for name, points in (("train", x), ("test", x + np.array([0, 0.5]))):
        np.savez(tmp_path / f"{name}.npz", x=points, y=np.arange(60) % 2)
    files = {part: str(tmp_path / f"{name}.npz") for part, name in (("file", "train"), ("test", "test"))}
    drawn = Arrays(**files, standardise=True).draw(0)
    assert np.abs(drawn.x_train[:, 1]).max() <= 1e-15
    assert drawn.x_test[:, 1] == pytest.approx(x[0, 1] + 0.5 - x[0, 1], abs=1e-9)
    assert drawn.x_train[:, 0].std() == pytest.approx(1)


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


def rows_of(points: Any) -> list[int]:
    """Which of the file's points they are."""
    return [int(np.flatnonzero(np.isclose(X, point).all(1))[0]) for point in points]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("options", [{"m": 12, "m_test": 10}, {"m_test": 2}], ids=["m", "null"])
def test_held_out_points_of_the_one_file(options: dict[str, Any], seed: int, place: Path) -> None:
    """Training points do not depend on them; they are neither these nor the test points of the run without."""
    k = 4
    held, plain = (Arrays(file=str(place / "all.csv"), validation=v, **options) for v in (k, None))
    held.check()
    a, b = held.draw(seed), plain.draw(seed)
    assert np.array_equal(a.x_train, b.x_train)
    assert np.array_equal(a.y_train, b.y_train)
    train, validation, tests = rows_of(b.x_train), rows_of(a.x_test), rows_of(b.x_test)
    assert len({*train, *validation, *tests}) == len(train) + k + options["m_test"], "no point twice"
    assert [("no", "perhaps", "yes")[int(y)] for y in a.y_test] == WORDS[validation].tolist()


def test_held_out_points_beside_a_test_file(place: Path) -> None:
    """Of the training file, never of the test file; scaled as the training points are."""
    test = {"test": str(place / "wide.csv"), "classes": ("yes", "no")}
    far = pd.DataFrame(X + 100.0, columns=list("abc")).assign(label=WORDS)
    far.to_csv(place / "wide.csv", index=False)
    held = Arrays(file=str(place / "all.csv"), m=12, validation=8, standardise=True, **test)  # type: ignore[arg-type]
    held.check()
    a = held.draw(0)
    b = Arrays(file=str(place / "all.csv"), m=12, **test).draw(0)  # type: ignore[arg-type]
    validation = rows_of(a.x_test * b.x_train.std(0) + b.x_train.mean(0))
    assert a.x_train == pytest.approx((b.x_train - b.x_train.mean(0)) / b.x_train.std(0))
    assert sorted(validation + rows_of(b.x_train)) == np.flatnonzero(WORDS != "perhaps").tolist(), "8 of 8 others"
    assert len(b.x_test) == 20
    assert b.x_test.min() > 50


def test_ids_and_lines_without_held_out_points_are_as_before(place: Path, resolved: Callable[..., Run]) -> None:
    line = ["data=arrays", f"data.file={place / 'all.csv'}", "data.classes=[yes,no]"]
    plain, held = resolved(*line), resolved(*line, "data.m=8", "data.m_test=5", "data.validation=3")
    assert "validation" not in as_data(plain, "identity")["data"]
    assert as_data(held, "identity")["data"]["validation"] == 3
    what = f"arrays, seed 0: 3 inputs (a, b, c) from {X.min():g} to {X.max():g}; yes = +1, no = -1"
    says = f"validation: tests are on 3 points held out of {place / 'all.csv'}, not on the test points"
    assert described([plain, held]) == [what, f"{what}; {says}"]


def saved(folder: Path, table: pa.Table, parts: int = 2, **state: Any) -> None:
    """What ``save_to_disk`` writes of a Dataset: streams of record batches, and their names in state.json."""
    folder.mkdir(parents=True)
    cuts = np.linspace(0, table.num_rows, parts + 1).astype(int)
    names = [f"data-{k:05}-of-{parts:05}.arrow" for k in range(parts)]
    for name, start, end in zip(names, cuts[:-1], cuts[1:], strict=True):
        with pa.ipc.new_stream(folder / name, table.schema) as out:
            out.write_table(table.slice(start, end - start), max_chunksize=4)
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    says = {"_data_files": [{"filename": name} for name in names], "_format_columns": None, **state}
    (folder / "state.json").write_text(json.dumps(says))


def columns() -> pa.Table:
    return pa.table({**{name: X[:, k] for k, name in enumerate("abc")}, "label": WORDS})


def test_a_saved_hugging_face_data_set(place: Path) -> None:
    """As the same table in a .parquet; of the columns that its format shows."""
    saved(place / "hf", columns(), parts=3)
    one, other = Arrays(file=str(place / "hf"), m=12), Arrays(file=str(place / "all.parquet"), m=12)
    one.check()
    a, b = one.draw(2), other.draw(2)
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(a, part), getattr(b, part))
    saved(place / "shown", columns(), _format_columns=["b", "label"])
    assert np.array_equal(Arrays(file=str(place / "shown"), m=12).draw(2).x_train, a.x_train[:, 1:2])


def test_a_saved_dict_of_splits(place: Path) -> None:
    """Trains on train, is tested on test; either may be named by itself, and so may any other split."""
    for name, rows in (("train", slice(0, 20)), ("test", slice(20, 26)), ("dev", slice(26, 30))):
        saved(place / "hf" / name, columns()[rows])
    (place / "hf" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test", "dev"]}))
    file = str(place / "hf")

    def rows(**options: Any) -> tuple[list[int], list[int]]:
        data = Arrays(**options)
        data.check()
        drawn = data.draw(0)
        return sorted(rows_of(drawn.x_train)), sorted(rows_of(drawn.x_test))

    assert rows(file=file) == (list(range(20)), list(range(20, 26)))
    assert rows(file=file, test=f"{file}/dev")[1] == list(range(26, 30))
    assert rows(file=str(place / "all.csv"), test=file)[1] == list(range(20, 26))
    assert sorted(chain(*rows(file=f"{file}/train", m=15))) == list(range(20)), "of train alone"
    train, held = rows(file=file, m=15, validation=5)
    assert sorted(train + held) == list(range(20))
    assert f"; validation: tests are on 5 points held out of {file}," in Arrays(file=file, validation=5).describe(0)


@pytest.mark.parametrize("form", ["parquet", "folder"])
@pytest.mark.parametrize("kind", ["variable", "fixed", "nested"])
def test_a_column_of_lists_is_many_inputs(form: str, kind: str, place: Path) -> None:
    """In the order of the columns, beside numbers; lists of lists row by row."""
    lists = np.random.default_rng(3).standard_normal((N, 6))
    values: Any = pa.FixedSizeListArray.from_arrays(pa.array(lists.ravel()), 6)
    if kind != "fixed":
        values = pa.array([row.reshape(2, 3).tolist() if kind == "nested" else row.tolist() for row in lists])
    table = pa.table({"n": X[:, 0], "label": WORDS, "embedding": values})
    if form == "folder":
        saved(place / "lists.folder", table)
    else:
        pq.write_table(table, place / "lists.parquet")
    data = Arrays(file=str(place / f"lists.{form}"), m=20)
    data.check()
    drawn = data.draw(0)
    assert data.dimension == 7
    x = np.concatenate([drawn.x_train, drawn.x_test])
    rows = [int(np.flatnonzero(X[:, 0] == point[0])[0]) for point in x]
    assert np.array_equal(x[:, 1:], lists[rows])


SAVED: dict[str, tuple[Callable[[Path], object], str]] = {
    "state": (lambda hf: (hf / "state.json").unlink(), "is a folder without state.json or dataset_dict.json"),
    "broken state": (lambda hf: (hf / "state.json").write_text("{"), "cannot be read: JSONDecodeError"),
    "no files": (lambda hf: (hf / "state.json").write_text('{"_data_files": []}'), "names no files of points"),
    "a file": (lambda hf: (hf / "data-00001-of-00002.arrow").unlink(), "lacks data-00001-of-00002.arrow"),
    "cut": (lambda hf: _cut(hf / "data-00000-of-00002.arrow"), "cannot be read: "),
    "outside": (lambda hf: saved_anew(hf, _data_files=[{"filename": "../both.npz"}]), "lacks both.npz"),
    "indices": (
        lambda hf: saved_anew(hf, _indices_data_files=[{"filename": "i"}]),
        "save it again after",
    ),
    "splits": (lambda hf: split(hf, "{"), "dataset_dict.json: reading it raises JSONDecodeError"),
    "no train": (
        lambda hf: split(hf, '{"splits": ["a", "b"]}'),
        "has no split train, but a, b: name",
    ),
    "train is gone": (lambda hf: split(hf, '{"splits": ["train"]}'), "there is nothing there"),
    "lengths": (
        lambda hf: with_column(hf, [[1.0, 2.0]] * 29 + [[1.0]]),
        "of different lengths in its column e: (1,)",
    ),
    "ragged": (lambda hf: with_column(hf, [[[1.0], [1.0, 2.0]]] * N), "cannot be read: ValueError"),
    "gaps": (lambda hf: with_column(hf, [[1.0]] * 28 + [None] * 2), "has 2 lists that are missing in its column e"),
    "words": (lambda hf: with_column(hf, [["a"]] * N), "has lists without numbers in its column e"),
    "images": (lambda hf: with_column(hf, [{"bytes": b"x"}] * N), "has columns that are not numbers: e"),
    "lists": (lambda hf: with_column(hf, [[1], [2]] * 15, "label"), "label: is a column of lists"),
    "structs": (lambda hf: with_column(hf, [{"a": 1}] * N, "label"), "sorting its labels raises TypeError"),
}


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-400])


def saved_anew(hf: Path, **state: Any) -> None:
    shutil.rmtree(hf)
    saved(hf, columns(), **state)


def with_column(hf: Path, values: list[Any], name: str = "e") -> None:
    shutil.rmtree(hf)
    saved(hf, pa.table({"n": X[:, 0], "label": WORDS, name: pa.array(values)}))


def split(hf: Path, content: str) -> None:
    (hf / "state.json").unlink()
    (hf / "dataset_dict.json").write_text(content)


@pytest.mark.parametrize("name", SAVED)
def test_a_folder_that_cannot_be_read_is_refused_in_one_line(name: str, place: Path) -> None:
    damage, message = SAVED[name]
    saved(place / "hf", columns())
    damage(place / "hf")
    with pytest.raises(ConfigError) as caught:
        Arrays(file=str(place / "hf")).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_saved_data_set_that_has_changed_is_told(place: Path) -> None:
    saved(place / "hf", columns())
    data = Arrays(file=str(place / "hf"))
    before = of_components([data])
    assert {f"file {place}/hf/data-0000{k}-of-00002.arrow" for k in (0, 1)} <= set(before)
    saved_anew(place / "hf", _format_columns=["b", "label"])
    assert differing(of_components([data]), before) == [f"{place}/hf/state.json"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "held": (
        {"file": "all.csv", "m": 20, "m_test": 6, "validation": 5},
        "validation = 5: must be at most 4",
    ),
    "held of all": ({"file": "all.csv", "m": 20, "validation": 5}, "m_test = null: must be given beside validation"),
    "held of none": ({"file": "all.csv", "test": "test.csv", "validation": 1}, "validation = 1: must be at most 0"),
    "none held": ({"file": "all.csv", "m_test": 3, "validation": 0}, "validation = 0: must be 1 or more, or null"),
    "new": ({"file": "test.csv", "test": "new.csv"}, "test = new.csv: has the label maybe, which test.csv has not"),
    "alone": ({"file": "alone.parquet"}, "has one label alone"),
    "quantities": ({"file": "quantities.csv"}, "has 30 different labels on 30 points (0, 0.1, 0.2,"),
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
    "wide": ({"file": "all.csv", "test": "wide.csv"}, "has other columns than all.csv: has d"),
    "gap": ({"file": "gap.csv"}, "has 1 labels that are missing"),
    "domain": ({"file": "all.csv", "domain": (1.0, 0.0)}, "the lower first"),
    "outside": ({"file": "all.csv", "domain": (0.0, 1.0)}, "domain = [0.0, 1.0]: must hold all numbers of all.csv"),
    "scaled": ({"file": "all.csv", "domain": (0.0, 1.0), "standardise": True}, "leave one of them out"),
    "names": ({"file": "names.npz"}, "has 2 columns, must name each of the 3 inputs once"),
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
    frame().assign(label=["yes", "maybe"] * 15).to_csv("new.csv", index=False)
    frame().assign(label="yes").to_parquet("alone.parquet")
    np.savez("names.npz", x=X, y=WORDS, columns=["a", "b"])
    frame().assign(label=np.arange(N) / 10).to_csv("quantities.csv", index=False)
    np.save("short.npy", WORDS[:5])
    np.save("objects.npy", np.array([{"a": 1}] * N, dtype=object), allow_pickle=True)
    gap = frame(np.where(np.arange(N) == 4, math.nan, 1.0))
    gap.to_csv("gap.csv", index=False)
    options, message = BAD[name]
    with pytest.raises(ConfigError) as caught:
        Arrays(**options).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.turns
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
    held = command("-m", *line, "optimizer=gd", "seed=0,1", "data.m_test=5", "data.validation=3", cwd=place)
    assert held.returncode == 0, held.stderr
    says = "validation: tests are on 3 points held out of all.csv, not on the test points"
    assert says in held.stdout + held.stderr
    assert says not in done.stdout + done.stderr
    (tested,) = set(load(place / "outputs").query("`data.validation` == 3")["test_clean_acc"] * 3 % 1)
    assert tested == pytest.approx(0), "a share of three points"
    bad = command(*line, "data.labels=lable", cwd=place)
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1), bad.stderr
    frame().assign(label="yes").to_csv(place / "alone.csv", index=False)
    for wrong, says in (("alone.csv", "has one label alone, yes"), ("none.csv", "is no file: there is nothing there")):
        refused = command("data=arrays", f"data.file={wrong}", cwd=place)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert f"data.file = {wrong}: {says}" in refused.stderr
    missing = command("data=arrays", cwd=place)
    assert missing.returncode == 2
    assert "data.file" in missing.stderr


def test_columns_go_by_their_names(tmp_path: Path) -> None:
    """A test file with its columns in another order has the same points; one with other columns is refused."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((20, 4)), columns=[*"abcd"]).assign(label=["u", "v"] * 10)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    frame.to_csv(train, index=False)
    frame[[*"dbca", "label"]].to_csv(test, index=False)
    drawn = Arrays(file=str(train), test=str(test), standardise=True).draw(0)
    plain = Arrays(file=str(train), test=str(train), standardise=True).draw(0)
    assert np.array_equal(drawn.x_test, plain.x_test)
    frame.rename(columns={"d": "e"}).to_csv(test, index=False)
    with pytest.raises(ConfigError, match=r"has other columns than .*train.csv: lacks d; has e"):
        Arrays(file=str(train), test=str(test)).check()


def test_what_a_table_must_not_hold(tmp_path: Path) -> None:
    """An index that was written along, numbers that are missing, another separator; each in a line, before training."""
    frame = pd.DataFrame(np.ones((6, 2)), columns=[*"ab"]).assign(label=["u", "v"] * 3)
    file = tmp_path / "x.csv"
    frame.to_csv(file)
    with pytest.raises(ConfigError, match=r"has a column without a name: an index\? .*index=False"):
        Arrays(file=str(file)).check()
    frame.to_csv(file, index=False, sep=";")
    with pytest.raises(ConfigError, match=r"has one column alone, 'a;b;label': separate columns by commas"):
        Arrays(file=str(file)).check()
    for bad in (np.nan, np.inf):
        broken = frame.copy()
        broken.loc[3, "b"] = bad
        broken.to_csv(file, index=False)
        with pytest.raises(
            ConfigError, match=r"has 1 numbers that are missing or not finite, the first in point 4, column b"
        ):
            Arrays(file=str(file)).check()
    np.savez(tmp_path / "x.npz", x=np.array([[1.0, np.nan], [2, 3]]), y=[0, 1])
    with pytest.raises(ConfigError, match=r"in point 1, input 1; leave such points or columns out"):
        Arrays(file=str(tmp_path / "x.npz")).check()
    frame.assign(a=1e200 * np.arange(6)).to_csv(file, index=False)
    with pytest.raises(ConfigError, match="standardise = true: overflows: some inputs are too large"):
        Arrays(file=str(file), standardise=True, m=4).draw(0)
