"""Numbers and verdicts of flavors2025 and gronich2026, by hand or from another formula."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from robust_erm.papers import homogeneous
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED, Claim
from robust_erm.papers.flavors2025 import kkt, margins
from robust_erm.papers.gronich2026 import momentum
from robust_erm.papers.lyu2022.flow import path_of
from robust_erm.papers.reproduced import read
from robust_erm.sweeps.lines import sweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Squared ReLUs under gradient descent, clean and attacked."""
    line = """data=digits data.m=6 model=mlp model.width=6 model.activation=power model.power=2 model.init_scale=0.3
        objective=exponential attack=pgd attack.steps=2 attack.relative_step=0.5 eps=0,0.05 optimizer=gd
        optimizer/schedule=relative optimizer.schedule.lr=0.05 stop.loss=null stop.log_loss=-40 stop.steps=800
        snapshots=true measure_per_decade=3 measure_every=20 trainer.threads=1 trainer.progress=false logger=none
        report=false hydra.launcher.workers=0"""
    jobs = sweep([*line.split(), f"output_dir={tmp_path_factory.mktemp('homogeneous')}"])
    return read({"gd": [Path(job.working_dir) for job in jobs]})


def test_margins_along_a_run(runs: pd.DataFrame) -> None:
    """Over the squares of norms of theta, by numpy, and as training measures them."""
    table = homogeneous.along(runs, ["l1", "l2", "spectral"])
    assert table["eps"].nunique() == 2
    assert (table["log_loss"] < 0).all()
    for _, run in runs.iterrows():
        last = table[table["folder"] == run["folder"]].iloc[-1]
        path = path_of(str(run["folder"]))
        w1, w2 = (p.numpy() for p in path.params(-1).values())
        size = max(np.linalg.norm(w1, 2), np.linalg.norm(w2, 2))
        assert last["log_loss"] == pytest.approx(run["log_loss"], rel=1e-9)
        assert last["soft_spectral"] == pytest.approx(-run["log_loss"] / size**2, rel=1e-9)
        assert last["hard_l2"] == pytest.approx(run["margin_robust_l2"], rel=1e-9)
        assert last["hard_l1"] == pytest.approx(run["margin_robust_l1"], rel=1e-9)
        assert last["soft_l2"] <= last["hard_l2"]


def test_gradient_descent_comes_to_its_own_kkt_point(runs: pd.DataFrame) -> None:
    table = homogeneous.gaps(runs, {"gd": "l2"}, ["l2", "linf"], looks=3)
    for eps, run in table.groupby("eps"):
        assert run["gap_linf"].notna().tolist() == [False] * (len(run) - 1) + [True]
        first, last = run.iloc[0], run.iloc[-1]
        assert last["gap"] == last["gap_l2"]
        assert last["gap"] < 0.6 * first["gap"]
        assert last["gap"] < last["gap_linf"]
        if eps == 0:
            assert last["gap"] < 0.05


def test_one_look_is_the_last(runs: pd.DataFrame) -> None:
    found = momentum.table(runs)
    assert found["folder"].tolist() == runs["folder"].tolist()
    for _, row in found.iterrows():
        path = path_of(row["folder"])
        assert row["step"] == path.steps[-1]
        assert row["gap"] == homogeneous.gap(path, len(path.steps) - 1, "l2")
        assert row["share_l2"] == 1


def test_more_constraints_under_attack(runs: pd.DataFrame) -> None:
    """Points of random starts stay in the ball, and are others than those of training."""
    path = path_of(str(runs.loc[runs["eps_absolute"] > 0, "folder"].iloc[0]))
    x = homogeneous.constraints(path, len(path.steps) - 1)
    n = len(path.batch.y)
    assert len(x) == n * (1 + homogeneous.STARTS)
    assert (x - path.batch.x.repeat(1 + homogeneous.STARTS, 1)).abs().max() <= 0.05 + 1e-12
    assert not torch.equal(x[:n], x[n : 2 * n])
    clean = path_of(str(runs.loc[runs["eps_absolute"] == 0, "folder"].iloc[0]))
    assert torch.equal(homogeneous.constraints(clean, 0), clean.batch.x)


def verdicts(claims: list[Claim], word: str) -> list[str]:
    found = [claim.verdict for claim in claims if word in claim.claim]
    assert found
    return found


