"""Every experiment of conf/reproduce at scale=smoke, found by itself."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from turns import SECONDS

from robust_erm import gallery, reproduce
from robust_erm.papers import experiments
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.reproduced import predictor, read, signed_points
from robust_erm.papers.tsilivis2024 import fig3_left_7 as nets
from robust_erm.sweeps.lines import sweep

pytestmark = pytest.mark.xdist_group("reproduce")  # one folder, so that nothing is trained twice

# claims that the smallest sizes show as well as any
CERTAIN = {
    "tsilivis2024/lemma_c4": 4,
    "tsilivis2024/remark44": 2,
    "tsilivis2024/cd_large_eps": 4,
    "vardi2022/thm41": 8,
    "vardi2022/cor41": 5,
    "vardi2022/thm31": 4,
    "vardi2022/kkt": 3,
    "vardi2022/choices": 6,
    "frei2023/robustness": 8,
    "frei2023/flip_curves": 3,
    "frei2023/width": 4,
    "frei2023/literal": 6,
    "frei2023/kkt": 5,
}

# seconds of those that are long (turns.py)
LONG = {
    "tsilivis2024/cd_large_eps": 135,
    "lyu2022/thm4": 115,
    "frei2023/adversarial": 100,
    "tsilivis2024/fig3_left": 100,
    "tsilivis2024/fig3_right": 100,
    "lyu2022/lemma3": 95,
    "tsilivis2024/fig2_right": 90,
    "lyu2022/thm5": 70,
    "lyu2022/linf": 70,
    "lyu2022/fig4": 70,
    "tsilivis2024/bounds": 65,
    "tsilivis2024/net_choices": 55,
    "tsilivis2024/choices": 55,
    "frei2023/geometries": 50,
    "vardi2022/fig2": 50,
    "lyu2022/choices": 45,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce")


def run(name: str, place: Path, *overrides: str) -> int:
    """The command, in this process."""
    before = Path.cwd()
    os.chdir(place)
    try:
        given = [
            name if "/" in name else f"tsilivis2024/{name}",
            "scale=smoke",
            "hydra.launcher.workers=0",
            "trainer.progress=false",
            *overrides,
        ]
        return reproduce.main(given)
    finally:
        os.chdir(before)


def _of_papers(names: list[str]) -> list[object]:
    """The experiments; those of later papers in a process of their own, for they share no runs with the first."""
    found = []
    for name in names:
        paper, marks = name.partition("/")[0], [pytest.mark.turns(LONG.get(name, SECONDS))]
        marks += [pytest.mark.xdist_group(paper)] if paper != "tsilivis2024" else []
        found.append(pytest.param(name, marks=marks))
    return found


@pytest.mark.parametrize("experiment", _of_papers(experiments.names()))
def test_smoke(experiment: str, place: Path) -> None:
    name = experiment.partition("/")[2]
    assert run(experiment, place) == 0
    folder = place / "outputs" / "reproduced" / f"{experiment}-smoke"
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    table = pd.read_csv(folder / f"{name}.csv")
    assert len(table) > 0
    page = json.loads((folder / "claims.json").read_text())
    assert page["runs"] > 0
    assert page["device"].startswith("cpu")
    verdicts = [claim["verdict"] for claim in page["claims"]]
    assert verdicts
    assert set(verdicts) <= {HOLDS, FAILS, UNDECIDED}
    assert all(claim["measured"] for claim in page["claims"])
    assert verdicts.count(HOLDS) >= CERTAIN.get(experiment, 0)
    drawn = [int(n) for claim in page["claims"] for n in re.findall(r" over (\d+) draws", claim["measured"])]
    assert max(drawn, default=0) <= len(set(table.get("seed", ()))), "settings that share a seed are no further draws"
    assert (folder / "claims.md").read_text().count("| **") == len(verdicts)


def test_nothing_is_trained_twice(place: Path) -> None:
    """Fig. 6 is made from the runs of Fig. 2 right; the same line again leaves every summary as it is."""
    assert run("fig2_right", place) == 0
    before = {p: p.stat().st_mtime_ns for p in place.glob("outputs/*/summary.json")}
    assert run("fig6", place) == 0
    assert run("fig2_right", place) == 0
    assert {p: p.stat().st_mtime_ns for p in place.glob("outputs/*/summary.json")} == before


def test_overrides_replace_those_of_the_scale(place: Path, tmp_path: Path) -> None:
    assert run("lemma_c4", place, f"output_dir={tmp_path}", "data.m=5", "eps=0,0.999") == 0
    table = pd.read_csv(tmp_path / "reproduced" / "tsilivis2024" / "lemma_c4-smoke" / "lemma_c4.csv")
    assert sorted(table["eps"].unique()) == [0, 0.999]
    runs = read({"oracle": [p.parent for p in tmp_path.glob("*/summary.json")]})
    assert set(runs["data.m"]) == {5}
    z, w = signed_points(runs["folder"].iloc[0]), predictor(runs["folder"].iloc[0])
    margin = (z @ w).min() - runs["eps_absolute"].iloc[0] * np.linalg.norm(w, 1 if np.isinf(runs["p"].iloc[0]) else 2)
    assert margin == pytest.approx(1, rel=1e-9)  # the oracle's scale


def test_a_run_that_fails_takes_no_figure_along(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At eps* there is no separator with a positive margin: that oracle says so, the others are shown; status 1."""
    assert run("lemma_c4", place, f"output_dir={tmp_path}", "eps=0,0.5,1.5", "p=inf") == 1
    out = capfd.readouterr().out
    assert "no linear model is robust on the training points of seed 0" in out
    assert "5 of 15 runs failed" in out
    table = pd.read_csv(tmp_path / "reproduced" / "tsilivis2024" / "lemma_c4-smoke" / "lemma_c4.csv")
    assert sorted(table["eps"].unique()) == [0, 0.5]


