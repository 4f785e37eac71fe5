"""The penalised robust hinge loss against its own duality gap, a search, and its limit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from robust_erm.oracles.margin import norm
from robust_erm.oracles.penalised import largest_penalty, last_direction, penalised
from robust_erm.oracles.robust_margin import robust_max_margin

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((9, 5)) + np.array([1.0, 0.5, 0, 0, 0])


@pytest.mark.parametrize("r", [1.0, 1.5, 2.0, np.inf])
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_no_search_finds_less(r: float, eps: float) -> None:
    lam = 0.3 * largest_penalty(Z, r, eps)
    found = penalised(Z, r, eps, lam)
    assert 0 <= found.gap + 1e-9 < 1e-6

    def value(w: np.ndarray) -> float:
        return float(np.maximum(0, 1 - Z @ w + eps * norm(w, 1)).mean() + lam * norm(w, r))

    assert found.value == pytest.approx(value(found.w), abs=1e-12)
    for start in (found.w, RNG.standard_normal(5)):
        searched = minimize(
            value, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-9, "fatol": 1e-12}
        )
        assert searched.fun >= found.lower - 1e-9


@pytest.mark.parametrize("r", [1.0, 2.0])
def test_from_the_largest_penalty_on_it_is_zero(r: float) -> None:
    most = largest_penalty(Z, r, 0.1)
    assert norm(penalised(Z, r, 0.1, 1.001 * most).w, 2) < 1e-6
    near = penalised(Z, r, 0.1, 0.9999 * most).w
    assert norm(near, 2) > 1e-3
    assert near / norm(near, r) == pytest.approx(last_direction(Z, r, 0.1), abs=1e-4)


@pytest.mark.parametrize("r", [1.0, 2.0])
def test_its_limit_is_the_robust_max_margin_separator(r: float) -> None:
    z = np.abs(RNG.standard_normal((4, 8)))
    limit, found = robust_max_margin(z, r, np.inf, 0.05), penalised(z, r, 0.05, 1e-4)
    margin = (z @ found.w).min() - 0.05 * norm(found.w, 1)
    assert margin / norm(found.w, r) == pytest.approx(limit.value, rel=1e-5)
