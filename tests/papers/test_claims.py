from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from robust_erm.core.statistics import interval, slope
from robust_erm.papers import claims
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED, Claim, above, between, every, stated, within
from robust_erm.papers.tsilivis2024 import fig1_2left_5 as gaps
from robust_erm.papers.tsilivis2024 import sec51 as algorithms
from robust_erm.papers.tsilivis2024.prop32_eq6 import complexities, proposition


def test_interval_is_scipys() -> None:
    x = [0.1, 0.3, 0.15]
    mean, half = interval(x)
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)
    assert interval([0.3]) == (0.3, math.inf)
    assert interval([0.3, math.nan])[1] == math.inf


def test_slope_is_scipys() -> None:
    x, y = [0.0, 1.0, 2.0, 2.0, 5.0], [0.3, 1.1, 2.4, 1.9, 5.2]
    b, half = slope(x, y)
    found = stats.linregress(x, y)
    assert b == pytest.approx(found.slope, rel=1e-12)
    assert half == pytest.approx(stats.t.ppf(0.975, 3) * found.stderr, rel=1e-12)
    assert slope([0, 1], [0, 2]) == (2, math.inf)
    assert slope([0, 1, 2], [0, 2, 4]) == (2, 0)
    assert math.isnan(slope([1, 1, 1], [0, 1, 2])[0])
    assert slope([0, 1, 2], [0, math.inf, 4])[1] == math.inf


@pytest.mark.parametrize(
    ("found", "verdict"),
    [((0.3, 0.1), HOLDS), ((0.45, 0.1), UNDECIDED), ((0.7, 0.1), FAILS), ((0.3, math.inf), UNDECIDED)],
)
def test_between(found: tuple[float, float], verdict: str) -> None:
    assert between("c", "w", found, -math.inf, 0.5, n=4).verdict == verdict
    assert between("c", "w", found, 0.15, 0.5).verdict == verdict
    assert between("c", "w", found, -math.inf, 0.5, n=4).measured.endswith("over 4 runs (asked: at most 0.5)")
    assert between("c", "w", found, 0.0, math.inf).measured.endswith("(asked: at least 0)")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.1, 0.11, 0.12], HOLDS),
        ([-0.1, -0.11, -0.12], FAILS),
        ([0.1, -0.1, 0.05], UNDECIDED),
        ([0.1], UNDECIDED),
        ([], UNDECIDED),
    ],
)
def test_above(values: list[float], verdict: str) -> None:
    assert above("c", "w", values).verdict == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.01, -0.01, 0.0], HOLDS),
        ([0.2, 0.21, 0.19], FAILS),
        ([-0.2, -0.21, -0.19], FAILS),
        ([0.2, -0.2, 0.0], UNDECIDED),
        ([0.0], UNDECIDED),
    ],
)
def test_within(values: list[float], verdict: str) -> None:
    assert within("c", "w", values, 0.05).verdict == verdict


def test_plain_numbers_are_not_points() -> None:
    assert above("c", "w", [0.1, 0.11, 0.12], 0.05).measured.startswith("11.0 points [8.5, 13.5]")
    plain = above("c", "w", [0.1, 0.11, 0.12], 0.05, percent=False).measured
    assert plain == "0.11 [0.0852, 0.135] over 3 draws (asked: above 0.05)"


def test_every() -> None:
    assert every("c", "w", [0.99, 1.0], 0.99).verdict == HOLDS
    below = every("c", "w", [0.98, 1.0], 0.99)
    assert below.verdict == FAILS
    assert "1 of them below" in below.measured
    assert every("c", "w", [0.98, 1.0], 0.99, limit=True).verdict == UNDECIDED
    assert every("c", "w", [0.98, math.nan], 0.99).verdict == FAILS, "what is missing does not hide a counterexample"
    assert every("c", "w", [-math.inf, 1.0], 0.99).verdict == FAILS, "a length that is never reached is an answer"
    assert every("c", "w", [math.inf, 1.0], 0.99).verdict == HOLDS
    missing = every("c", "w", [1.0, math.nan], 0.99)
    assert missing.verdict == UNDECIDED
    assert "1 not measured" in missing.measured
    assert every("c", "w", [], 0.99).verdict == UNDECIDED
    assert every("c", "w", [math.nan], 0.99).verdict == UNDECIDED
    assert [stated("c", "w", "m", v).verdict for v in (True, False, None)] == [HOLDS, FAILS, UNDECIDED]


