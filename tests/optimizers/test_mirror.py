"""Mirror descent: its formula, and where it is gradient descent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import make_runs, separable, train

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.none import NoAttack
from robust_erm.models.mlp import MLP
from robust_erm.optimizers.mirror import Mirror
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant

STEP = Constant(1e-3)


@pytest.mark.parametrize("r", [1.5, 3.0])
def test_it_is_its_formula(r: float) -> None:
    """By autograd on L, in the dual variables, of a net."""
    x, y = separable(10, 5)
    model = MLP(width=6, init_scale=1.0)
    runs = make_runs(x, y, [0.0], model=model, attack=NoAttack(), optimizer=Mirror(STEP, r), steps=30)
    layout, theta = runs.recipe.layout, runs.theta[0].clone().requires_grad_()
    for _ in range(30):
        f = model.apply(layout.unflatten(theta), torch.from_numpy(x))
        (grad,) = torch.autograd.grad(torch.exp(-torch.from_numpy(y) * f).sum(), theta)
        dual = theta.sign() * theta.abs() ** (r - 1) - 1e-3 * grad
        theta = (dual.sign() * dual.abs() ** (1 / (r - 1))).detach().requires_grad_()
    assert torch.allclose(train(runs).theta[0], theta.detach(), rtol=1e-9)


@pytest.mark.parametrize("options", [{"attack": Exact()}, {"attack": NoAttack(), "model": MLP(width=6)}], ids=str)
def test_with_the_square_it_is_gradient_descent(options: Any) -> None:
    x, y = separable(10, 5)
    one, other = (
        train(make_runs(x, y, [0.0, 0.05], optimizer=o, steps=50, seeds=[0, 1], **options))
        for o in (Mirror(STEP, 2.0), Steepest(STEP))
    )
    assert torch.allclose(one.theta, other.theta, rtol=1e-9)


def test_a_run_in_a_pack_is_the_run_alone() -> None:
    x, y = separable(10, 20)
    together = train(make_runs(x, y, [0.0, 0.05, 0.1], optimizer=Mirror(STEP), steps=50, attack=Exact()))
    for k, eps in enumerate((0.0, 0.05, 0.1)):
        alone = train(make_runs(x, y, [eps], optimizer=Mirror(STEP), steps=50, attack=Exact()))
        assert torch.equal(alone.theta[0], together.theta[k])
