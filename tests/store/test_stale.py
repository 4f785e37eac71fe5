"""What is taken from disk is said so, and nothing of other code or data without a word (``stale``)."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import Done, run
from results import LINE, QUIET, pretended_slurm
from results import copied as copied
from results import results as results
from shell import ROOT

from robust_erm.store import fingerprint
from robust_erm.store.config import Run

OPTIMIZER = """
from dataclasses import dataclass
from helper import FACTOR
from robust_erm.optimizers.steepest import Steepest

@dataclass(frozen=True)
class Mine(Steepest):
    '''My own.'''

    def update(self, *args, **kwargs):
        direction, log_scale, state = super().update(*args, **kwargs)
        return FACTOR * direction, log_scale, state
"""
WRAPPER = """
from dataclasses import dataclass
from typing import Any

@dataclass(frozen=True)
class Wrap:
    inside: Any

    def measure(self, look):
        return {}
"""
DATA = """
from dataclasses import dataclass, replace
import numpy as np
from robust_erm.data.gaussian import Gaussian

@dataclass(frozen=True)
class Mine(Gaussian):
    '''My file, through any number of folders.'''

    file: str = "mine.npy"

    def draw(self, seed):
        drawn = super().draw(seed)
        return replace(drawn, x_train=drawn.x_train + np.load(self.file))