def test_page(tmp_path: Path) -> None:
    claims.write([Claim("a | b", "Fig. 1", "3", HOLDS)], {"title": "T", "runs": 4}, tmp_path)
    found = json.loads((tmp_path / "claims.json").read_text())
    assert found["claims"] == [{"claim": "a | b", "where": "Fig. 1", "measured": "3", "verdict": HOLDS}]
    page = (tmp_path / "claims.md").read_text()
    assert page.startswith("# T\n")
    assert r"| a \| b | Fig. 1 | 3 | **holds** |" in page


def fabricated(edge: dict[float, float]) -> pd.DataFrame:
    """Gaps of GD, CD and the diagonal net, dense and dense; ``edge`` of CD over GD for each eps."""
    rng = np.random.default_rng(0)
    rows = []
    for eps, more in edge.items():
        for m in (16, 32, 64):
            for seed in range(4):
                noise = 0.002 * rng.standard_normal(3)
                for name, gap in (("gd", 0.5 + more), ("cd", 0.5), ("diag", 0.5)):
                    row = {"algorithm": name, "d": 32, "k_w": 32, "k_x": 32, "m": m, "eps": eps, "seed": seed}
                    rows.append({**row, "gap": gap + noise[len(rows) % 3], "train_robust_acc": 1.0})
    return pd.DataFrame(rows)


def test_fig1_is_judged_from_its_table() -> None:
    columns = ["sweep", "optimizer", "model", "train_robust_acc", "data.k_x", "data.d", "data.m", "status"]
    empty = pd.DataFrame({name: pd.Series(dtype=object) for name in columns})

    def verdicts(edge: dict[float, float]) -> dict[str, str]:
        return {c.claim.partition(": ")[2]: c.verdict for c in gaps.claims(fabricated(edge), empty) if ": " in c.claim}

    erm, robust = "in ERM GD and CD generalize similarly", "in robust ERM CD has the smaller robust gap"
    paper = verdicts({0.0: 0.01, 0.25: 0.25})
    assert (paper[erm], paper[robust]) == (HOLDS, HOLDS)
    assert paper["the difference exceeds 20 % in the case of few training data"] == HOLDS
    other = verdicts({0.0: 0.2, 0.25: -0.1})
    assert (other[erm], other[robust]) == (FAILS, FAILS)
    assert other["the difference exceeds 20 % in the case of few training data"] == FAILS


def test_average_over_m_is_the_trapezoid_rule() -> None:
    index = pd.MultiIndex.from_product([[0, 1], [64, 128, 1024]], names=["seed", "m"])
    found = algorithms.over_m(pd.Series([1.0, 3.0, 5.0, 2.0, 2.0, 2.0], index))
    assert found.tolist() == pytest.approx([np.trapezoid([1, 3, 5], [64, 128, 1024]) / 960, 2.0])


def test_the_bound_in_the_papers_numbers() -> None:
    """Prop. 3.2 by hand at d = 8, m = 100, eps = 0.1, p = inf."""
    tail = 3 * math.sqrt(math.log(40) / 200)
    one = proposition(x_size=2.0, w_size=3.0, spread=1.0, r=1, m=100, d=8, eps=0.1, factor=0.5)
    assert one == pytest.approx(0.05 * (2 * 3 * math.sqrt(2 * math.log(16)) + 0.3) + tail)
    two = proposition(x_size=2.0, w_size=3.0, spread=math.sqrt(8), r=2, m=100, d=8, eps=0.1, factor=2.0)
    assert two == pytest.approx(0.2 * (6 + 0.3 * math.sqrt(8)) + tail)


def _reached(w: np.ndarray, v: np.ndarray, c: float, r: int) -> float:
    return -float(w @ v - c * np.abs(w).sum()) / float(np.linalg.norm(w, r))


