"""Which is better: pairs, intervals and p-values against scipy and worked examples; what is said, drawn and refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forked import run
from scipy import stats

from robust_erm.core.errors import ConfigError
from robust_erm.reports.answer import conclusions
from robust_erm.reports.compare import arms, compare, holm, is_share, sentence, unlike, welch
from robust_erm.reports.dots import picture
from robust_erm.reports.page import comparison
from robust_erm.reports.style import COLOURS, colour


def runs(value: Callable[[str, float, int], float], seeds: int = 5, **more: Any) -> pd.DataFrame:
    """Runs of gd and sd at two eps, whose accuracy is ``value(optimizer, eps, seed)``."""
    rows = [
        {"optimizer": name, "eps": eps, "seed": seed, "model": "mlp", "data": "digits", "status": "converged",
         "log_loss": -7.0 - 0.01 * seed, "train_robust_acc": 1.0, "test_robust_acc": value(name, eps, seed),
         "optimizer.schedule.lr": 0.1 if name == "gd" else 0.2, "folder": f"{name}-{eps}-{seed}"}
        for name, eps, seed in itertools.product(("gd", "sd"), (0.1, 0.2), range(seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**more)


def noisy(name: str, eps: float, seed: int) -> float:
    """sd is 5 points better at 0.2; seeds move both by far more than that, together."""
    shared = np.random.default_rng(seed).uniform(0.5, 0.9)
    own = 0.004 * np.random.default_rng(100 * seed + len(name) + int(100 * eps) + (name == "sd")).standard_normal()
    return float(shared + own + (0.05 if name == "sd" and eps == 0.2 else 0.0))


def _of(frame: pd.DataFrame, name: str, eps: float) -> Any:
    return frame[(frame["optimizer"] == name) & (frame["eps"] == eps)]["test_robust_acc"].to_numpy()


def test_pairs_by_seed_see_what_spreads_hide() -> None:
    """The paired interval and p-value are scipy's; the unpaired test of the same numbers sees nothing."""
    frame = runs(noisy)
    found = compare(frame, "optimizer", "test_robust_acc").set_index("eps")
    assert list(found["first"]) == ["gd", "gd"]
    for eps, row in found.iterrows():
        gd, sd = (_of(frame, name, float(str(eps))) for name in ("gd", "sd"))
        test = stats.ttest_rel(gd, sd)
        low, high = test.confidence_interval(0.95)
        assert (row["p"], row["n"], row["paired"]) == (pytest.approx(test.pvalue), 5, True)
        assert row["difference"] - row["half"] == pytest.approx(low)
        assert row["difference"] + row["half"] == pytest.approx(high)
        assert row["mean_first"] == pytest.approx(gd.mean())
        assert stats.ttest_ind(gd, sd).pvalue > 0.1
    assert found.loc[0.2, "holm"] == pytest.approx(2 * found.loc[0.2, "p"])
    words = [sentence(row, "test_robust_acc", ["eps"]) for _, row in found.reset_index().iterrows()]
    assert words[0].startswith("undecided: ")
    assert words[1].startswith("sd is better than gd by ")
    assert "in test_robust_acc (eps = 0.2, 5 seeds, paired; p = " in words[1]


def test_runs_on_different_data_are_not_paired() -> None:
    """A seed of other data is another draw; nor are runs without seeds in common. Welch's, as scipy has it."""
    frame = runs(noisy).query("optimizer == 'gd'")
    frame = frame.assign(**{"data.m": np.where(frame["eps"] == 0.1, 50, 100)}).assign(eps=0.1)
    (row,) = compare(frame, "data.m", "test_robust_acc").to_dict("records")
    x, y = (frame[frame["data.m"] == m]["test_robust_acc"] for m in (50, 100))
    test = stats.ttest_ind(x, y, equal_var=False)
    assert (row["paired"], row["p"]) == (False, pytest.approx(test.pvalue))
    assert row["half"] == pytest.approx(np.ptp(test.confidence_interval(0.95)) / 2)
    apart = runs(noisy).assign(seed=lambda f: f["seed"] + 10 * (f["optimizer"] == "sd"))
    assert not compare(apart, "optimizer", "test_robust_acc")["paired"].any()
    partly = runs(noisy).query("optimizer == 'gd' or seed >= 2")
    found = compare(partly, "optimizer", "test_robust_acc")
    assert (list(found["n"]), found["paired"].all()) == ([3, 3], True)
    gd = partly.query("optimizer == 'gd' and eps == 0.1 and seed >= 2")["test_robust_acc"]
    assert found["mean_first"].iloc[0] == pytest.approx(gd.mean()), "means are those of the seeds compared"


