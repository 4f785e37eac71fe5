"""The margin in the l_1 norm of the Fourier transform, by closed forms, its own certificate and a search."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robust_erm.core.errors import ConfigError
from robust_erm.core.norms import Norm
from robust_erm.oracles.fourier import fourier_max_margin, transform
from robust_erm.oracles.margin import max_margin


def points(m: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((m, d))
    signed: np.ndarray = z * np.sign(z @ rng.standard_normal(d))[:, None]
    return signed


@pytest.mark.parametrize("d", [1, 2, 7, 8])
def test_of_one_point_it_is_the_largest_modulus(d: int) -> None:
    """``max <z, w>`` over ``||F w||_1 <= 1`` is ``||F z||_inf``: reached by one frequency."""
    z = points(1, d)
    found = fourier_max_margin(z, 2.0, 0.0)
    assert found.value == pytest.approx(transform(z[0]).max(), rel=1e-8)
    assert np.linalg.norm(transform(z[0])) == pytest.approx(np.linalg.norm(z[0])), "unitary"


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize(("m", "d"), [(3, 8), (5, 9), (12, 32)])
def test_the_certificate_and_a_search(p: float, m: int, d: int) -> None:
    z, rng = points(m, d), np.random.default_rng(1)
    eps = max_margin(z, p).value / 2
    found = fourier_max_margin(z, p, eps)

    def margin(w: np.ndarray) -> float:
        return float((z @ w).min() - eps * np.linalg.norm(w, Norm(p).dual.p)) / float(transform(w).sum())

    assert transform(found.w).sum() == pytest.approx(1)
    assert found.value == pytest.approx(margin(found.w), rel=1e-12)
    assert found.lam.min() >= 0
    assert found.lam.sum() == pytest.approx(1)
    assert np.linalg.norm(found.delta, p) <= eps * (1 + 1e-12)
    assert found.upper == pytest.approx(transform(z.T @ found.lam - found.delta).max(), rel=1e-12)
    assert 0 <= found.gap < 1e-6
    near = [found.w + s * rng.standard_normal(d) for s in np.logspace(-6, -1, 300) * np.linalg.norm(found.w)]
    assert max(map(margin, near)) < found.upper


def test_it_is_blind_to_shifts_and_units() -> None:
    """A circular shift of all points turns phases only; the margin is in their units."""
    z = points(4, 9)
    found = fourier_max_margin(z, 2.0, 0.1)
    assert fourier_max_margin(np.roll(z, 4, axis=1), 2.0, 0.1).value == pytest.approx(found.value, rel=1e-6)
    assert fourier_max_margin(1e8 * z, 2.0, 1e7).value == pytest.approx(1e8 * found.value, rel=1e-6)


def test_bad_input() -> None:
    z = points(3, 6)
    for p, eps, key in ((0.5, 0.1, "p = 0.5"), (2.0, -1.0, "eps = -1.0")):
        with pytest.raises(ConfigError, match=key):
            fourier_max_margin(z, p, eps)
    with pytest.raises(ArithmeticError, match="not decided; it lies in"):
        fourier_max_margin(z, 2.0, 100.0)
    with pytest.raises(ArithmeticError, match="not decided"):
        fourier_max_margin(np.vstack([z, -z]), 2.0, 0.0)