def test_sweeps_by_name(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vardi2022/fig1a", place, f"output_dir={tmp_path}", "sweeps=alpha_05", "data.d=10") == 0
    table = pd.read_csv(tmp_path / "reproduced" / "vardi2022" / "fig1a-smoke" / "fig1a.csv")
    assert set(table["alpha"]) == {0.5}
    assert set(table["d"]) == {10, 20}, "what a sweep itself fixes stays"
    capsys.readouterr()
    assert run("vardi2022/fig1a", place, "sweeps=apha_05") == 2
    assert "did you mean alpha_05?" in capsys.readouterr().err
    assert run("vardi2022/fig2", place, f"output_dir={tmp_path}", "sweeps=fig1a.alpha_05", "data.d=10") == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["tsilivis2024/fig2_rigth"], "experiment = tsilivis2024/fig2_rigth: must be one of"),
        (["tsilivis2024/fig2_rigth"], "(did you mean tsilivis2024/fig2_right?)"),
        (["tsilivis2024/fig1", "scale=papr"], "scale = papr: must be one of smoke, small, paper (did you mean paper?)"),
        (["tsilivis2024/fig1", "tsilivis2024/fig5"], "one experiment at a time"),
        (["scale=smoke"], "experiment = : must be one of"),
    ],
)
def test_bad_input(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(given) == 2
    assert said in capsys.readouterr().err


@pytest.mark.turns
def test_the_cnn_is_reported_at_the_first_loss_below(place: Path) -> None:
    """App. F.2's reporting time, from the run folders themselves."""
    assert run("fig3_right", place) == 0
    table = pd.read_csv(place / "outputs" / "reproduced" / "tsilivis2024" / "fig3_right-smoke" / "fig3_right.csv")
    reported = table.dropna(subset="threshold")
    assert len(reported) > 4
    for _, row in reported.iterrows():
        curve = pd.read_parquet(place / row["folder"] / "metrics.parquet")
        before = curve[curve["step"] < row["step"]]
        at = curve[curve["step"] == row["step"]].iloc[0]
        assert at["log_loss"] <= math.log(row["threshold"]) < before["log_loss"].min()
        assert row["test_robust_acc"] == at["test_robust_acc"]


@pytest.mark.turns
def test_the_kkt_residual_of_gd_and_sd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GD on a small net is near a KKT point of the l_2 problem, SD is not; one perturbation a sample is not enough."""
    base = ["experiment=tsilivis2024/mnist", "data=digits", "data.m=20", "model.width=32", "eps=0.1", "report=false"]
    base += ["optimizer/schedule=constant", "stop.steps=2000", "logger=none", "hydra.launcher.workers=0"]
    base += [f"output_dir={tmp_path}", "trainer.progress=false"]
    (gd,) = sweep([*base, "optimizer=gd", "optimizer.schedule.lr=1e-3"])
    (sd,) = sweep([*base, "optimizer=sd", "optimizer.schedule.lr=1e-4"])
    near, far = nets.residual(gd.working_dir), nets.residual(sd.working_dir)
    assert near < 0.35
    assert far > 0.7
    monkeypatch.setattr(nets, "STARTS", 0)
    assert nets.residual(gd.working_dir) > 1.1 * near


@pytest.mark.turns(110)
def test_strong_attacks_of_a_figure_are_evaluate_s(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last rows have what `evaluate` left in the runs' folders; what has been evaluated is not evaluated again."""
    assert run("fig3_left", place) == 0
    assert "python -m robust_erm.evaluate" in capsys.readouterr().err
    files = {p: p.stat().st_mtime_ns for p in place.glob("outputs/*/evaluations/*.json")}
    assert run("fig3_left", place) == 0
    assert {p: p.stat().st_mtime_ns for p in place.glob("outputs/*/evaluations/*.json")} == files
    folder = place / "outputs" / "reproduced" / "tsilivis2024" / "fig3_left-smoke"
    table = pd.read_csv(folder / "fig3_left.csv")
    last = table.groupby("folder").tail(1)
    assert len(last) == len(table["folder"].unique())
    for _, row in last.iterrows():
        all_of_it = [json.loads(path.read_text()) for path in (place / row["folder"]).glob("evaluations/*.json")]
        (found,) = (one for one in all_of_it if "test_certified" in one)  # net_choices asks for no certificates
        assert row["test_attacked"] == found["test_attacked"]
        assert row["test_certified"] == found["test_certified"] <= row["test_attacked"]
    assert table["test_attacked"].notna().sum() == len(last)


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("fig3_left", "evaluate.points=0", "points = 0: must be 1 or more"),
        ("fig3_left", "evaluate.attack=apdg", "did you mean apgd?"),
        ("fig3_left", "evaluate.apgd.steps=-4", "apgd.steps = -4: must be 1 or more"),
        ("fig3_left", "evaluate.apgd.stepz=4", "stepz"),
        ("fig3_left", "evaluate.attack=exact", "needs a model linear in its input"),
        ("fig3_left", "evaluate.device=qpu", "device = qpu"),
        ("fig3_left", "evaluate.eps=0.1", "is each run's own here"),
        ("fig3_left", "evaluate.parts=train", "must have test"),
        ("lemma_c4", "evaluate.points=5", "evaluates nothing"),
    ],
)
def test_options_of_the_evaluation_are_checked_first(
    name: str, option: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, tmp_path, option) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists(), "nothing was trained"


