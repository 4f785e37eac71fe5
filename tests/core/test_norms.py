from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from robust_erm.core.errors import ConfigError
from robust_erm.core.norms import Norm, project_simplex

PS = [1.0, 1.3, 1.5, 2.0, 3.0, 7.0, math.inf]
vectors = arrays(np.float64, st.integers(1, 7), elements=st.floats(-1e3, 1e3, allow_subnormal=False))


def close(a: torch.Tensor, b: torch.Tensor | float, tol: float = 1e-10) -> bool:
    return bool(torch.allclose(a, torch.as_tensor(b, dtype=a.dtype), rtol=tol, atol=tol))


@pytest.mark.parametrize("p", PS)
def test_value_is_numpys(p: float) -> None:
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert close(Norm(p).value(x), torch.from_numpy(np.linalg.norm(x.numpy(), ord=p, axis=-1)), 1e-14)


@pytest.mark.parametrize("p", PS)
def test_value_does_not_overflow_or_underflow(p: float) -> None:
    for size in (1e200, 1e-200):
        x = torch.full((4,), size, dtype=torch.float64)
        assert close(Norm(p).value(x) / size, 4 ** (1 / p), 1e-12)
    assert Norm(p).value(torch.zeros(3)) == 0


@pytest.mark.parametrize("p", PS)
@given(g=vectors)
@settings(max_examples=40, deadline=None)
def test_steepest_reaches_the_dual_norm(p: float, g: np.ndarray) -> None:
    """<u, g> = ||g||_{p*} with ||u||_p <= 1: by Hoelder no direction does better."""
    norm, t = Norm(p), torch.from_numpy(g)
    u = norm.steepest(t)
    assert float(norm.value(u)) <= 1 + 1e-9
    assert close(u @ t, norm.dual.value(t), 1e-9)


@pytest.mark.parametrize("p", PS)
def test_steepest_against_brute_force(p: float) -> None:
    """No point of a fine grid of the unit sphere (d = 3) does better, and one comes close."""
    g = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    grid = torch.linspace(-1, 1, 41, dtype=torch.float64)
    points = torch.tensor(list(itertools.product(grid.tolist(), repeat=3)), dtype=torch.float64)
    points = points[points.abs().amax(-1) > 0]
    sphere = points / Norm(p).value(points).unsqueeze(-1)
    best = float((sphere @ g).max())
    reached = float(Norm(p).steepest(g) @ g)
    assert best <= reached + 1e-12
    assert best >= 0.99 * reached


@pytest.mark.parametrize("p", PS)
def test_dual_of_dual(p: float) -> None:
    assert Norm(p).dual.dual.p == pytest.approx(p)


