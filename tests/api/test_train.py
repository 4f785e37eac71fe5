"""From Python: what the command line trains, with objects, in scripts without a guard; and a run opened again."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pandas as pd
import pytest
import torch

import robust_erm as re
from robust_erm.api.train import spelled
from robust_erm.core.errors import ConfigError
from robust_erm.training.problem import draw

QUICK: dict[str, Any] = {
    "data": "gaussian", "data__d": 8, "data__m": 6, "model": "linear", "attack": "exact", "stop__steps": 20,
    "logger": "none", "quiet": True, "hydra__launcher__workers": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty folder; the command that a script starts is a fork of this process, but where it is what is tested."""
    monkeypatch.chdir(tmp_path)
    if request.node.get_closest_marker("started") is None:
        monkeypatch.setattr(sys.modules[spelled.__module__], "_run", _forked)
    return tmp_path


def _forked(arguments: list[str], quiet: bool) -> tuple[int, list[str]]:
    done = forked.run("train", "-m", *arguments, cwd=Path.cwd(), seconds=300)
    assert done.status is not None, f"it hangs: {arguments}"
    if not quiet:
        print(done.out + done.err)
    return done.status, (done.out + done.err).splitlines()


@pytest.mark.started
def test_lists_are_sweeps_and_results_are_tables() -> None:
    """The runs are those of the same line on the command line: it finds them on disk."""
    found = re.train(**QUICK, optimizer=["gd", "cd"], eps=[0, 0.05], seed=range(2), measure=("alignment",))
    assert found.line.startswith("python -m robust_erm.train -m data=gaussian data.d=8 data.m=6 ")
    assert "optimizer=gd,cd eps=0,0.05 seed=0,1 measure=[alignment]" in found.line
    assert len(found.folders) == len(found.runs) == len(found.table) == 8
    assert set(found.table["optimizer"]) == {"gd", "cd"}
    assert (found.table.groupby("folder").size() == 1).all()
    assert set(found.curves["folder"]) == set(found.table["folder"])
    assert found.failures == ()
    compared = found.compare("optimizer")
    assert len(compared) == 2
    line = [sys.executable, *found.line.split()[1:]]
    said = subprocess.run(line, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "8 of 8" in said.stdout + said.stderr or "8 runs" in said.stdout + said.stderr


def test_points_in_memory() -> None:
    """They are written once, by their contents; the run knows them as data=arrays."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 2, 3))
    data = re.Arrays(x, np.where(x[:, 0, 0] > 0, "up", "down"), m=10, classes=("up", "down"))
    found = re.train(**{**_without_data(), "data": data}, seed=[0, 1])
    again = re.train(**{**_without_data(), "data": data}, seed=[0, 1])
    assert found.folders == again.folders
    assert len(list(Path("outputs/arrays").iterdir())) == 1
    first, _ = found.runs
    assert first.config["data"]["_target_"] == "robust_erm.data.arrays.Arrays"
    drawn = draw(first.run.data, 0)
    assert drawn.x_train.shape == (10, 6)
    assert set(first.predict(x)) <= {"up", "down"}
    assert (first.predict(drawn.x_test) == np.where(drawn.y_test > 0, "up", "down")).mean() == pytest.approx(
        first.summary["test_clean_acc"]
    )
    others = re.train(**{**_without_data(), "data": re.Arrays(x + 1, x[:, 0, 0] > 0, m=10)})
    assert others.folders[0] not in found.folders
    gaps = np.array(["up", None, np.nan, *["down"] * 37], dtype=object)
    for bad, says in (
        ((x[:, 0, 0], x[:, 0, 0]), "must have"),
        ((x, np.zeros(3)), "as many as x"),
        ((x, gaps), "has 2 labels that are missing"),
        ((np.where(x > 1, np.nan, x), x[:, 0, 0]), "numbers that are missing or not finite"),
        ((pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), [0]), "more than one column a"),
        ((pd.DataFrame({"a": [1.0, 2.0], "f": ["u", "v"]}), [0, 1]), "must hold numbers: column f does not"),
    ):
        with pytest.raises(ConfigError, match=says):
            re.Arrays(*bad)
    mixed = pd.DataFrame({"a": [1.5, 2.0], "b": [True, False]})
    assert np.array_equal(re.Arrays(mixed, [0, 1]).x, [[1.5, 1.0], [2.0, 0.0]]), "a table of several types"
    assert len(list(Path("outputs/arrays").iterdir())) == 2, "what is refused is not written"


def test_a_table_in_memory_keeps_the_names_of_its_columns() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((40, 3)))  # pandas calls them 0, 1, 2
    (run,) = re.train(**{**_without_data(), "data": re.Arrays(frame, frame[0] > 0, m=10)}).runs
    assert run.run.data.columns == ("0", "1", "2")
    assert (run.predict(frame[[2, 0, 1]]) == run.predict(frame.to_numpy())).all()
    with pytest.raises(ConfigError, match="lacks columns of the run's points: 1"):
        run.predict(frame[[0, 2]])


def test_raw_inputs_are_standardised_as_the_run_did() -> None:
    """``predict`` takes what the file has: another run's mean and deviation, or none, would say other classes."""
    rng = np.random.default_rng(1)
    x = 50 + 10 * rng.standard_normal((60, 4))
    y = np.where(x[:, 0] > 50, "up", "down")
    options = {**_without_data(), "data": re.Arrays(x, y, m=20, standardise=True), "stop__steps": 500}
    for run in re.train(**options, eps=0.01, seed=[0, 1]).runs:
        drawn = draw(run.run.data, run.run.seed)
        rows = [int(np.argmin(np.abs(run._prepared(x) - point).sum(1))) for point in drawn.x_test]
        right = (run.predict(x[rows]) == y[rows]).mean()
        assert right == pytest.approx(run.summary["test_clean_acc"])
        assert right > 0.8
        assert (run.predict(drawn.x_test) == y[rows]).mean() < 0.8, "standardised twice is another question"


def test_a_run_whose_file_has_changed_names_no_classes(place: Path) -> None:
    """``predict`` needs the file as it was: what it standardises by and calls classes would be others; weights stay."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.standard_normal((40, 3)), columns=[*"abc"]).assign(label=["u", "v"] * 20)
    frame.to_csv("mine.csv", index=False)
    options = {**_without_data(), "data": "arrays", "data__file": "mine.csv", "data__standardise": True}
    (run,) = re.train(**options, eps=np.array([0.01])).runs
    x = frame[[*"abc"]].to_numpy().copy()
    said = run.predict(x)
    assert (run.predict(frame[[*"cab", "label"]]) == said).all(), "a table goes by its columns' names"
    with pytest.raises(ConfigError, match="lacks columns of the run's points: c"):
        run.predict(frame[[*"ab"]])
    with pytest.raises(ConfigError, match="hold some that are missing or not finite"):
        run.predict(x * np.nan)
    with pytest.raises(ConfigError, match="x = str: must be numbers"):
        run.predict("abc")
    weights = run.module(torch.as_tensor(x)).detach()
    frame.assign(label=["z", "a"] * 20).to_csv("mine.csv", index=False)
    again = re.load_run(run.folder)
    with pytest.raises(ConfigError, match=r"data = mine.csv: is not what the run was trained on"):
        again.predict(x)
    assert torch.equal(again.module(torch.as_tensor(x)), weights)
    (place / "mine.csv").unlink()
    with pytest.raises(ConfigError, match=r"data.file = mine.csv: is no file") as caught:
        re.load_run(run.folder).predict(x)
    assert "config.yaml" not in str(caught.value), "the config is whole"


def _without_data() -> dict[str, Any]:
    return {key: value for key, value in QUICK.items() if not key.startswith("data")}


def test_a_component_of_ones_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of a module that can be imported; beside a name in one sweep. One of the script itself is refused."""
    (place / "parts_of_api.py").write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from robust_erm.models.linear import Linear
            from robust_erm.optimizers.steepest import Steepest
            from robust_erm.schedules.constant import Constant

            @dataclass(frozen=True)
            class Halved(Linear):
                factor: float = 0.5
                stack = None  # not that of Linear
                def weight(self, params): return self.factor * params["w"]
                def apply(self, params, x): return self.factor * super().apply(params, x)
        """)
    )
    monkeypatch.syspath_prepend(str(place))
    from parts_of_api import Halved, Steepest

    from robust_erm.schedules.constant import Constant

    options = {**QUICK, "model": [Halved(factor=0.25), "linear"], "optimizer": Steepest(Constant(0.1), r=3.0)}
    found = re.train(**options)
    assert list(found.table["model.factor"].fillna(1)) == [0.25, 1]
    assert list(found.table["optimizer.r"]) == [3, 3]
    with pytest.raises(re.ConfigError, match="if you trust it: trust=parts_of_api"):
        _ = re.load_run(found.folders[0]).run
    one = re.load_run(found.folders[0], trust=["parts_of_api"])
    x = np.ones((2, 8))
    np.testing.assert_allclose(one.module(torch.as_tensor(x)).detach(), one.outputs(x), rtol=0, atol=1e-12)

    @dataclass(frozen=True)
    class Local:
        pass

    with pytest.raises(ConfigError, match=r"optimizer = .*Local: .* other processes cannot import; put it in a file"):
        re.train(optimizer=Local())


def test_what_the_command_refuses_is_raised() -> None:
    with pytest.raises(ConfigError, match=r"data.m = -4: must be") as caught:
        re.train(**{**QUICK, "data__m": -4})
    assert (caught.value.key, caught.value.value) == ("data.m", "-4")
    with pytest.raises(ConfigError) as unknown:
        re.train(**QUICK, stop__step=10)
    assert str(unknown.value).startswith("stop.step: unknown option (did you mean stop.steps?)")
    with pytest.raises(ConfigError, match="optimiser"):
        re.train(**QUICK, optimiser="gd")
    with pytest.raises(ConfigError, match=r"seed = \[\]: has nothing to sweep over"):
        re.train(**QUICK, seed=[])
    assert not list(Path().glob("outputs/*gaussian*"))


@pytest.mark.turns(50)
def test_a_script_needs_no_guard(place: Path) -> None:
    """No ``if __name__``: workers do not run the script again. What it prints is the command's progress and table."""
    (place / "script.py").write_text(
        textwrap.dedent(f"""
            import robust_erm as re
            print("once")
            found = re.train(**{ {**QUICK, "quiet": False, "hydra__launcher__workers": 2}!r}, seed=range(4))
            print(len(found.table), "runs")
        """)
    )
    said = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("once") == 1
    assert "4 runs" in said.stdout
    assert "test" in said.stdout, "the table is printed"


def test_a_run_opened_again() -> None:
    """Outputs, classes, accuracies and curves are those of the run."""
    options = {**QUICK, "data": "digits", "model": "mlp", "attack": "pgd", "data__classes": (3, 5), "stop__steps": 200}
    options = {key: value for key, value in options.items() if key not in ("data__d", "data__m")}
    (run,) = re.train(**options, model__width=8, eps=0.05).runs
    data = draw(run.run.data, run.run.seed)
    f = run.outputs(data.x_test)
    np.testing.assert_allclose(run.module(torch.as_tensor(data.x_test)).detach(), f, rtol=0, atol=1e-12)
    right = np.where(data.y_test > 0, 3, 5)
    assert (run.predict(data.x_test) == right).mean() == pytest.approx(run.summary["test_clean_acc"])
    assert (run.predict(data.x_test.reshape(-1, 8, 8)) == run.predict(data.x_test)).all()
    assert run.curves["test_clean_acc"].iloc[-1] == run.summary["test_clean_acc"]
    assert run.config["model"]["width"] == 8
    assert run.row["eps"] == 0.05
    assert set(run.parameters) == {"W1", "W2"}
    judged = re.evaluate(run.module, data.x_test, data.y_test, 0.05, domain=(0, 1), square={"queries": 20})
    assert judged.robust_accuracy <= run.summary["test_robust_acc"]
    with pytest.raises(ConfigError, match=r"x = up to 16: must be numbers in \[0.0, 1.0\]"):
        run.predict(16 * data.x_test / data.x_test.max())
    with pytest.raises(ConfigError, match=r"must have shape \(n, 64\)"):
        run.outputs(np.zeros((2, 63)))


@pytest.mark.parametrize(("folder", "says"), [("none", "there is no such folder"), (".", "no run of ours")])
def test_folders_that_hold_no_run(folder: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        re.load_run(folder)


def test_a_run_that_has_not_ended_or_is_damaged() -> None:
    (folder,) = re.train(**QUICK).folders
    (folder / "summary.json").rename(folder / "kept")
    with pytest.raises(ConfigError, match="has not ended"):
        re.load_run(folder)
    (folder / "summary.json").write_text("{")
    with pytest.raises(ConfigError, match=r"summary\.json"):
        re.load_run(folder)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (3, "3"), (1e-3, "0.001"), (float("inf"), ".inf"), ((2, 7), "[2,7]"),
        (np.float64(0.5), "0.5"), (np.int64(4), "4"), ("a b", "'a b'"), ("it's", "'it\\'s'"), ("a,b", "'a,b'"),
        ("${x}", "'${x}'"), ("", "''"), (Path("a/b.csv"), "a/b.csv"),
    ],
)  # fmt: skip
def test_values_as_the_command_line_has_them(value: Any, text: str) -> None:
    assert spelled(value) == text


def test_the_package_says_what_it_has() -> None:
    """Nothing heavy is imported by ``import robust_erm``; what it lists is there; unknown names are none."""
    code = "import sys, robust_erm; assert 'torch' not in sys.modules; print(*dir(robust_erm))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"train", "load_run", "evaluate", "Arrays"} <= set(said)
    for name in re.__all__:
        assert callable(getattr(re, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = re.nothing