def test_margins_that_fall_and_margins_that_are_smaller() -> None:
    rows = []
    norms = {**margins.OWN, "adam": "linf", "adam_eps": "l2"}
    for name, norm in norms.items():
        for seed in range(3):
            for step, grown in ((1, 1.0), (2, 0.9 if name == "sd" else 1.5)):
                own = {
                    f"{k}_{n}": grown * (2 if n == norm else 1) for n in margins.OWN.values() for k in ("hard", "soft")
                }
                row = {"sweep": name, "eps": 0.0, "seed": seed, "folder": f"{name}{seed}", "step": step}
                rows.append({**row, **own})
    table = pd.DataFrame(rows)
    runs = table[["sweep", "folder"]].drop_duplicates().assign(eps_absolute=0.0)
    runs.loc[runs["folder"] == "gd1", "folder"] = "not there"
    claims = margins.claims(table, runs)
    assert verdicts(claims, "gd comes to L < 1") == [FAILS]
    assert verdicts(claims, "sd comes to L < 1") == [HOLDS]
    assert verdicts(claims, "cdm") == [UNDECIDED] * 2, "nothing was measured of it"
    by = {name: verdicts(claims, f"{name}: the soft margin") for name in margins.OWN}
    assert by == {"cd": [HOLDS], "gd": [HOLDS], "sd": [FAILS], "spectral": [HOLDS]}
    assert verdicts(claims, "greatest margin") == [HOLDS] * 4  # 2 x 0.9 against 1.5
    assert verdicts(claims, "at sign descent's margin") == [FAILS]  # 3 to 1.8
    assert verdicts(claims, "1e-8 ends with more margin over l2") == [HOLDS]
    assert verdicts(claims, "and with less over linf") == [HOLDS]
    table.loc[(table["sweep"] == "sd") & (table["step"] == 2), "hard_linf"] = 1.4
    assert verdicts(margins.claims(table, runs), "greatest margin over linf") == [FAILS]


def test_falls() -> None:
    assert margins.largest_fall(pd.Series([1.0, 2.0, 1.5, 4.0])) == 0.5 / 4
    assert margins.largest_fall(pd.Series([1.0, 2.0])) == 0
    assert math.isnan(margins.largest_fall(pd.Series([1.0])))


def test_a_gap_that_closes_and_one_that_does_not() -> None:
    rows = []
    for sweep_, norm in kkt.OWN.items():
        for seed in range(3):
            for step, gap in ((1, 0.5), (2, 0.3 if sweep_ == "cdm" else 0.01)):
                others = {f"gap_{n}": (gap if n == norm else 0.2) if step == 2 else math.nan for n in kkt.OWN.values()}
                row = {"sweep": sweep_, "eps": 0.0, "seed": seed, "folder": f"{sweep_}{seed}", "smooth": False}
                rows.append({**row, "step": step, "gap": gap + 1e-3 * seed, **others})
    claims = kkt.claims(pd.DataFrame(rows), pd.DataFrame())
    assert verdicts(claims, "comes nearer") == [HOLDS] * 4
    assert verdicts(claims, "than in any other") == [FAILS, HOLDS, HOLDS, HOLDS]
    assert verdicts(claims, "ends near a KKT") == [UNDECIDED, HOLDS, HOLDS, HOLDS]


def test_momentum_that_changes_the_margin() -> None:
    rows = []
    for name, norm in momentum.OWN.items():
        for seed in range(3):
            least = {f"hard_{n}": 1 + (n == norm) + 0.001 * seed * (name == "nmd") for n in momentum.NORMS}
            if name == "signum":
                least["hard_linf"] = 1.5
            rows.append(
                {
                    "sweep": name,
                    "eps": 0.0,
                    "seed": seed,
                    "folder": f"{name}{seed}",
                    "gap": 0.04 if name == "sd" else 0.01,
                    **least,
                }
            )
    table = pd.DataFrame(rows)
    claims = momentum.claims(table, table[["folder"]])
    assert verdicts(claims, "nmd ends at the margin of gd") == [HOLDS]
    assert verdicts(claims, "signum ends at the margin of sd") == [FAILS]
    assert verdicts(claims, "signum ends nearer to a KKT point than sd") == [HOLDS]
    assert verdicts(claims, "than any optimizer of another") == [HOLDS] * len(momentum.OWN)
    assert verdicts(claims, "ends near a KKT point") == [HOLDS] * len(momentum.OWN)
