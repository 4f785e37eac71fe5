"""The commonest mistakes: a line that says what would be right, and nothing trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from forked import run
from results import LINE, QUIET

PREFIX = "robust_erm: "
MISTAKES = {
    "seed=0,1": "several values are a sweep: add -m; one list is written 'seed=[0,1]'",
    "data=digits data.classes=3,8": "one list is written 'data.classes=[3,8]'",
    "optimizer.lr=0.1": "did you mean optimizer.schedule.lr?",
    "steps=100": "did you mean stop.steps?",
    "optimizer=sd optimizer.momentum=0.9": "unknown option: optimizer=sd has normalized, r, schedule.lr",
    "model=mlp attack=pgd model.rate=3": "unknown option: model=mlp has activation, bias, depth, init_law, init_scale",
    "optimizer=sd optimizer/geometry=lp": "optimizer=sd has none to choose; optimizer=descent is put together of all",
    "optimizer=muon optimizer.geometry.acros=1": "did you mean optimizer.geometry.across?",
    "seed=-1": "seed = -1",
    "eps=O.1": "eps",
    "output_dir=a(b": "quote what has ( [ { # = : or spaces in it: 'output_dir=\"a(b\"'",
    "output_dir=a[b": "quote what has",
    "output_dir=a#b": "quote what has",
    "output_dir=a=b": "quote what has",
    "output_dir=~/x": "write $HOME/x",
    "data=clusters data.sigma=inf": "must be 0 or more, and finite",
    "data=clusters data.sigma=nan": "must be 0 or more, and finite",
    "optimizer/schedule=constant optimizer.schedule.lr=inf": "must be positive and finite",
    "stop.loss=inf": "must be positive and finite, or null",
    "stop.steps=1e30": "at most 1,000,000,000,000",
    "trainer.threads=100000": "must be between 1 and 1,024",
    "model=mlp model.depth=1000000 attack=pgd": "at most 1,000",
    "model=mlp model.width=1000000000 attack=pgd": "GiB",
    "model=mlp model.width=10000000000 attack=pgd": "at most 1,000,000,000",
    "measure_per_decade=1000000000000": "at most 100,000",
    "data.m=1000000000000": "fewer or smaller points",
    "data.m_test=1000000000000": "GiB",
    "data.d=1000000000000": "GiB",
    "data=none_such": "must be one of arrays, cifar10, clusters, digits, gaussian, idx, mnist, sphere",
}
SWEPT = {
    "seed=range(0)": "every key needs a value at least",
    "seed=glob(*)": "every key needs a value at least",
    "seed=range(1,5,0)": "arg 3 must not be zero",
    "data=gaussian,none_such": "must be one of arrays, cifar10, clusters, digits, gaussian",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_answered(line: str, tmp_path: Path) -> None:
    done = run("train", *LINE, *QUIET, *line.split(), cwd=tmp_path)
    assert done.status == 2
    (said,) = done.err.splitlines()
    assert said.startswith(PREFIX)
    assert MISTAKES[line] in said
    assert not list(tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize("line", SWEPT)
def test_a_mistake_in_a_sweep_is_answered(line: str, tmp_path: Path) -> None:
    done = run("train", "-m", *LINE, *QUIET, *line.split(), cwd=tmp_path)
    assert done.status == 2
    assert done.err.startswith(PREFIX)
    assert SWEPT[line] in done.err
    assert len(done.err.splitlines()) <= 2
    assert not list(tmp_path.rglob("*.yaml")), "what is refused leaves nothing"


@pytest.mark.parametrize(("written", "plain"), [("p=.inf", "p=inf"), ("optimizer.r=.inf", "optimizer.r=inf")])
def test_infinity_as_a_yaml_spells_it(written: str, plain: str, tmp_path: Path) -> None:
    """The same run: what is copied from a config.yaml can be typed."""
    for line in (written, plain):
        assert run("train", *LINE, *QUIET, "report=false", line, cwd=tmp_path).status == 0
    assert len(list(tmp_path.glob("outputs/*/summary.json"))) == 1


def test_a_point_that_is_named_twice_is_trained_once(tmp_path: Path) -> None:
    done = run("train", "-m", "seed=0,0", *LINE, *QUIET, cwd=tmp_path)
    assert done.status == 0, done.err
    assert "2 points are 1 runs: some are the same" in done.err
    assert len(list(tmp_path.glob("outputs/*/summary.json"))) == 1


def test_what_a_single_run_reports(tmp_path: Path) -> None:
    """report=false: no table, no figure."""
    quiet = run("train", *LINE, *QUIET, "report=false", cwd=tmp_path)
    assert (quiet.status, quiet.out) == (0, "")
    assert not list(tmp_path.rglob("*.png"))
    told = run("train", *LINE, *QUIET, "fresh=true", cwd=tmp_path)
    assert told.status == 0
    assert told.out.count("table:") == told.out.count("figure:") == 1, "each line once"
    assert len(list(tmp_path.rglob("curves.png"))) == 1


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "results", "page", "gallery", "reproduce", "slurm", "workspace"]
)
def test_versions_are_robust_erms(command: str, tmp_path: Path) -> None:
    done = run(command, "--version", cwd=tmp_path)
    assert done.status == 0
    assert done.out.startswith("robust-erm ")


def test_seeds_however_large(tmp_path: Path) -> None:
    """Neighbours above 2**53 are two runs, found one by one, and go through parquet."""
    seeds = [2**53, 2**53 + 1, 2**64]
    line = f"seed={','.join(map(str, seeds))}"
    assert run("train", "-m", *LINE, *QUIET, "report=false", line, cwd=tmp_path).status == 0
    for seed in seeds:
        done = run("results", "outputs", "--where", f"seed={seed}", "--csv", f"{seed}.csv", cwd=tmp_path)
        assert done.status == 0, done.err
        assert len((tmp_path / f"{seed}.csv").read_text().splitlines()) == 2
    done = run("results", "outputs", "--parquet", "all.parquet", cwd=tmp_path)
    assert done.status == 0, done.err
