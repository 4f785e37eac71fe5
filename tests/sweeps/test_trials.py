"""Optuna's search: for the most, one table, the best named; whatever ends it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from shell import command

from robust_erm.results import load
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.refusals import refused

SEARCH = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=0", "stop.steps=20"]
SMALL = ["model.width=8", "logger=none", "trainer.progress=false", "hydra.launcher.workers=0"]


def test_searches_for_the_most_and_says_it_once(tmp_path: Path) -> None:
    done = command(*SEARCH, *SMALL, "optimizer=gd,sd", "eps=interval(0.01,0.3)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("figure:") == 1, "one table over all batches"
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == 6
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_value"] == table["test_robust_acc"].max() > table["test_robust_acc"].min()
    said = re.search(r"^best: +(.*): test_robust_acc (\S+), of 6 trials$", done.stdout, re.MULTILINE)
    assert said is not None
    assert float(said[2]) == pytest.approx(best["best_value"], abs=1e-4)
    assert f"optimizer={best['best_params']['optimizer']}" in said[1]


def test_the_written_search_ends_with_the_line_of_its_best(tmp_path: Path) -> None:
    """All trials are tested at one radius; the line finds the best on disk; the same search finds all."""
    search = ["-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=6", "stop.steps=30", "output_dir=a b", *SMALL]
    done = command(*search, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "a b" / "sweeps").iterdir()
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == 6
    assert set(table["eval_eps"]) == {0.1}
    assert table["eps"].nunique() == table["optimizer.schedule.lr"].nunique() == 6
    best = table.loc[table["test_robust_acc"].idxmax()]
    said = re.search(r"^again: +python -m robust_erm.train (.*)$", done.stdout, re.MULTILINE)
    assert said is not None
    again = command(*shlex.split(said[1]), "logger=none", cwd=tmp_path)
    assert "1 of 1 runs were there already" in again.stderr
    assert str(best["folder"]).split("/")[-1] in again.stdout
    assert command(*search, cwd=tmp_path).stderr.count("4 of 4 runs were there already") == 1


@pytest.mark.turns
def test_a_search_on_held_out_points_ends_with_the_line_that_tests(tmp_path: Path) -> None:
    """Trials see the same training points and held-out ones; the last line has the test points instead."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 5))
    np.savez(tmp_path / "mine.npz", x=x, y=x[:, 0] > 0)
    data = ["data=arrays", "data.file=mine.npz", "data.m=20", "data.m_test=30", "model=linear", "attack=exact"]
    quick = ["stop.steps=30", "logger=none", "trainer.progress=false", "hydra.launcher.workers=0"]
    search = ["-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=3"]
    done = command(*search, *data, "data.validation=25", "eval_eps=0.05", *quick, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = dict(
        re.findall(r"^(again|tested): +python -m robust_erm.train (.*?)(?:    #.*)?$", done.stdout, re.MULTILINE)
    )
    assert "data.validation=25" in lines["again"]
    assert "validation" not in lines["tested"]
    tested = command(*shlex.split(lines["tested"]), "logger=none", cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    runs = load(tmp_path / "outputs").set_index("data.validation")
    best, final = (runs[runs.index.isna() == last] for last in (False, True))
    assert (len(best), len(final)) == (3, 1)
    alike = best[np.isclose(best["eps"], final["eps"].iloc[0])].iloc[0]
    assert alike["log_loss"] == final["log_loss"].iloc[0], "the same training points and the same run"


def test_a_loss_is_minimised_where_asked(tmp_path: Path) -> None:
    asked = ["returns=log_loss", "hydra.sweeper.direction=minimize", "stop.loss=null"]
    done = command(*SEARCH, *SMALL, *asked, "eps=interval(0.01,0.3)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "outputs" / "sweeps").glob("*/table.csv")
    assert f"log_loss {pd.read_csv(table)['log_loss'].min():.4g}, of 6 trials" in done.stdout


def test_what_was_found_is_said_where_the_search_ends_early(tmp_path: Path) -> None:
    """The batch with a radius below 0 is refused; the trials before it have their table."""
    done = command(*SEARCH, *SMALL, "eps=interval(-0.3,0.3)", "hydra.sweeper.n_jobs=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "must be finite and 0 or more" in done.stderr
    assert "Traceback" not in done.stderr
    trained = len(list((tmp_path / "outputs").glob("digits-*")))
    assert trained
    assert len(pd.read_csv(next((tmp_path / "outputs" / "sweeps").glob("*/table.csv")))) == trained


def test_without_the_plugin_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "hydra/sweeper=optuna"])
    said = refused(Exception("Could not find 'hydra/sweeper/optuna'"), conf_dir())
    assert said == "hydra/sweeper = optuna: needs a plugin: pip install 'robust-erm[optuna]'"
