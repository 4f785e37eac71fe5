"""Claims of nets, from tables made by hand: what decides a verdict, and what must not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from robust_erm.core.errors import ConfigError
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED, Claim
from robust_erm.papers.tsilivis2024 import fig3_left_7 as nets
from robust_erm.papers.tsilivis2024 import fig3_left_7_claims as nets_claims
from robust_erm.papers.tsilivis2024.fig3_left_7_claims import LONG, UNIT


def last(accuracy: dict[str, float], eps: float = 0.2, **also: Any) -> pd.DataFrame:
    """The last measurements of three seeds of each algorithm, with this robust test accuracy."""
    rows = [
        {"algorithm": name, "eps": eps, "seed": k, "folder": f"{name}{eps}{k}", "step": 100, "eta": 0.01,
         "status": "max_steps", "data": "mnist", "train_robust_acc": 1.0, "test_robust_acc": value + 0.001 * k,
         "best": value + 0.001 * k, "margin": 1.0, "kkt": 0.5, "train_attacked": 1.0, "test_attacked": value,
         "test_after_train": value, "test_certified": 0.1, "warnings": 0, **also}
        for name, value in accuracy.items() for k in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def said(table: pd.DataFrame, words: str) -> Claim:
    (claim,) = [c for c in nets_claims.claims(table) if words in c.claim]
    return claim


def test_sd_against_gd() -> None:
    good = said(last({"GD": 0.7, "SD": 0.75}), "SD significantly outperforms GD")
    assert (good.verdict, good.where) == (HOLDS, "Sec. 5.2, Fig. 3 left")
    assert "SD after 100 steps of 0.01 - GD after 100 steps of 0.01: (paper: 4.11) 5.0 " in good.measured
    assert said(last({"GD": 0.7, "SD": 0.65}), "SD significantly").verdict == FAILS
    digits = said(last({"GD": 0.7, "SD": 0.75}, data="digits"), "SD significantly")
    assert digits.where == "as Sec. 5.2"
    assert "4.11" not in digits.measured
    both = last({"GD": 0.7, "SD": 0.7, LONG: 0.74, UNIT: 0.6})
    assert said(both, f"{LONG} significantly outperforms GD").verdict == HOLDS
    assert said(both, f"SD significantly outperforms {UNIT}").where == "ours"


@pytest.mark.parametrize("trouble", [{"train_robust_acc": 0.98}, {"status": "diverged"}])
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_what_has_not_fitted_is_not_outperformed(trouble: dict[str, Any], eps: float) -> None:
    table = last({"GD": 0.3, "SD": 0.75}, eps)
    table.loc[0, list(trouble)] = list(trouble.values())  # one run of GD
    words = "SD significantly outperforms GD" if eps else "the choice of the algorithm"
    claim = said(table, words)
    assert claim.verdict == UNDECIDED
    assert nets_claims.UNFIT in claim.measured
    if eps:
        assert said(table, "GD shows robust overfitting").verdict == UNDECIDED
        assert said(table, "SD avoids robust overfitting").verdict == HOLDS
        assert said(table, "SD outperforms GD under the strong attacks").verdict == UNDECIDED


def test_robust_overfitting() -> None:
    table = last({"GD": 0.7, "SD": 0.7})
    table.loc[table["algorithm"] == "GD", "best"] += 0.03
    assert said(table, "GD shows robust overfitting").verdict == HOLDS
    assert said(table, "SD avoids robust overfitting").verdict == HOLDS
    table["best"] += 0.03
    assert said(table, "SD avoids robust overfitting").verdict == FAILS


def test_robust_overfitting_of_other_geometries() -> None:
    table = last({"GD": 0.7, "SD": 0.7, "spectral": 0.7, r"$\ell_3$": 0.7})
    table.loc[table["algorithm"] == "spectral", "best"] += 0.04
    shows = said(table, "spectral shows robust overfitting")
    assert (shows.verdict, shows.where) == (HOLDS, "ours")
    assert "spectral after 100 steps of 0.01: best along training - last: 4.0 " in shows.measured
    other = said(table, "l_3 shows robust overfitting")
    assert other.verdict == FAILS
    assert other.measured.startswith("l_3 after")


def test_the_gap_is_wider_than_in_erm() -> None:
    table = pd.concat([last({"GD": 0.96, "SD": 0.97}, 0.0), last({"GD": 0.7, "SD": 0.66}, 0.2)])
    claim = said(table, "the gap between the algorithms is larger")
    assert claim.verdict == HOLDS
    assert "3.0 " in claim.measured
    table = pd.concat([last({"GD": 0.96, "SD": 0.97}, 0.0), last({"GD": 0.7, "SD": 0.7}, 0.2)])
    assert said(table, "the gap between the algorithms is larger").verdict == FAILS


def test_who_is_easier_to_train() -> None:
    def of(fits: dict[str, int]) -> str:
        names = [name for name in fits for _ in range(10)]
        robust = [1.0 if k < n else 0.9 for n in fits.values() for k in range(10)]
        some = pd.DataFrame({"algorithm": names, "train_robust_acc": robust, "status": "max_steps"})
        (claim,) = nets_claims._easier(some)
        return claim.verdict

    assert of({"SD": 10, "CD": 2, "spectral": 5}) == HOLDS
    assert of({"SD": 10, "CD": 2, "spectral": 9}) == UNDECIDED, "one run decides nothing"
    assert of({"SD": 5, "CD": 5, "spectral": 10}) == FAILS, "also where another one ties"
    assert of({"SD": 10, "GD": 0, "Adam": 0, "CD": 2}) == HOLDS, "besides GD; Adam is no steepest descent"


def test_claims_that_strong_attacks_decide() -> None:
    def of(missed: float, edge: float, **also: Any) -> list[Claim]:
        table = last({"GD": 0.8, "SD": 0.8 + edge}, **also)
        table["test_attacked"] += 0.001 * table["seed"]
        table["test_after_train"] = table["test_attacked"] + missed * (table["algorithm"] == "SD")
        return nets_claims._trusted(table, 0.2)

    close, edge, fitted = of(0.005, 0.04)
    assert [c.verdict for c in (close, edge, fitted)] == [HOLDS] * 3
    assert "GD 0.0 (10.0 to 80.1), SD 0.5 (10.0 to 84.1)" in close.measured
    far, worse, broken = of(0.03, -0.04, warnings=1, train_attacked=0.99)
    assert [c.verdict for c in (far, worse, broken)] == [FAILS] * 3
    assert "6 of 6 runs with a sign" in far.measured


def test_other_geometries_do_not_decide_for_gd_and_sd() -> None:
    table = last({"GD": 0.8, "SD": 0.8, "CD": 0.5})
    table.loc[table["algorithm"] == "CD", "test_after_train"] += 0.2
    assert said(table, "close to the strong ones on other geometries").verdict == FAILS
    near, other, *_ = nets_claims._trusted(table, 0.2)
    assert (near.verdict, other.verdict) == (HOLDS, FAILS)
    assert "CD" not in near.measured


def test_evaluations_that_failed_cost_their_claims_only() -> None:
    table = last({"GD": 0.8, "SD": 0.84})
    table.loc[table["algorithm"] == "SD", ["test_attacked", "test_after_train", "test_certified"]] = math.nan
    assert [c.verdict for c in nets_claims._trusted(table, 0.2)] == [HOLDS]
    assert nets_claims._trusted(table.assign(test_attacked=math.nan), 0.2) == []
    assert nets_claims.claims(last({LONG: 0.8}))


def test_a_margin_that_turns_negative_refutes() -> None:
    def margins(values: list[float], status: str = "max_steps") -> pd.DataFrame:
        rows = [{"folder": f"r{k}", "step": t, "margin": v} for k in range(3) for t, v in enumerate(values)]
        return pd.DataFrame(rows).assign(status=status)

    assert nets_claims._rises("SD", margins([-1, 0.1, 0.2, 0.3, -0.5])).verdict == FAILS
    assert nets_claims._rises("SD", margins([-1, 0.1, 0.2, 0.3])).verdict == HOLDS
    assert nets_claims._rises("SD", margins([-1, -0.5])).verdict == UNDECIDED
    gone = nets_claims._rises("SD", margins([-1, 0.3], "diverged"))
    assert gone.verdict == UNDECIDED
    assert "3 runs have diverged" in gone.measured


def test_residuals_are_compared_pair_by_pair() -> None:
    def of(values: list[float]) -> Claim:
        table = pd.concat([last({"GD": 0.7, "SD": 0.7}, eps) for eps in (0.0, 0.2)])
        (claim,) = nets_claims._nearest(table.sort_values(["algorithm", "eps", "seed"]).assign(kkt=values))
        return claim

    claim = of([0.3] * 3 + [math.nan] * 3 + [0.25] * 3 + [0.6] * 3)
    assert claim.verdict == FAILS, "where both are feasible SD is nearer"
    assert "3 of 6 pairs" in claim.measured
    assert of([0.1] * 12).verdict == UNDECIDED


def test_runs_that_differ_in_more_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be averaged as one draw."""
    rows = [
        {"folder": f"f{m}", "sweep": "fig3_left.gd", "seed": 0, "eps": 0.2, "step": 1, "log_loss": 0.0,
         "data": "digits", "optimizer.schedule.lr": 0.1, "status": "max_steps", "margin_robust_l2": 1.0, "data.m": m,
         **{f"{part}_{kind}_acc": 1.0 for part in ("train", "test") for kind in ("robust", "clean")}}
        for m in (40, 80)
    ]  # fmt: skip
    monkeypatch.setattr(nets, "read_curves", lambda runs: pd.DataFrame(rows))
    monkeypatch.setattr(nets, "residual", lambda folder: 0.0)
    with pytest.raises(ConfigError, match="several runs of one algorithm, eps and seed"):
        nets.table(pd.DataFrame(rows))
    monkeypatch.setattr(nets, "read_curves", lambda runs: pd.DataFrame(rows[:1]))
    assert np.isnan(nets.table(pd.DataFrame(rows[:1]))["test_attacked"]).all()
