from __future__ import annotations

import math
import re

import numpy as np
import pytest
from conftest import separable
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import multivariate_normal
from sklearn.svm import SVC

from robust_erm.core.norms import Norm
from robust_erm.oracles.margin import max_margin, norm
from robust_erm.oracles.risk import gaussian_accuracy

PS = [1.0, 1.5, 2.0, 3.0, math.inf]


def z_of(m: int, d: int, seed: int) -> np.ndarray:
    x, y = separable(m, d, seed)
    return x * y[:, None]


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize(("m", "d"), [(5, 40), (40, 20), (30, 30)])
def test_margin_certifies_itself(p: float, m: int, d: int) -> None:
    """The separator reaches ``value``; no other can pass ``upper``, and the two agree."""
    z = z_of(m, d, 1)
    found = max_margin(z, p)
    q = 1 / (1 - 1 / p) if p > 1 else math.inf
    assert np.linalg.norm(found.w, ord=q) == pytest.approx(1, rel=1e-12)
    assert (z @ found.w).min() == pytest.approx(found.value, rel=1e-12)
    assert found.gap < (1e-8 if p in (1, 2, math.inf) else 1e-6)
    assert found.gap > -1e-12


def test_l2_margin_is_the_hard_margin_svm() -> None:
    """scikit-learn's SVC fits an intercept; on data mirrored through 0 it is 0."""
    z = z_of(25, 30, 2)
    svc = SVC(kernel="linear", C=1e10, tol=1e-10).fit(np.vstack([z, -z]), np.r_[np.ones(25), -np.ones(25)])
    assert max_margin(z, 2).value == pytest.approx(1 / np.linalg.norm(svc.coef_), rel=1e-5)


def test_linf_margin_is_the_primal_program() -> None:
    z = z_of(25, 30, 3)
    primal = linprog(np.ones(60), A_ub=np.hstack([-z, z]), b_ub=-np.ones(25), method="highs-ds")
    assert max_margin(z, math.inf).value == pytest.approx(1 / primal.fun, rel=1e-9)


@pytest.mark.parametrize("p", PS)
def test_not_separable(p: float) -> None:
    z = np.random.default_rng(0).standard_normal((50, 5))
    assert max_margin(z, p).value == 0
    assert max_margin(np.vstack([z[:1], -z[:1]]), p).value == 0
    assert max_margin(np.zeros((3, 4)), p).value == 0


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_margin_scales_with_the_data_and_ignores_repeats(p: float, scale: float, seed: int) -> None:
    z = z_of(10, 15, seed)
    value = max_margin(z, p).value
    assert max_margin(scale * z, p).value == pytest.approx(scale * value, rel=1e-8)
    assert max_margin(np.vstack([z, z[:4]]), p).value == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
@given(seed=st.integers(0, 1000), span=st.floats(0, 30), at=st.floats(-150, 150))
@settings(max_examples=100, deadline=None)
def test_points_of_any_size_decide_nothing_by_their_largest(p: float, seed: int, span: float, at: float) -> None:
    """Each point in its own power of ten, 30 apart at most: the margin, or that it is not decided; never "none".

    A separator is known by construction: so is a margin that is above what it reaches.
    """
    random = np.random.default_rng(seed)
    m, d = random.integers(1, 12), random.integers(1, 8)
    w = random.standard_normal(d)
    z = random.standard_normal((m, d))
    z *= np.sign(z @ w)[:, None] * 10.0 ** (at + span * random.uniform(-0.5, 0.5, (m, 1)))
    known = float((z @ w).min()) / norm(w, Norm(p).dual.p)
    smallest = min(norm(row, p) for row in z)
    try:
        found = max_margin(z, p)
    except ArithmeticError as error:
        low, high = (float(x) for x in re.findall(r"\[(.*), (.*)\]", str(error))[0])
        assert low <= known * (1 + 1e-5) or low <= smallest
        assert known * (1 - 1e-5) <= high
        return
    assert known * (1 - 1e-9) <= found.upper <= smallest * (1 + 1e-9), "no point is nearer to 0 than the margin"
    assert found.value > 0 or known < 1e-11 * smallest
    assert found.gap < 1e-6


def test_one_large_point_beside_small_ones() -> None:
    """1 and 1e10 on an axis: the margin is 1, whatever the large one is; a point at 0 leaves none."""
    for p in PS:
        for large in (1.0, 1e3, 1e10, 1e100):
            assert max_margin(np.array([[1.0, 0.0], [large, 0.0]]), p).value == pytest.approx(1, rel=1e-12)
        assert max_margin(np.array([[1.0, 0.0], [0.0, 0.0]]), p).value == 0
        tilted = max_margin(np.array([[1.0, 1e-9], [-1.0, 1e-9]]), p)
        assert tilted.value == pytest.approx(1e-9, rel=1e-6)


def test_margin_of_one_point() -> None:
    """eps* of a single point is its own l_p norm."""
    z = np.array([[3.0, -4.0]])
    for p in PS:
        assert max_margin(z, p).value == pytest.approx(np.linalg.norm(z[0], ord=p), rel=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3])
def test_gaussian_accuracy_against_sampling(p: float, eps: float) -> None:
    rng = np.random.default_rng(0)
    w_star, noise = rng.standard_normal(20), rng.standard_normal(20)
    for w in (w_star + noise, noise, -w_star + 0.3 * noise):
        x = rng.standard_normal((400_000, 20))
        q = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[p]
        sampled = np.mean(np.sign(x @ w_star) * (x @ w) - eps * np.linalg.norm(w, ord=q) > 0)
        assert gaussian_accuracy(w, w_star, eps, p) == pytest.approx(sampled, abs=4 * 0.5 / math.sqrt(400_000))


def test_gaussian_accuracy_against_the_bivariate_normal() -> None:
    """2 P(U > 0, V > t), U and V standard normal with correlation rho (tsilivis2024's setting)."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        w, w_star, eps = rng.standard_normal(8), rng.standard_normal(8), rng.uniform(0, 0.5)
        rho = w @ w_star / np.linalg.norm(w) / np.linalg.norm(w_star)
        t = eps * np.abs(w).sum() / np.linalg.norm(w)
        exact = 2 * multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([0, -t])
        assert gaussian_accuracy(w, w_star, eps, math.inf) == pytest.approx(exact, abs=1e-7)


def test_gaussian_accuracy_at_the_ends() -> None:
    w = np.array([1.0, -2.0, 0.5])
    assert gaussian_accuracy(w, 3 * w, 0.0, 2) == 1
    assert gaussian_accuracy(-w, w, 0.0, 2) == pytest.approx(0)
    assert gaussian_accuracy(np.zeros(3), w, 0.0, 2) == 0
    assert math.isnan(gaussian_accuracy(w * np.nan, w, 0.0, 2))
    orthogonal = np.array([2.0, 1.0, 0.0])
    assert gaussian_accuracy(orthogonal, w, 0.0, 2) == pytest.approx(0.5)
    rho = w @ np.array([1.0, 0, 0]) / np.linalg.norm(w)
    assert gaussian_accuracy(np.array([1.0, 0, 0]), w, 0.0, 2) == pytest.approx(1 - math.acos(rho) / math.pi)


@pytest.mark.parametrize("p", PS)
def test_a_point_and_its_opposite(p: float) -> None:
    """The dual optimum is exactly 0: no direction is left to try."""
    assert max_margin(np.array([[1.0, 2.0], [-1.0, -2.0]]), p).value == 0
