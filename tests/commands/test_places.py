"""Where results lie and what machines are like: links, ``=`` in a path, umask, long TMPDIR, damaged caches, no home."""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run
from results import LINE, QUIET
from shell import command

FAILING = """
from dataclasses import dataclass
from robust_erm.data.gaussian import Gaussian

@dataclass(frozen=True)
class Bad(Gaussian):
    '''Points whose margin cannot be computed for seed 1: not a number among them.'''

    def draw(self, seed):
        drawn = super().draw(seed)
        if seed == 1:
            drawn.x_train[0, 0] = float("nan")
        return drawn
"""


@pytest.mark.parametrize("eps", [["eps=0.5", "eps_unit=margin"], ["eps=0.1"]])
def test_a_margin_that_fails_ends_its_own_run_only(tmp_path: Path, eps: list[str]) -> None:
    """Where eps is in its unit, and where it only serves a warning."""
    (tmp_path / "bad.py").write_text(FAILING)
    line = ["-m", "seed=0,1,2", *LINE, *QUIET, "data._target_=bad.Bad", *eps]
    done = run("train", *line, cwd=tmp_path)
    assert done.status == 1
    assert not done.crashed, done.err
    assert len(list(tmp_path.glob("outputs/*/summary.json"))) == 2
    (failed,) = [line for line in done.out.splitlines() if line.startswith("failed: ")]
    assert "-s1-" in failed
    assert "finite" in failed


def test_margins_that_the_solver_refuses_end_no_sweep(tmp_path: Path) -> None:
    """Two distinct points, many times, in a norm that a cone cannot tell from l_inf."""
    line = ["data=clusters", "data.k=2", "data.sigma=0", "data.d=6", "data.m=40", "data.m_test=20", "p=100"]
    line += ["eps=0.5", "eps_unit=margin", "model=linear", "attack=exact", "stop.steps=5", "logger=none"]
    done = run("train", "-m", "seed=0,1,2,3", *line, *QUIET, cwd=tmp_path)
    assert not done.crashed, done.err
    ended = len(list(tmp_path.glob("outputs/*/summary.json")))
    failed = [line for line in done.out.splitlines() if line.startswith("failed: ")]
    assert ended + len(failed) == 4
    assert ended >= 3


def test_linked_run_folders_and_equals_in_a_path(tmp_path: Path) -> None:
    """A run that was moved to scratch and linked back; a folder that looks like an option."""
    assert (
        run("train", "-m", "seed=0,1", *LINE, *QUIET, "report=false", "output_dir='x/lr=0.1'", cwd=tmp_path).status == 0
    )
    place = tmp_path / "x" / "lr=0.1"
    (moved,) = place.glob("*-s0-*")
    shutil.move(moved, tmp_path / "scratch")
    moved.symlink_to(tmp_path / "scratch")
    (place / "round").symlink_to(place)  # a link that leads back ends
    done = run("results", "x/lr=0.1", "--csv", "x.csv", cwd=tmp_path)
    assert done.status == 0, done.err
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3
    done = run("evaluate", "x/lr=0.1", "attack=apgd", "apgd.steps=3", "points=5", cwd=tmp_path)
    assert done.status == 0, done.err
    assert len(list(place.glob("*-s[01]-*/evaluations/*.json"))) == 2
    done = run("page", "x/lr=0.1", cwd=tmp_path)
    assert "2 runs" in done.out


@pytest.mark.turns
@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_the_umask_is_respected(tmp_path: Path, umask: int) -> None:
    for line in (["robust_erm.train", *LINE, *QUIET], ["robust_erm.results", "outputs", "--csv", "x.csv"]):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-m", *line], cwd=tmp_path, env=environment, umask=umask, check=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path
    for path in (path for path in tmp_path.rglob("*") if path.is_dir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~umask, path


@pytest.mark.turns
def test_a_long_temporary_folder(tmp_path: Path) -> None:
    """Of 120 characters, as clusters have them; sockets take some 100."""
    long = tmp_path / ("t" * (120 - len(str(tmp_path)) % 100))
    long.mkdir()
    done = command("-m", "seed=0,1", *LINE, "hydra.launcher.workers=2", cwd=tmp_path, TMPDIR=str(long))
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/*/summary.json"))) == 2
    assert not list(long.iterdir()), "nothing is left behind"


@pytest.mark.turns(220)
def test_a_damaged_cache_of_numba_is_made_anew(tmp_path: Path) -> None:
    """Cut off by a full disk or a kill: once said and mended; one that cannot be written to is only slower."""
    cache = tmp_path / "cache"
    line = [*LINE, "objective=exponential", "optimizer/schedule=bounded_loss"]
    first = command(*line, cwd=tmp_path, NUMBA_CACHE_DIR=str(cache))
    assert first.returncode == 0, first.stderr
    files = [*cache.rglob("*.nbc"), *cache.rglob("*.nbi")]
    assert files
    for path in files:
        path.write_bytes(b"")
    (kernel,) = {json.loads(p.read_text())["kernel"] for p in tmp_path.glob("outputs/*/summary.json")}
    assert kernel == "dense"
    done = command(*line, "fresh=true", cwd=tmp_path, NUMBA_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    (kernel,) = {json.loads(p.read_text())["kernel"] for p in tmp_path.glob("outputs/*/summary.json")}
    assert kernel == "dense"
    assert all(path.stat().st_size for path in [*cache.rglob("*.nbc"), *cache.rglob("*.nbi")])


def test_numbers_that_are_not_finite_come_back_as_such(tmp_path: Path) -> None:
    """A run that diverges returns nan, from disk as well, and is no failure."""
    line = ["optimizer/schedule=constant", "optimizer.schedule.lr=1e300", "stop.steps=50", "returns=log_loss"]
    for _ in range(2):
        done = run("train", *LINE, *QUIET, *line, "optimizer=gd", cwd=tmp_path)
        assert done.status == 0, done.err
        assert "diverged" in done.out
    done = run("train", "-m", "seed=0,1", *LINE, *QUIET, *line, "optimizer=gd", cwd=tmp_path)
    assert done.status == 0, done.err
    (summary,) = tmp_path.glob("outputs/*-s0-*/summary.json")
    assert "NaN" not in summary.read_text(), "JSON knows none"
    from robust_erm.results import load

    table = load([tmp_path / "outputs"])
    assert list(table["status"]) == ["diverged", "diverged"]
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps({**content, "test_robust_acc": None}))
    table = load([tmp_path / "outputs"]).set_index("seed")
    assert math.isnan(table.loc[0, "test_robust_acc"])
    assert 0 <= table.loc[1, "test_robust_acc"] <= 1
    done = run("train", *LINE, *QUIET, *line, "optimizer=gd", "returns=test_robust_acc", cwd=tmp_path)
    assert done.status == 0, done.err