def test_options_of_what_is_compared_go_with_it() -> None:
    """gd at two learning rates and sd at one: three arms, not settings that never meet."""
    frame = runs(noisy)
    twice = frame.query("optimizer == 'gd'").assign(**{"optimizer.schedule.lr": 0.3})
    both = pd.concat([frame, twice], ignore_index=True)
    assert arms(both, "optimizer") == (["optimizer", "optimizer.schedule.lr"], ["eps"])
    found = compare(both, "optimizer", "test_robust_acc")
    assert len(found) == 6
    assert set(found["first"]) == {"gd, schedule.lr = 0.1", "sd, schedule.lr = 0.2"}
    by_rate = compare(both.query("optimizer == 'gd'"), "optimizer.schedule.lr", "test_robust_acc")
    assert set(by_rate["first"]) == {"0.1"}


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the worked example of R's p.adjust pages
        ([0.4, math.nan, 0.3], [0.6, math.nan, 0.6]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert holm(p) == pytest.approx(adjusted, nan_ok=True)


def test_what_one_seed_or_equal_values_allow() -> None:
    (row, _) = (r for _, r in compare(runs(noisy, seeds=1), "optimizer", "test_robust_acc").iterrows())
    assert math.isinf(row["half"])
    assert math.isnan(row["p"])
    assert sentence(row, "test_robust_acc", []).startswith("one seed decides nothing: ")
    same = compare(runs(lambda *_: 0.5), "optimizer", "test_robust_acc")
    assert list(same["p"]) == [1, 1]
    shifted = compare(runs(lambda name, *_: 0.5 + 0.25 * (name == "sd")), "optimizer", "test_robust_acc")
    assert shifted["p"].isna().all(), "accuracies are steps of a test point: equal differences are chance"
    assert sentence(shifted.iloc[1], "test_robust_acc", []).startswith("undecided, all seeds alike: ")
    difference, half, p = welch(np.array([1.0, 1.0]), np.array([2.0, 2.0]))
    assert (difference, half) == (-1, math.inf)
    assert math.isnan(p)
    assert welch(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == (0, 0, 1)


def test_less_is_better_of_gaps() -> None:
    frame = runs(noisy).rename(columns={"test_robust_acc": "gap_robust"})
    row = compare(frame, "optimizer", "gap_robust").iloc[1]
    assert sentence(row, "gap_robust", []).startswith("gd is better, with less, than sd by ")
    other = compare(frame.rename(columns={"gap_robust": "seconds"}), "optimizer", "seconds").iloc[1]
    assert sentence(other, "seconds", []).startswith("sd has more than gd by 0.0")
    shares = {"test_robust_acc", "evaluated.auto.test_attacked", "gap_clean", "gap_robust"}
    others = {"margin_clean", "log_loss_under_clean", "seconds", "evaluated.auto.test_certified_distance_median"}
    assert {name for name in shares | others if is_share(name)} == shares


def test_null_and_near_values_are_values_of_their_own() -> None:
    """They were left out, or merged: a setting with null had no line in the figure either."""
    frame = pd.concat([runs(noisy).assign(eval_eps=value) for value in (np.nan, 0.1234561, 0.1234564)])
    frame["eval_eps_absolute"] = frame["eval_eps"].fillna(0.05)
    gd = frame[frame["optimizer"] == "gd"]
    found = compare(gd, "eval_eps", "test_robust_acc")
    pairs = set(zip(found["first"], found["second"], strict=True))
    assert pairs == {("null", "0.1234561"), ("null", "0.1234564"), ("0.1234561", "0.1234564")}
    assert any("tested at different radii" in line for line in unlike(gd, "eval_eps"))


def test_runs_that_ended_otherwise_are_said() -> None:
    frame = runs(noisy)
    frame.loc[frame["optimizer"] == "sd", ["status", "log_loss", "train_robust_acc"]] = ["max_steps", -1.0, 0.9]
    found = compare(frame, "optimizer", "test_robust_acc")
    lines = conclusions(frame, found, "optimizer", "test_robust_acc")
    assert lines[0].startswith("note: 10 of 20 runs ended at the last step, at losses of 0.37")
    assert lines[1] == "note: 10 of 20 runs are not robust on all their training points, down to 90.0 %"
    assert list(found["loss_second"]) == ["0.37", "0.37"]
    assert unlike(runs(noisy)) == []
    radii = runs(noisy, eval_eps_absolute=lambda f: f["eps"])
    assert unlike(radii, "optimizer") == []
    (line,) = unlike(radii, "eps")
    assert line.startswith("runs were tested at different radii, 0.1 to 0.2")
    assert unlike(runs(noisy, eval_eps_absolute=0.1), "eps") == []


@pytest.mark.parametrize(
    ("change", "key", "metric", "says"),
    [
        ({}, "optimiser", "test_robust_acc", "no such column; did you mean optimizer"),
        ({}, "model", "test_robust_acc", "is mlp in all of these 20 runs; two values are needed"),
        ({}, "optimizer", "status", "holds no numbers"),
        ({"test_robust_acc": math.nan}, "optimizer", "test_robust_acc", "is missing in all of these runs"),
        ({"seed": 0}, "optimizer", "test_robust_acc", "has several runs of gd and one seed: gd-0.1-0, gd-0.1-1"),
    ],
)
def test_refusals(change: dict[str, object], key: str, metric: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        compare(runs(noisy).assign(**change), key, metric)


def test_runs_that_share_no_setting() -> None:
    frame = runs(noisy)
    frame = frame[(frame["optimizer"] == "gd") == (frame["eps"] == 0.1)]
    with pytest.raises(
        ConfigError, match=r"no two values of optimizer have runs that agree in all else \(eps differs\)"
    ):
        compare(frame, "optimizer", "test_robust_acc")


def test_the_page_has_the_picture_and_the_answers() -> None:
    section = comparison(runs(noisy), "optimizer", "test_robust_acc")
    assert section.count("<li>") == 2
    assert "sd is better than gd by " in section
    assert "data:image/svg+xml;base64," in section
    hostile = runs(noisy).replace({"optimizer": {"sd": "<script>"}})
    assert "<script>" not in comparison(hostile, "optimizer", "test_robust_acc")


def test_an_optimizer_has_its_colour_whatever_stands_beside_it() -> None:
    assert colour("sd", ["sd", "spectral"]) == colour("sd, schedule.lr = 0.1", ["gd", "sd, schedule.lr = 0.1"])
    assert colour("m = 5", ["m = 4", "m = 5"]) == COLOURS[1]
    twice = ["sd, lr = 1", "sd, lr = 2"]
    assert [colour(word, twice) for word in twice] == list(COLOURS[:2]), "two of one optimizer must differ"


def test_three_commands_from_a_file_to_an_answer(tmp_path: Path) -> None:
    """What the README promises: a CSV file, a sweep, and which is better, with its figure and table."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 6))
    frame = pd.DataFrame(x, columns=[f"c{k}" for k in range(6)]).assign(label=np.where(x[:, 0] > 0, "a", "b"))
    frame.to_csv(tmp_path / "mine.csv", index=False)
    line = ["-m", "data=arrays", "data.file=mine.csv", "data.m=20", "model=linear", "attack=exact", "eps=0.02"]
    quiet = ["optimizer=cd,gd", "seed=range(4)", "logger=none", "trainer.progress=false", "hydra.launcher.workers=0"]
    assert run("train", *line, *quiet, "stop.steps=300", cwd=tmp_path).status == 0
    said = run("results", "outputs", "--compare", "optimizer", "--figure", "d.png", "--csv", "d.csv", cwd=tmp_path)
    assert said.status == 0, said.err
    assert "4 seeds, paired" in said.out
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(tmp_path / "d.csv")) == 1
    for bad, says in (
        (["--figure", "a.png"], "--figure = a.png: is of --compare KEY"),
        (["--compare", "optimizer", "--figure", "a.gif"], "--figure = a.gif: must end in .png, .pdf or .svg"),
        (["--compare", "model"], "--compare = model: is linear in all of these 8 runs; two values are needed"),
        (["--compare", "optimizer", "--metric", "statu"], "no such column; did you mean status?"),
    ):
        said = run("results", "outputs", *bad, cwd=tmp_path)
        assert (said.status, said.crashed, len(said.err.splitlines())) == (2, False, 1)
        assert says in said.err
    said = run("page", "outputs", "--compare", "optimizer", "--out", "p.html", cwd=tmp_path)
    assert said.status == 0, said.err
    assert 'id="comparison"' in (tmp_path / "p.html").read_text()
    assert (
        picture(compare(runs(noisy), "optimizer", "test_robust_acc"), "test_robust_acc", ["eps"], "pdf")[:4] == b"%PDF"
    )
