"""What the experiments on deep linear networks are held against, by hand or from another solver."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from robust_erm.core.streams import numpy_stream
from robust_erm.oracles.margin import max_margin
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.lyu2022 import geometries, interpolation, rates
from robust_erm.papers.lyu2022.separators import apart, separators


def test_two_points_on_the_axes() -> None:
    """z = (1, 0), (0, a): the l_2 separator has equal margins, w = (a, 1); an l_inf threat keeps w_1 - a w_2 = 0."""
    a = 0.5
    z = np.diag([1.0, a])
    found = separators(z, math.inf, 0.2)
    line = np.array([a, 1.0]) / math.hypot(a, 1)
    assert found.plain == pytest.approx(line)
    assert found.robust == pytest.approx(line, abs=1e-6)
    assert found.value == pytest.approx((a - 0.2 * (1 + a)) / math.hypot(a, 1), rel=1e-7)
    assert found.threat == pytest.approx(line)


def test_a_threat_that_takes_a_coordinate() -> None:
    """z = (1, b) twice over, signs of b both ways: w = (1, 0) whatever the norms."""
    found = separators(np.array([[1.0, 0.7], [1.0, -0.7]]), math.inf, 0.5)
    for w in (found.robust, found.plain, found.threat):
        assert w == pytest.approx([1, 0], abs=1e-6)
    assert found.value == pytest.approx(0.5)


def test_one_point_under_an_l_inf_threat() -> None:
    """The best w for one point z is that of least ||z - delta||_2: z with each entry shrunk by eps."""
    z, eps = np.array([[0.9, 0.1, -0.4]]), 0.2
    shrunk = np.sign(z[0]) * np.maximum(np.abs(z[0]) - eps, 0)
    found = separators(z, math.inf, eps)
    assert found.robust == pytest.approx(shrunk / np.linalg.norm(shrunk), abs=1e-6)
    assert found.value == pytest.approx(np.linalg.norm(shrunk), rel=1e-7)


@pytest.mark.parametrize("p", [1.0, 3.0, math.inf])
def test_the_robust_separator_by_another_solver(p: float) -> None:
    """Sequential quadratic programming, from w = u + v with u, v >= 0 where the norm has kinks."""
    rng = numpy_stream(3, "separators")
    z = rng.standard_normal((4, 5)) + np.array([2.0, 0, 0, 0, 0])
    eps = 0.5 * max_margin(z, p).value
    found = separators(z, p, eps)
    dual = {1.0: math.inf, 3.0: 1.5, math.inf: 1.0}[p]

    def worst(v: np.ndarray) -> np.ndarray:
        return np.asarray(z @ (v[:5] - v[5:10]) - eps * v[10] - 1)

    def norm(v: np.ndarray) -> np.ndarray:  # v_10 is at least the dual norm of w
        size = v[:10].reshape(2, 5).sum(0)
        if dual == math.inf:
            return np.asarray(v[10] - size)
        return np.asarray([v[10] - (size**dual).sum() ** (1 / dual)])

    start = np.r_[np.full(10, 0.5), 20.0]
    start[0] = 5
    best = minimize(
        lambda v: float(((v[:5] - v[5:10]) ** 2).sum()),
        start,
        bounds=[(1e-12, None)] * 11,
        constraints=[{"type": "ineq", "fun": worst}, {"type": "ineq", "fun": norm}],
        method="SLSQP",
        options={"maxiter": 2000, "ftol": 1e-14},
    )
    w = best.x[:5] - best.x[5:10]
    assert found.value == pytest.approx(1 / np.linalg.norm(w), rel=1e-5)
    assert float(apart(w, found.robust)) < 1e-6


def test_one_less_cosine() -> None:
    w = np.array([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [1.0, 1e-9], [0.0, 0.0]])
    found = apart(w, np.array([3.0, 0.0]))
    assert found[:3] == pytest.approx([0, 1 - math.sqrt(0.5), 2])
    assert found[3] == pytest.approx(5e-19, rel=1e-6), "where 1 - cos itself is rounding"
    assert math.isnan(found[4])


def curve(gap: np.ndarray, steps: np.ndarray, seed: int, eps: float = 0.0) -> pd.DataFrame:
    loss = -np.log(steps.astype(float))
    each = {"tuned": False, "eps": eps, "seed": seed, "step": steps, "log_loss": loss, "margin": 1.0, "gap": gap}
    return pd.DataFrame({**each, "away": gap, "last": steps == steps.max()})


def test_which_law_fits() -> None:
    steps = np.unique(np.logspace(1, 5, 41).astype(int))
    t = np.log(steps.astype(float))
    both = pd.concat([curve(2 / t, steps, 0), curve(steps**-0.5, steps, 1), curve(2 / t[:15], steps[:15], 2)])
    found = rates.fits(both).set_index("seed")
    assert found.loc[0, "log"] == pytest.approx(-1)
    assert found.loc[0, "log_rest"] == pytest.approx(0, abs=1e-9)
    assert found.loc[0, "power_rest"] > 0.01
    assert found.loc[1, "power"] == pytest.approx(-0.5)
    assert found.loc[1, "power_rest"] == pytest.approx(0, abs=1e-9)
    assert found.loc[1, "final"] == pytest.approx(-0.5)
    assert found.loc[1, "robust_loss"] < -1
    assert math.isnan(found.loc[2, "power"]), "fewer than two decades"


@pytest.mark.parametrize(("exponent", "verdict"), [(-0.6, HOLDS), (-0.4, FAILS)])
def test_the_rate_can_fail(exponent: float, verdict: str) -> None:
    """Runs whose eps is chosen for T."""
    steps = np.unique(np.logspace(1, 5, 41).astype(int))
    ends = [
        {"tuned": True, "last": True, "eps": 1 - 20 / math.sqrt(t), "seed": seed, "step": t, "log_loss": 0.0,
         "margin": 1.0, "gap": (1 + 0.01 * seed) * t**exponent, "away": t**exponent}
        for seed in range(3)
        for t in (1_000, 10_000, 100_000)
    ]  # fmt: skip
    table = pd.concat([pd.DataFrame(ends), *(curve(3 / np.log(steps), steps, seed) for seed in range(3))])
    found = {claim.claim: claim.verdict for claim in rates.claims(table, pd.DataFrame())}
    assert found["gap at step T falls like 1 / sqrt(T) or faster, without logarithms, eps chosen for T"] == verdict
    assert found["Clean training: a power of log T fits the gap better than a power of T"] == HOLDS
    few = pd.concat([pd.DataFrame(ends)[lambda f: f["step"] < 20_000], table[~table["tuned"]]])
    found = {claim.claim: claim.verdict for claim in rates.claims(few, pd.DataFrame())}
    assert found["gap at step T falls like 1 / sqrt(T) or faster, without logarithms, eps chosen for T"] == UNDECIDED


def test_the_greatest_margins_by_norm() -> None:
    """One point: over ||w||_r, of (z - delta) the dual norm, delta of l_2 length eps along it where r = 2."""
    z = np.array([[3.0, 4.0]])
    found = geometries.best(z, 2, 1.0)
    assert found["l2"] == pytest.approx(4)
    angle = np.linspace(0, math.pi / 2, 100_001)
    w = np.stack([np.cos(angle), np.sin(angle)], 1)
    margin = w @ z[0] - 1
    assert found["l1"] == pytest.approx((margin / w.sum(1)).max(), rel=1e-6)
    assert found["linf"] == pytest.approx((margin / w.max(1)).max(), rel=1e-6)


def test_a_path_that_turns_back_is_seen() -> None:
    each = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 1], "eps": [0.1, 0.5, 0.9] * 2, "oracle_plain": [0, 1, 2, 0, 2, 1.5]})
    assert list(interpolation._rises(each, "oracle_plain")) == [1, -0.5]