@pytest.mark.turns
@pytest.mark.parametrize("p", PS)
@given(x=vectors, radius=st.floats(0.0, 50.0))
@settings(max_examples=25, deadline=None)
def test_projection_is_the_nearest_point(p: float, x: np.ndarray, radius: float) -> None:
    """z is in the ball, and <x - z, v - z> <= 0 for every v of it: sup_v <x - z, v> = r ||x - z||_{p*}."""
    norm, t = Norm(p), torch.from_numpy(x)
    z = norm.project(t, radius)
    scale = 1 + float(t.abs().max())
    assert float(norm.value(z)) <= radius + 1e-9 * scale
    rest = t - z
    assert radius * float(norm.dual.value(rest)) <= float(rest @ z) + 1e-7 * scale**2


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_projection_against_an_independent_solver(p: float) -> None:
    x = np.array([1.3, -0.4, 2.2, 0.05])
    solved = minimize(
        lambda z: np.sum((z - x) ** 2),
        x / 4,
        jac=lambda z: 2 * (z - x),
        constraints={"type": "ineq", "fun": lambda z: 1 - np.sum(np.abs(z) ** p)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.allclose(Norm(p).project(torch.from_numpy(x), 1.0).numpy(), solved.x, atol=1e-5)


def test_l1_projection_is_not_radial_scaling() -> None:
    x = torch.tensor([3.0, 1.0])
    assert torch.equal(Norm(1.0).project(x, 2.0), torch.tensor([2.0, 0.0]))


def test_simplex_projection_on_a_face() -> None:
    v = torch.tensor([0.5, -math.inf, 0.9, -math.inf])
    assert close(project_simplex(v), torch.tensor([0.3, 0.0, 0.7, 0.0]), 1e-6)


def test_projection_maps_over_runs() -> None:
    """Under vmap, with one radius a run, as the attacks use it."""
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    radius = torch.tensor([0.0, 0.5, 10.0], dtype=torch.float64)
    for p in PS:
        together = torch.func.vmap(Norm(p).project)(x, radius)
        alone = torch.stack([Norm(p).project(x[k], radius[k]) for k in range(3)])
        assert torch.equal(together, alone)


@pytest.mark.parametrize("p", [0.5, 0.0, -1.0, math.nan])
def test_not_a_norm(p: float) -> None:
    with pytest.raises(ConfigError, match="1 <= p <= inf"):
        Norm(p)


def brute_subgradient(p: float, w: np.ndarray, g: np.ndarray, c: float) -> float:
    """min ||g + c s||_2 over s with ||s||_{p*} <= 1 and <s, w> = ||w||_p, by SLSQP from many starts."""
    dual = Norm(p).dual
    rng = np.random.default_rng(0)
    size = float(Norm(p).value(torch.from_numpy(w)))
    best = math.inf
    if dual.p == math.inf:
        ball = [{"type": "ineq", "fun": lambda s: 1 - s}, {"type": "ineq", "fun": lambda s: 1 + s}]
    elif dual.p == 1:
        signs = np.array(list(itertools.product([-1, 1], repeat=len(w))))
        ball = [{"type": "ineq", "fun": lambda s: 1 - signs @ s}]
    else:
        ball = [{"type": "ineq", "fun": lambda s: 1 - np.sum(s**2)}]
    face = [{"type": "eq", "fun": lambda s: s @ w - size}] if size > 0 else []
    for _ in range(5):
        found = minimize(
            lambda s: np.sum((g + c * s) ** 2), rng.standard_normal(len(w)) / 4, constraints=[*ball, *face]
        )
        if found.success:
            best = min(best, float(np.sqrt(found.fun)))
    return best


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("w", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, -2.0, 1.0], [1.0, -0.5, 0.0]])
@pytest.mark.parametrize("c", [0.1, 1.0, 5.0])
def test_min_subgradient_is_the_least(p: float, w: list[float], c: float) -> None:
    g = np.array([0.7, -0.4, 0.2])
    t = torch.tensor(w, dtype=torch.float64)
    s = Norm(p).min_subgradient(t, torch.from_numpy(g), torch.tensor(c, dtype=torch.float64))
    assert float(Norm(p).dual.value(s)) <= 1 + 1e-12
    assert float(s @ t) == pytest.approx(float(Norm(p).value(t)), abs=1e-12)
    reached = float(torch.linalg.vector_norm(torch.from_numpy(g) + c * s))
    assert reached == pytest.approx(brute_subgradient(p, np.array(w), g, c), abs=1e-5)


@pytest.mark.parametrize("p", [60.0, 100.0, 1000.0])
@pytest.mark.parametrize("radius", [0.0, 1e-6, 1e-4, 0.5])
def test_projection_for_large_exponents(p: float, radius: float) -> None:
    """Feasible, and close to the box that the ball is almost."""
    x = torch.tensor([1.0, 0.7, 0.2], dtype=torch.float64)
    z = Norm(p).project(x, radius)
    assert float(Norm(p).value(z)) <= radius * (1 + 1e-9)
    assert torch.allclose(z, x.clamp(max=radius), atol=0.2 * radius)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_simplex_projection_of_large_numbers(dtype: torch.dtype) -> None:
    assert project_simplex(torch.tensor([1e17, 1e17, 0.0], dtype=dtype)).tolist() == [0.5, 0.5, 0.0]
    assert Norm(1.0).project(torch.tensor([2e7, 0.0], dtype=dtype), 1.0).tolist() == [1.0, 0.0]


def test_soft_thresholded_gradients_are_exactly_zero() -> None:
    """Sign descent takes their sign: 1e-17 in place of 0 would move a weight that must stay."""
    g = torch.tensor([0.1, -0.3, 0.7, 1e-3]).double() / 3
    for c in (0.11, 0.25, 1 / 3):
        total = Norm(1.0).least_sum(torch.zeros(4).double(), g, torch.tensor(c).double())
        assert torch.equal(total == 0, g.abs() <= c)
    w = torch.tensor([0.0, 1.0, -1.0, 0.0]).double()
    c = torch.tensor(0.05).double()
    expected = g + c * Norm(1.0).min_subgradient(w, g, c)
    assert torch.allclose(Norm(1.0).least_sum(w, g, c), expected, atol=1e-16)