@pytest.mark.parametrize("r", [1, 2])
def test_complexities_against_a_solver(r: int) -> None:
    """The closed form of ``sup <w, v> - c ||w||_1 over ||w||_r <= 1``, c of either sign, by search."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    v = rng.standard_normal(3)
    for c in (-0.3, 0.2, 0.7):
        best = 0.0
        for _ in range(60):
            start = rng.standard_normal(3)
            found = minimize(_reached, start, (v, c, r), "Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
            best = max(best, -float(found.fun))
        order = np.inf if r == 1 else 2
        assert float(np.linalg.norm(np.maximum(np.abs(v) - c, 0), order)) == pytest.approx(best, rel=1e-4)
    x, y = rng.standard_normal((20, 5)), rng.choice([-1.0, 1.0], 20)
    clean, robust = complexities(x, y, r, 0.3)
    assert robust >= clean > 0
    assert (robust > 1.01 * clean) == (r == 2)  # per l_1 norm only what is cut off at 0 is added
    assert complexities(x, y, r, 0.0) == (clean, clean)


def test_a_draw_without_all_settings_has_no_average() -> None:
    """The mean over others would be another quantity; here it would turn the verdict round."""
    index = pd.MultiIndex.from_product([[1, 2], [0, 1, 2]], names=["k", "seed"])
    whole = pd.Series([0.1, 0.1, 0.1, -0.5, -0.5, -0.5], index)
    assert claims.by_draw(whole).tolist() == pytest.approx([-0.2] * 3)
    for lacking in (whole.where(whole.index != (2, 0)), whole.drop((2, 0))):
        found = claims.by_draw(lacking)
        assert found.isna().tolist() == [True, False, False]
        assert above("", "", found).verdict == UNDECIDED


def test_a_size_that_no_draw_of_one_algorithm_has_leaves_no_average() -> None:
    rows = [
        {"algorithm": name, "k_w": 8, "k_x": 8, "eps": 0.25, "m": m, "seed": seed, "gap": gap}
        for seed in range(3)
        for m, gap in ((64, 0.1), (128, -0.5))
        for name in ("gd", "cd")
    ]
    table = pd.DataFrame(rows)
    table.loc[table["algorithm"] == "cd", "gap"] = 0.0
    assert algorithms.per_draw(algorithms.difference(table, "gd", "cd"), 0.25).tolist() == pytest.approx([-0.2] * 3)
    left = table[(table["algorithm"] == "gd") | (table["m"] == 64)]
    values = algorithms.difference(left, "gd", "cd")
    assert algorithms.per_draw(values, 0.25).isna().all()
    assert algorithms.over_m(values).isna().all()
    assert algorithms.furthest(values, 0.25)[1] == 64, "the other size was not compared"
    assert algorithms.difference(left, "gd", "diag").empty, "what was not trained is no gap"


def test_margins_are_no_multiples_of_negative_ones() -> None:
    own, other = pd.Series([0.1, 0.1, 0.1, 0.1]), pd.Series([0.05, -0.05, math.nan, 0.1])
    found = claims.excess(own, other)
    assert found.index.tolist() == [0, 1, 3], "a draw that lacks one of them is left out"
    assert found[0] == pytest.approx(1)
    assert math.isnan(found[1])
    assert above("", "", found).verdict == UNDECIDED


def test_nothing_holds_of_no_runs() -> None:
    none = pd.DataFrame({name: [] for name in ("optimizer", "model", "status", "data.k_x", "data.d", "data.m")})
    none = none.astype({"optimizer": str, "model": str, "status": str}).assign(train_robust_acc=[])
    assert {claim.verdict for claim in algorithms.reached(none)} == {UNDECIDED}


def test_a_draw_without_all_sizes_has_no_average() -> None:
    index = pd.MultiIndex.from_tuples([(0, 64), (0, 128), (1, 128)], names=["seed", "m"])
    found = algorithms.over_m(pd.Series([1.0, 3.0, 5.0], index))
    assert found[0] == 2.0
    assert math.isnan(found[1])


def test_similar_is_judged_where_the_difference_is_greatest() -> None:
    index = pd.MultiIndex.from_product([[0.0], [16, 32, 64], [0, 1]], names=["eps", "m", "seed"])
    values = pd.Series([0.01, 0.02, -0.2, -0.3, 0.1, 0.1], index)
    some, m = algorithms.furthest(values, 0.0)
    assert (m, some.tolist()) == (32, [-0.2, -0.3])
    assert algorithms.per_draw(values, 0.0).tolist() == pytest.approx([-0.03, -0.06])


def test_runs_that_stop_short_are_told() -> None:
    runs = pd.DataFrame(
        {
            "optimizer": ["cd", "cd", "gd", "oracle1"],
            "model": "linear",
            "data.m": [64, 32, 64, 64],
            "data.d": 32,
            "data.k_x": [4, 4, 32, 4],
            "train_robust_acc": [0.9, 1.0, 1.0, 0.5],
            "status": ["max_steps", "converged", "converged", "converged"],
        }
    )
    robust, stopped = algorithms.reached(runs)
    assert robust.verdict == HOLDS  # sparse points at m = 2 d are excepted
    assert stopped.verdict == FAILS
    assert "1 of 3 runs stop at the last step instead (cd at m = 64: 1)" in stopped.measured
    runs.loc[1, "train_robust_acc"] = 0.99
    assert algorithms.reached(runs)[0].verdict == FAILS