"""


def trained(cwd: Path, *more: str, sweep: bool = True) -> Done:
    return run("train", *(["-m", "seed=0,1"] if sweep else []), *LINE, *QUIET, "report=false", *more, cwd=cwd)


def metrics(cwd: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(cwd.glob("outputs/*/metrics.parquet"))]


def require_asked_for(cwd: Path, changed: str, *line: str, sweep: bool) -> None:
    """The same line is refused; then kept, and then trained again, as is asked for."""
    before = metrics(cwd)
    done = trained(cwd, *line, sweep=sweep)
    assert done.status == 2
    assert f"stale = refuse: {len(before)} run" in done.err
    assert f"ended with other code or data than now: {changed} (trained 20" in done.err
    assert "nothing was trained" in done.err
    assert metrics(cwd) == before
    done = trained(cwd, *line, "stale=keep", sweep=sweep)
    assert done.status == 0, done.err
    assert f"other code or data than now: {changed}" in done.err
    assert "they are kept" in done.err
    assert metrics(cwd) == before
    done = trained(cwd, *line, "stale=retrain", sweep=sweep)
    assert done.status == 0, done.err
    assert "they are trained again" in done.err
    after = metrics(cwd)
    assert len(after) == len(before)
    assert all(a != b for a, b in zip(after, before, strict=True)), "other code, other numbers"
    done = trained(cwd, *line, sweep=sweep)
    assert done.status == 0, done.err
    assert f"{len(after)} of {len(after)} runs were there already, trained 20" in done.err
    assert " by git " in done.err
    assert "fresh=true trains them again" in done.err
    assert metrics(cwd) == after


def test_what_was_installed_anywhere_is_nobodys_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the record that an installer left, as ``pip install --target`` does; a folder without one is somebody's."""
    for name in ("theirs_in_a_target", "mine_beside_it"):
        (tmp_path / f"{name}.py").write_text("FACTOR = 1.0\n")
    record = tmp_path / "theirs-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("theirs_in_a_target.py,sha256=abc,13\ntheirs-1.0.dist-info/RECORD,,\n")
    (link := tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
    monkeypatch.syspath_prepend(str(link))
    assert fingerprint._path("theirs_in_a_target") is None
    assert fingerprint._path("mine_beside_it") == tmp_path / "mine_beside_it.py"


@pytest.mark.parametrize("sweep", [False, True])
def test_an_optimizer_of_ones_own_is_edited(tmp_path: Path, sweep: bool) -> None:
    """In its own file, or in one that it imports; a comment changes nothing."""
    (tmp_path / "mine.py").write_text(OPTIMIZER)
    (tmp_path / "helper.py").write_text("FACTOR = 1.0\n")
    line = ["optimizer._target_=mine.Mine"]
    assert trained(tmp_path, *line, sweep=sweep).status == 0
    (tmp_path / "mine.py").write_text(OPTIMIZER.replace("My own.", "Mine, and better said.") + "# the end\n")
    assert "were there already" in trained(tmp_path, *line, sweep=sweep).err
    (tmp_path / "helper.py").write_text("FACTOR = 2.0\n")
    require_asked_for(tmp_path, "helper.py", *line, sweep=sweep)
    (tmp_path / "mine.py").write_text(OPTIMIZER.replace("FACTOR *", "0.5 * FACTOR *"))
    require_asked_for(tmp_path, "mine.py", *line, sweep=sweep)


@pytest.mark.turns
def test_a_data_file_is_replaced(tmp_path: Path) -> None:
    """By another of the same name; a copy of it, written later, is the same."""
    (tmp_path / "mine.py").write_text(DATA)
    np.save(tmp_path / "mine.npy", np.zeros(8))
    line = ["data._target_=mine.Mine", "+data.file=mine.npy"]
    assert trained(tmp_path, *line).status == 0
    shutil.copy(tmp_path / "mine.npy", tmp_path / "copy.npy")
    os.replace(tmp_path / "copy.npy", tmp_path / "mine.npy")
    assert "were there already" in trained(tmp_path, *line).err
    np.save(tmp_path / "mine.npy", np.full(8, 0.1))
    require_asked_for(tmp_path, "mine.npy", *line, sweep=True)


@pytest.mark.turns
def test_the_package_is_edited(tmp_path: Path) -> None:
    """The sign of steepest descent, in a checkout; an edit of what does not compute changes nothing."""
    for name in ("robust_erm", "conf", "launch", "pyproject.toml", "README.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "WANDB_MODE": "offline"}
    line = [sys.executable, "-m", "robust_erm.train", *LINE, *QUIET, "optimizer=sd", "eps=0", "report=false"]

    def again() -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert again().returncode == 0
    live = tmp_path / "robust_erm" / "reports" / "live.py"
    live.write_text(live.read_text().replace("run-steps/s", "steps a second"))
    done = again()
    assert done.returncode == 0
    assert "1 of 1 runs were there already" in done.stderr
    source = tmp_path / "robust_erm" / "geometries" / "lp.py"
    changed = source.read_text().replace("return Norm(self.r).steepest", "return -Norm(self.r).steepest", 1)
    assert changed != source.read_text()
    source.write_text(changed)
    done = again()
    assert done.returncode == 2
    assert "1 run ended with other code or data than now: robust_erm/geometries/lp.py" in done.stderr


def test_the_factors_of_an_optimizer_are_a_part_of_what_computed_it(resolved: Callable[..., Run]) -> None:
    parts = {f"robust_erm.{part}" for part in ("geometries.layers", "accumulators.momentum", "schedules.power")}
    assert parts <= fingerprint.of_run(resolved("optimizer=muon")).keys()
    assert not parts & fingerprint.of_run(resolved("optimizer=gd")).keys()


def test_components_in_the_fields_of_components_are_too(
    resolved: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any depth, in lists and mappings as well, with the files that they name."""
    for name in ("outer_of_mine", "inner_of_mine"):
        (tmp_path / f"{name}.py").write_text(WRAPPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    outer, inner = (importlib.import_module(name).Wrap for name in ("outer_of_mine", "inner_of_mine"))
    (file := tmp_path / "points.npz").write_bytes(b"some")
    base, own = resolved("optimizer=gd"), inner(str(file))
    for holder in (outer(own), outer([outer({"a": own})]), outer((0.5, outer(own)))):
        assert {"inner_of_mine", f"file {file}"} <= fingerprint.of_components([holder]).keys()
        assert {"inner_of_mine", f"file {file}"} <= fingerprint.of_run(replace(base, measure={"own": holder})).keys()


@pytest.mark.parametrize("more", ["", "    pass\n"])
def test_a_docstring_more_is_no_change(more: str) -> None:
    """Nor one less; a statement is."""
    bare, said = (f"class A:\n{doc}    x = 1\n{more}" for doc in ("", '    """Says."""\n'))
    plain = fingerprint._hashed(ast.parse(bare))
    assert plain == fingerprint._hashed(ast.parse(said)) == fingerprint._hashed(ast.parse(f'"""Top."""\n{said}'))
    assert plain != fingerprint._hashed(ast.parse(bare + "    y = 1\n"))


def test_what_is_loaded_is_what_counts(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked from a server that has loaded the code: edits since are not theirs."""
    import robust_erm.training.loaded  # noqa: F401

    run = resolved("optimizer=muon", "model=mlp", "attack=pgd")
    before = fingerprint.of_run(run)
    fingerprint.remember()
    fingerprint._of_modules.cache_clear()
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"edited = True")
    assert fingerprint.of_run(run) == before
    fingerprint._of_modules.cache_clear()
    fingerprint._of_source.cache_clear()
    assert fingerprint.of_run(run) != before
    fingerprint._of_modules.cache_clear()
    fingerprint._of_source.cache_clear()
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"half =")
    fingerprint.remember()  # the server of workers lives on


def test_a_checkpoint_of_other_code_is_not_gone_on_from(tmp_path: Path) -> None:
    """A run that stopped half-way: by ``keep`` it goes on, by ``retrain`` it starts over."""
    (tmp_path / "mine.py").write_text(OPTIMIZER)
    (tmp_path / "helper.py").write_text("FACTOR = 1.0\n")
    line = ["optimizer._target_=mine.Mine"]
    assert trained(tmp_path, *line, sweep=False).status == 0
    (folder,) = tmp_path.glob("outputs/*-s0-*")
    (folder / "summary.json").unlink()
    (tmp_path / "helper.py").write_text("FACTOR = 2.0\n")
    before = metrics(tmp_path)
    done = trained(tmp_path, *line, sweep=False)
    assert done.status == 2
    assert "1 run stopped half-way with other code or data than now: helper.py; stale=retrain" in done.err
    assert trained(tmp_path, *line, "stale=keep", sweep=False).status == 0
    assert metrics(tmp_path) == before, "it had taken all its steps"
    for _ in range(2):  # what two codes have computed is neither's
        done = trained(tmp_path, *line, sweep=False)
        assert done.status == 2
        assert "1 run ended with other code or data than now: helper.py" in done.err
        (tmp_path / "helper.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "helper.py").write_text("FACTOR = 2.0\n")
    assert trained(tmp_path, *line, "stale=retrain", sweep=False).status == 0
    assert metrics(tmp_path) != before


def foreign(path: Path, *keys: str) -> None:
    """As if the code that made this result had been another."""
    content = json.loads(path.read_text())
    assert content["fingerprint"]
    for key in keys or content["fingerprint"]:
        content["fingerprint"][key] = "0" * 16
    path.write_text(json.dumps(content))


@pytest.mark.turns
def test_evaluate(copied: Callable[[], Path]) -> None:
    """A run's model and data, and what an evaluation was made by."""
    root = copied()
    line = ["outputs", "attack=apgd", "apgd.steps=5", "points=10"]
    done = run("evaluate", *line, cwd=root)
    assert done.status == 0, done.err
    assert "2 evaluations were there already, made 20" in done.err
    made = next(root.glob("outputs/*-s0-*/evaluations/*.json"))
    foreign(made, "robust_erm.attacks.apgd")
    done = run("evaluate", *line, cwd=root)
    assert done.status == 2
    assert f"{made.name}: was made by other code or data: robust_erm/attacks/apgd.py; stale=again makes it" in done.err
    assert run("evaluate", *line, "stale=keep", cwd=root).status == 0
    assert json.loads(made.read_text())["fingerprint"]["robust_erm.attacks.apgd"] == "0" * 16
    assert run("evaluate", *line, "stale=again", cwd=root).status == 0
    assert json.loads(made.read_text())["fingerprint"]["robust_erm.attacks.apgd"] != "0" * 16
    foreign(made.parents[1] / "summary.json", "robust_erm.models.linear")
    done = run("evaluate", *line, cwd=root)
    assert done.status == 2
    assert "was trained by other code or data: robust_erm/models/linear.py; train it again, or stale=keep" in done.err


@pytest.mark.turns
def test_reproduce(copied: Callable[[], Path]) -> None:
    root = copied()
    line = ["tsilivis2024/lemma_c4", "scale=smoke", "output_dir=gallery", *QUIET]
    (one, *_) = sorted(root.glob("gallery/**/summary.json"))
    foreign(one)
    done = run("reproduce", *line, cwd=root)
    assert done.status == 2
    assert "stale = refuse: 1 run ended with other code or data than now" in done.err
    assert run("reproduce", *line, "stale=keep", cwd=root).status == 0


def test_slurm_resume(copied: Callable[[], Path]) -> None:
    """Half of what was submitted has been trained meanwhile, by other code."""
    root = copied()
    env = pretended_slurm(root / "bin")
    (sweep,) = [p.parent.parent.relative_to(root) for p in root.glob("outputs/sweeps/*/slurm/sweep.json")]
    assert run("train", "-m", "seed=2", *LINE, *QUIET, cwd=root).status == 0
    foreign(next(root.glob("outputs/*-s2-*/summary.json")))
    done = run("slurm", "resume", str(sweep), "--yes", cwd=root, env=env)
    assert done.status == 2
    assert "nothing was submitted" in done.err
    done = run("slurm", "resume", str(sweep), "--yes", "stale=retrain", cwd=root, env=env)
    assert done.status == 0, done.err
    (given,) = [json.loads(p.read_text()) for p in root.glob("outputs/sweeps/*/slurm/2/task-0.json")]
    assert {entry["config"]["seed"] for entry in given["runs"]} == {2, 3}
    assert not list(root.glob("outputs/*-s2-*/summary.json")), "put away before the new one is begun"


def test_what_has_ended_is_not_held_against_contracts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what will be trained is: new seeds, what is to be trained again, a metric that nothing stored names."""
    from robust_erm.sweeps import check
    from robust_erm.sweeps.lines import sweep

    held: list[int] = []
    monkeypatch.setattr(check.contracts, "check", lambda run: held.append(run.seed))
    line = [*LINE, *QUIET, "report=false", "hydra.launcher.workers=0", f"output_dir={tmp_path}"]

    def checked(*more: str) -> list[int]:
        held.clear()
        sweep([*line, *more])
        return held

    assert checked("seed=0,1") == [0, 1]
    assert checked("seed=0,1,2") == [2]
    assert checked("seed=0,1", "fresh=true") == [0, 1]
    for path in tmp_path.glob("*/summary.json"):
        if (kept := json.loads(path.read_text())).get("fingerprint"):
            path.write_text(json.dumps({**kept, "fingerprint": dict.fromkeys(kept["fingerprint"], "other")}))
    assert checked("seed=0", "stale=retrain") == [0]
    assert checked("seed=0", "measure=[on_margin]") == [0]
    assert checked("seed=0", "measure=[on_margin]", "returns=on_margin_share") == []
    assert checked("seed=0", "measure=[on_margin]", "returns=margin_of_mine") == [0]
