"""The step of lyu2022's Lemma 2: its constant, and what it promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import make_runs

from robust_erm.attacks.exact import Exact
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.oracles.margin import max_margin
from robust_erm.schedules.smooth import Smooth, beta
from robust_erm.training.mapped import loss_and_grad_of

LOGISTIC = Objective("logistic", "mean")


def filtered(seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Forty unit vectors in R^5 with a margin of 0.15 to a teacher, and half of their l_2 margin."""
    g = torch.Generator().manual_seed(seed)
    teacher = torch.nn.functional.normalize(torch.randn(5, generator=g, dtype=torch.float64), dim=0)
    x = torch.nn.functional.normalize(torch.randn(400, 5, generator=g, dtype=torch.float64), dim=1)
    x = x[(x @ teacher).abs() >= 0.15][:40]
    y = (x @ teacher).sign()
    return x, y, 0.5 * max_margin((x * y.unsqueeze(-1)).numpy(), 2.0).value


def start(depth: int, length: float = 1.0) -> Any:
    """Two runs, each on a set of its own, from layers of Frobenius norm 0.9 (depth 2) or 0.95, inputs times length."""
    sets = [filtered(seed) for seed in (0, 1)]
    x, y, eps = torch.stack([s[0] for s in sets]), torch.stack([s[1] for s in sets]), [length * s[2] for s in sets]
    model, optimizer = DeepLinear(depth, width=4), Steepest(Smooth())
    runs = make_runs(
        length * x, y, eps, model=model, optimizer=optimizer, attack=Exact(2.0), objective=LOGISTIC, seeds=[0, 1]
    )
    layout, size = runs.recipe.layout, 0.9 if depth == 2 else 0.95
    layers = layout.unflatten(runs.theta)
    scaled = {k: size * w / torch.linalg.matrix_norm(w, keepdim=True) for k, w in layers.items()}
    runs.theta = layout.flatten(scaled)
    for k, (points, labels, _) in enumerate(sets):  # the better of the two signs of the last layer, as lyu2022 App. A
        w = model.weight({name: w[k] for name, w in scaled.items()})
        if float((labels * (points @ w)).mean()) < 0:
            scaled[f"W{depth}"][k] *= -1
    runs.theta = layout.flatten(scaled)
    runs.__post_init__()
    return runs


def norms(runs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """``||W_k||_F`` (R, L) and ``||W_L ... W_1||_2`` (R,)."""
    layers = runs.recipe.layout.unflatten(runs.theta)
    each = torch.stack([torch.linalg.matrix_norm(w) for w in layers.values()], dim=-1)
    return each, runs.predictors(torch.arange(2)).norm(dim=-1)


@pytest.mark.parametrize("depth", [2, 3])
def test_the_loss_falls_in_every_step_within_the_set_of_the_lemma(depth: int) -> None:
    """lyu2022's filtered set, 300 steps: norms below r_t, r_t never falls, and Lemma 6's balance of the layers."""
    runs = start(depth)
    runs.steps, last, radius = 300, torch.full((2,), torch.inf), torch.zeros(2)
    size, product = norms(runs)
    assumed, gaps, first = 0.9**depth * product, (size[:, 0] ** 2 - size[:, -1] ** 2).abs(), None
    while len(runs.running):
        loss = runs.log_losses(torch.arange(2))
        first = loss if first is None else first
        assert bool((loss < last).all())
        runs.advance(1)
        kept = runs.state["schedule"]["radius"]
        size, product = norms(runs)
        assert bool((size.amax(-1) <= kept).all()), "W(t+1) is in S(r(t))"
        assert bool((kept >= radius).all())
        assert bool((kept >= 1).all())
        gap = (size[:, 0] ** 2 - size[:, -1] ** 2).abs()
        assert bool((gap <= gaps + 2 * first.exp()).all())
        assert bool((product >= assumed).all()), "what the lemma assumes"
        last, radius = loss, kept
    assert bool((radius > 1).all()), "the norms have grown past 1, and r with them"


def test_the_constant_is_that_of_eq_12() -> None:
    """By hand, at L = 2 and 3; with points of length B it is that of the loss l(B s)."""
    for depth, r, q, eps in ((2, 1.3, 0.5, 0.1), (3, 2.0, 0.7, 0.0)):
        low = q**depth
        hand = r ** (3 * depth) * depth**2 * (1 + 0.25 + eps / low * (2 + 0.25 + 1 / low))
        found = beta(*(torch.tensor(v).double() for v in (r, low, eps, 1.0)), depth)
        assert math.isclose(float(found), hand, rel_tol=1e-6)
    one, low, eps, b = (torch.tensor(v).double() for v in (1.0, 0.3, 0.2, 4.0))
    hand = 4 * (4 + 4.0 + 0.05 / 0.3 * (8 + 4.0 + 4 / 0.3))
    assert math.isclose(float(beta(one, low, eps, b, 2)), hand, rel_tol=1e-6)


def test_the_step_is_one_over_the_constant() -> None:
    """theta moves by min(1, 1 / beta) times the gradient of L, not of log L."""
    for length in (1.0, 3.0):
        runs = start(2, length)
        before, rows = runs.theta.clone(), torch.arange(2)
        log_loss, grad = loss_and_grad_of(before, runs.groups(rows), torch.zeros(2, 0, 40, 5))
        assumed = 0.81 * norms(runs)[1]
        runs.advance(1)
        radius, one, far = runs.state["schedule"]["radius"], runs.eps.new_ones(2), runs.eps.new_tensor(length)
        mu = (length + runs.eps) / beta(one, assumed, runs.eps, far, 2)
        assert torch.equal(radius, torch.where(1 - mu >= 0.9, one, 1 + mu))
        eta = 1 / beta(radius, assumed, runs.eps, far, 2)
        expected = before - (eta * log_loss.exp()).unsqueeze(-1) * grad
        assert torch.allclose(runs.theta, expected, rtol=1e-12)


def test_the_loss_falls_for_points_of_any_length() -> None:
    runs = start(2, 3.0)
    runs.steps, last = 100, torch.full((2,), torch.inf)
    while len(runs.running):
        loss = runs.log_losses(torch.arange(2))
        assert bool((loss < last).all())
        runs.advance(1)
        assert bool((norms(runs)[0].amax(-1) <= runs.state["schedule"]["radius"]).all())
        last = loss
