from __future__ import annotations

import math
import re
from itertools import product

import numpy as np
import pytest
from conftest import separable
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from robust_erm.core.errors import ConfigError
from robust_erm.oracles.margin import max_margin
from robust_erm.oracles.robust_margin import robust_max_margin

NORMS = [1.0, 1.5, 2.0, 3.0, math.inf]


def dual(p: float) -> float:
    return math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1)


def z_of(m: int, d: int, seed: int) -> np.ndarray:
    x, y = separable(m, d, seed)
    return x * y[:, None]


@pytest.mark.parametrize(("r", "p"), list(product(NORMS, NORMS)))
def test_certifies_itself(r: float, p: float) -> None:
    """w reaches ``value``, lam and delta are feasible, and ``upper`` is what they give."""
    z = z_of(24, 40, 1)
    for share in (0.0, 0.5, 0.99):
        eps = share * max_margin(z, p).value
        found = robust_max_margin(z, r, p, eps)
        assert np.linalg.norm(found.w, ord=r) == pytest.approx(1, rel=1e-12)
        reached = (z @ found.w).min() - eps * np.linalg.norm(found.w, ord=dual(p))
        assert reached == pytest.approx(found.value, rel=1e-12)
        assert found.lam.min() >= 0
        assert found.lam.sum() == pytest.approx(1, rel=1e-12)
        assert np.linalg.norm(found.delta, ord=p) <= eps * (1 + 1e-12)
        bound = np.linalg.norm(z.T @ found.lam - found.delta, ord=dual(r))
        assert bound == pytest.approx(found.upper, rel=1e-12)
        assert -1e-12 < found.gap < (1e-8 if {r, p} <= {1, 2, math.inf} else 1e-6)


@pytest.mark.parametrize("p", NORMS)
def test_in_the_threats_own_geometry_it_is_the_margin_less_eps(p: float) -> None:
    """tsilivis2024 Cor. 4.5, against the other solvers."""
    z = z_of(24, 40, 2)
    exact = max_margin(z, p)
    for share in (0.0, 0.3, 0.9):
        found = robust_max_margin(z, dual(p), p, share * exact.value)
        assert found.value == pytest.approx((1 - share) * exact.value, rel=1e-6)
        if 1 < p < math.inf:  # unique
            assert found.w == pytest.approx(exact.w, abs=1e-3)


def test_is_a_linear_program_of_another_solver() -> None:
    """r = p = inf: max t, <z_i, w> - eps sum(s) >= t, |w_j| <= min(s_j, 1), by HiGHS's simplex."""
    z = z_of(20, 30, 3)
    eps = 0.4 * max_margin(z, math.inf).value
    m, d = z.shape
    eye, zero = np.eye(d), np.zeros((d, 1))
    margin = np.hstack([-z, np.full((m, d), eps), np.ones((m, 1))])
    above = np.vstack([np.hstack([eye, -eye, zero]), np.hstack([-eye, -eye, zero])])
    bounds = [(-1, 1)] * d + [(0, None)] * d + [(None, None)]
    cost = np.r_[np.zeros(2 * d), -1.0]
    program = linprog(cost, A_ub=np.vstack([margin, above]), b_ub=np.zeros(m + 2 * d), bounds=bounds, method="highs-ds")
    assert robust_max_margin(z, math.inf, math.inf, eps).value == pytest.approx(-program.fun, rel=1e-8)


@pytest.mark.parametrize(("r", "p"), list(product([1.0, 2.0, 3.0, math.inf], [1.0, 2.0, math.inf])))
def test_no_direction_is_better(r: float, p: float) -> None:
    z = z_of(15, 20, 4)
    eps = 0.5 * max_margin(z, p).value
    found = robust_max_margin(z, r, p, eps)
    near = found.w + 0.1 * np.random.default_rng(0).standard_normal((2000, 20)) * np.abs(found.w).max()
    near /= np.linalg.norm(near, ord=r, axis=1, keepdims=True)
    reached = (near @ z.T).min(axis=1) - eps * np.linalg.norm(near, ord=dual(p), axis=1)
    assert reached.max() <= found.upper * (1 + 1e-12)


@pytest.mark.parametrize(("r", "p"), list(product([1.0, 2.0, 3.0, math.inf], NORMS)))
def test_beyond_the_margin_the_certificate_says_so(r: float, p: float) -> None:
    """lam alone proves that no w has a positive robust margin."""
    z = z_of(24, 40, 5)
    for points, eps in ((z, 1.05 * max_margin(z, p).value), (np.random.default_rng(0).standard_normal((60, 5)), 0.0)):
        found = robust_max_margin(points, r, p, eps)
        assert found.value == 0
        assert not found.w.any()
        assert found.lam.min() >= 0
        assert found.lam.sum() == pytest.approx(1, rel=1e-12)
        assert np.linalg.norm(points.T @ found.lam, ord=p) <= eps + 1e-9


@pytest.mark.parametrize("r", NORMS)
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@given(seed=st.integers(0, 1000), steps=st.integers(-3, 3))
@settings(max_examples=8, deadline=None)
def test_at_the_margin_rounding_gives_no_separator(r: float, p: float, seed: int, steps: int) -> None:
    """eps at what is known of eps*, or some units in the last place beside it: none, or "not decided"."""
    z = z_of(10, 20, seed)
    exact = max_margin(z, p)
    for at in (exact.value, exact.upper):
        eps = at + steps * math.ulp(at)
        try:
            found = robust_max_margin(z, r, p, eps)
        except ArithmeticError:
            continue
        assert found.value == 0
        assert not found.w.any()


@pytest.mark.parametrize(("r", "p"), list(product([1.0, 2.0, 3.0, math.inf], [1.0, 2.0, math.inf])))
def test_next_to_the_margin_a_separator_is_proved(r: float, p: float) -> None:
    """On either side of eps*, as near as its own certificate allows: which side it is, is said."""
    for seed, share in product(range(3), (1e-3, 1e-6)):
        z = z_of(10, 20, seed)
        exact = max_margin(z, p)
        eps = exact.value * (1 - share)
        assert robust_max_margin(z, r, p, exact.upper * (1 + share)).value == 0
        try:
            found = robust_max_margin(z, r, p, eps)
        except ArithmeticError as error:  # 1e-8 of 1e-6 is near roundoff
            low, high = (float(x) for x in re.findall(r"\[(.*), (.*)\]", str(error))[0])
            assert share == 1e-6
            assert 0 < low <= high < 10 * exact.value * share
            continue
        reached = (z @ found.w).min() - eps * np.linalg.norm(found.w, ord=dual(p))
        assert 0 < found.value == pytest.approx(reached, rel=1e-6)


def test_scale_and_bad_input() -> None:
    z = z_of(15, 20, 6)
    eps = 0.5 * max_margin(z, math.inf).value
    one = robust_max_margin(z, 2, math.inf, eps)
    for factor in (1e-6, 1e6):
        scaled = robust_max_margin(factor * z, 2, math.inf, factor * eps)
        assert scaled.value == pytest.approx(factor * one.value, rel=1e-7)
    for r, p, radius in ((0.5, 2, 0.1), (2, 0.9, 0.1), (2, 2, -0.1)):
        with pytest.raises(ConfigError):
            robust_max_margin(z, r, p, radius)