def test_what_is_stale_is_said_once() -> None:
    """Of runs and of their evaluations: else kept runs are refused after hours of training, by the evaluation."""
    chosen = experiments.experiment("tsilivis2024/fig3_left")
    plain = chosen.evaluation("smoke")
    assert not any(option.startswith("stale=") for option in plain)
    for said, passed in (("refuse", "refuse"), ("keep", "keep"), ("retrain", "again")):
        assert chosen.evaluation("smoke", [f"stale={said}"]) == [*plain, f"stale={passed}"]
    assert chosen.evaluation("smoke", ["evaluate.stale=again", "stale=keep"]) == [*plain, "stale=again"]
    assert experiments.experiment("tsilivis2024/lemma_c4").evaluation("smoke", ["stale=keep"]) == []


def test_gallery(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lemma_c4", place) == 0
    reproduced = place / "outputs" / "reproduced"
    assert gallery.main([str(reproduced), "--scale", "smoke", "--out", str(tmp_path / "gallery")]) == 0
    text = (tmp_path / "gallery" / "README.md").read_text()
    facts = json.loads((reproduced / "tsilivis2024" / "lemma_c4-smoke" / "claims.json").read_text())
    assert f"`{facts['command']}`" in text
    assert text.count("**holds**") >= 4
    assert (tmp_path / "gallery" / "lemma_c4.png").read_bytes().startswith(b"\x89PNG")
    assert "instead of the scale's" not in text
    assert run("lemma_c4", place, f"output_dir={tmp_path}", "data.m=5") == 0
    assert gallery.main([str(tmp_path / "reproduced"), "--scale", "smoke", "--out", str(tmp_path / "other")]) == 0
    text = (tmp_path / "other" / "README.md").read_text()
    assert "**With settings of its own instead of the scale's**: `data.m=5`." in text
    assert gallery.main([str(reproduced), "--scale", "huge", "--out", str(tmp_path)]) == 2
    assert "nothing has been reproduced there at scale=huge" in capsys.readouterr().err


def test_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in experiments.names():
        assert name in out


@pytest.mark.turns(50)
def test_the_papers_scale_composes(idx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each experiment the first and last sweep are lines that robust_erm.train would take; nothing is trained.

    MNIST itself need not be there. What the sweeps between add is composed at the scale of smoke.
    """
    monkeypatch.setenv("ROBUST_ERM_MNIST", str(idx))
    from robust_erm.store.config import resolve
    from robust_erm.sweeps.compose import composed
    from robust_erm.sweeps.lines import points

    for name in experiments.names():
        lines = {k: line for k, line in experiments.experiment(name).lines("paper").items() if "." not in k}
        for label, line in lines.items():
            if label in (next(iter(lines)), next(reversed(lines))):
                loader, master, overrides = points(line)
                few = ["data.m=5"] if "mnist" in " ".join(line) else []
                (last,) = (resolve(c) for c in composed(loader, master, [[*overrides[-1], *few]]))
                assert last.name
