"""How far points of several classes may move and still be separated: two classes, a search, and both sides' proofs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from robust_erm.core.errors import ConfigError
from robust_erm.core.norms import Norm
from robust_erm.oracles.classes import ClassMargin, max_margin_of_classes
from robust_erm.oracles.margin import max_margin
from robust_erm.store.config import Run
from robust_erm.training.problem import draw, exact_margin, radii


def points(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(seed).standard_normal((n, d)), np.arange(n) % classes


def radius(x: np.ndarray, y: np.ndarray, w: np.ndarray, p: float) -> float:
    """By its definition."""
    each = [
        (w[y[i]] - w[c]) @ x[i] / np.linalg.norm(w[y[i]] - w[c], Norm(p).dual.p)
        for i in range(len(x))
        for c in range(len(w))
        if c != y[i]
    ]
    return float(min(each))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_two_classes_have_the_margin_of_signed_points(p: float) -> None:
    x, y = points(8, 12, 2)
    signed = x * np.where(y == 1, 1.0, -1.0)[:, None]
    found = max_margin_of_classes(x, y, p)
    assert found.value == pytest.approx(max_margin(signed, p).value, rel=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize(("n", "d", "classes"), [(6, 6, 3), (16, 12, 4), (5, 3, 5)])
def test_its_w_reaches_it_and_no_other_does_better(p: float, n: int, d: int, classes: int) -> None:
    x, y = points(n, d, classes)
    found = max_margin_of_classes(x, y, p)
    if found.value == 0:
        assert found.upper < 1e-8
        return
    assert found.value == pytest.approx(radius(x, y, found.w, p), rel=1e-9)
    assert 0 <= found.gap < 1e-3
    rng = np.random.default_rng(1)
    near = [found.w + s * rng.standard_normal(found.w.shape) for s in np.logspace(-6, 0, 200) * np.abs(found.w).max()]
    assert max(radius(x, y, w, p) for w in near) <= found.upper


def test_units_shifts_and_order_are_of_no_matter() -> None:
    x, y = points(9, 7, 3)
    found = max_margin_of_classes(x, y, 2.0)
    order = np.random.default_rng(0).permutation(9)
    for other in (
        max_margin_of_classes(1e9 * x, y, 2.0).value / 1e9,
        max_margin_of_classes(x[order], y[order], 2.0).value,
        max_margin_of_classes(x, (y + 1) % 3, 2.0).value,
    ):
        assert other == pytest.approx(found.value, rel=1e-4)


def test_a_class_without_points_counts() -> None:
    """W keeps the points from it too, which cannot let them move farther."""
    x, y = points(6, 4, 3)
    with_it, without = (max_margin_of_classes(x, y, 2.0, classes) for classes in (4, None))
    assert with_it.w.shape == (4, 4)
    assert 0 < with_it.value <= without.upper
    assert with_it.value == pytest.approx(radius(x, y, with_it.w, 2.0), rel=1e-9)


def test_what_cannot_be_separated_has_none() -> None:
    x, y = points(6, 4, 3)
    assert max_margin_of_classes(np.vstack([x, x]), np.concatenate([y, (y + 1) % 3]), 2.0).value == 0
    assert ClassMargin(0.0, np.zeros((3, 4)), 0.0).gap == 0


def test_bad_input() -> None:
    x, y = points(6, 4, 3)
    with pytest.raises(ConfigError, match=r"p = 0\.5"):
        max_margin_of_classes(x, y, 0.5)
    with pytest.raises(ArithmeticError, match="more than 1,000,000; use eps_unit=absolute"):
        max_margin_of_classes(np.zeros((1000, 400)), np.arange(1000) % 10, 2.0)


def test_radii_count_in_it(resolved: Callable[..., Run]) -> None:
    """Of digits of three classes, at half of it a linear model can still be robust on all points."""
    line = ["data=digits", "data.classes=[0,1,2]", "data.m=12", "model=linear", "objective=cross_entropy", "attack=pgd"]
    run = resolved(*line, "eps_unit=margin", "eps=0.5", "p=inf")
    data = draw(run.data, run.seed)
    found = max_margin_of_classes(data.x_train, data.y_train.astype(int), math.inf)
    assert radii(run)[0] == 0.5 * exact_margin(run.data, run.seed, math.inf) == 0.5 * found.value > 0
