"""Accumulators in the log domain, against their formulas on the gradients of L themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power

from robust_erm.accumulators.lion import TwoMeans
from robust_erm.accumulators.moments import Moments
from robust_erm.accumulators.momentum import Velocity
from robust_erm.accumulators.none import NoMemory
from robust_erm.accumulators.shampoo import Shampoo
from robust_erm.core.params import Layout
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp

P, LAYOUT = 11, Layout((("W", (2, 4)), ("b", (3,))))
ALL: list[Any] = [
    NoMemory(),
    Velocity(),
    Velocity(nesterov=True),
    Velocity(mean=True),
    TwoMeans(),
    Moments(),
    Moments(epsilon=0.0),
    Shampoo(),
]


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def plain(name: str, grads: list[torch.Tensor]) -> torch.Tensor:
    """What is given at the last of the gradients of L."""
    if name == "shampoo":
        return shampoo(grads)
    m, v = torch.zeros(P).double(), torch.zeros(P).double()
    out = m
    for g in grads:
        if name == "steepest":
            out = g
        elif name == "lion":
            out, m = 0.9 * m + 0.1 * g, 0.99 * m + 0.01 * g
        elif name == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        else:
            m = 0.9 * m + g
            out = {"momentum": m, "nesterov": g + 0.9 * m, "mean": 0.1 * m}[name]
    if name != "adam":
        return out
    t = len(grads)
    return (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def shampoo(grads: list[torch.Tensor]) -> torch.Tensor:
    """Of each layer, by means of all outer products and pseudo-inverses."""
    found = []
    for name, shape in LAYOUT.shapes:
        each = [LAYOUT.unflatten(g)[name].reshape(shape[0], -1).numpy() for g in grads]
        weights = [0.1 * 0.9**k for k in range(len(each))][::-1]
        sides = (sum(w * g @ g.T for w, g in zip(weights, each, strict=True)),)
        sides += (sum(w * g.T @ g for w, g in zip(weights, each, strict=True)),)
        left, right = (root(np.asarray(side)) for side in sides)
        found.append(torch.from_numpy(left @ each[-1] @ right).flatten())
    return torch.cat(found)


def root(side: Any) -> Any:
    return fractional_matrix_power(np.linalg.pinv(side, rcond=1e-13, hermitian=True), 0.25).real


def history(steps: int) -> tuple[list[torch.Tensor], list[float]]:
    """Gradients of log L, and log L, which falls and rises."""
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(P, dtype=torch.float64, generator=generator) for _ in range(steps)]
    return grads, [math.sin(t) - 0.3 * t for t in range(steps)]


@pytest.mark.parametrize("accumulator", [a for a in ALL if a != Moments(epsilon=0.0)], ids=lambda a: a.name)
def test_it_is_its_formula(accumulator: Any) -> None:
    grads, losses = history(40)
    state = accumulator.init(grads[0], LAYOUT)
    for t, (g, loss) in enumerate(zip(grads, losses, strict=True), start=1):
        given, scale, state = accumulator.update(g, number(loss), state, LAYOUT)
        expected = plain(accumulator.name, [math.exp(e) * h for h, e in zip(grads[:t], losses[:t], strict=True)])
        assert torch.allclose(scale.exp() * given, expected, rtol=1e-10, atol=1e-14)


FORGETFUL: list[Any] = [Velocity(0.0), TwoMeans(0.5, 0.0), Moments(0.0, 0.0, 0.0), Shampoo(0.0)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("accumulator", [*ALL, *FORGETFUL], ids=str)
def test_nothing_leaves_the_range_of_numbers(accumulator: Any, dtype: torch.dtype) -> None:
    """Losses of e^-900 and e^800: infinity and nan nowhere, and a direction that is not lost."""
    grads = [g.to(dtype) for g in history(6)[0]]
    state = accumulator.init(grads[0], LAYOUT)
    for g, loss in zip(grads, (800.0, 0.0, -1.0, 900.0, 100.0, -900.0), strict=True):
        given, scale, state = accumulator.update(g, number(loss).to(dtype), state, LAYOUT)
        assert given.isfinite().all()
        assert scale.isfinite()
        assert all(value.isfinite().all() for value in state.values())
    assert float(given.abs().max()) > 0


@pytest.mark.parametrize("accumulator", [a for a in ALL if a != Moments()], ids=str)
def test_only_the_scale_follows_the_scale_of_the_loss(accumulator: Any) -> None:
    """L times e^-3000 throughout: the same directions."""
    grads, losses = history(10)
    one, other = accumulator.init(grads[0], LAYOUT), accumulator.init(grads[0], LAYOUT)
    for g, loss in zip(grads, losses, strict=True):
        given, scale, one = accumulator.update(g, number(loss), one, LAYOUT)
        below, lower, other = accumulator.update(g, number(loss - 3000), other, LAYOUT)
        assert torch.allclose(given, below, rtol=1e-9)
        assert float(lower - scale) == pytest.approx(0 if accumulator.name in ("adam", "shampoo") else -3000)


def test_nesterov_is_two_means_of_a_kind() -> None:
    """Lion's with beta1 = beta2^2 has the directions of Nesterov's; with beta1 = beta2 those of a mean."""
    grads, losses = history(20)
    pairs: list[tuple[Any, Any, float]] = [
        (Velocity(0.8, nesterov=True), TwoMeans(0.64, 0.8), 1 / 0.2),
        (Velocity(0.8, mean=True), TwoMeans(0.8, 0.8), 1.0),
    ]
    for left, right, factor in pairs:
        one, other = left.init(grads[0], LAYOUT), right.init(grads[0], LAYOUT)
        for g, loss in zip(grads, losses, strict=True):
            a, scale, one = left.update(g, number(loss), one, LAYOUT)
            b, lower, other = right.update(g, number(loss), other, LAYOUT)
            assert torch.allclose((scale - lower).exp() * a, factor * b, rtol=1e-10)


def test_where_it_ends() -> None:
    """In the geometry of the steps; Adam's in l_inf without epsilon, in l_2 with it; Shampoo's in the spectral."""
    norm: Callable[[Any], Any] = lambda a: a.norm(Lp(2.0))  # noqa: E731
    assert [norm(a) for a in ALL] == [Lp(2.0)] * 6 + [Lp(math.inf), Layers()]
    assert [a.norm(Lp(3.0)) for a in ALL] == [Lp(3.0)] * 8
