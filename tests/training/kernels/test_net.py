"""Loss and gradient of nets under PGD, compiled, against the mapped form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_runs, train
from torch.func import vmap

from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.pgd import PGD
from robust_erm.data.digits import Digits
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant
from robust_erm.schedules.inverse_loss import InverseLoss
from robust_erm.training.kernels import net, plan
from robust_erm.training.runs import Runs
from robust_erm.training.step import loss_and_grad

SD = Steepest(Constant(1e-3), math.inf, True)
GD = Steepest(InverseLoss(0.05, 1, 1))


@pytest.fixture(autouse=True)
def _also_for_small_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MANY", 0)


ATTACKS = {
    "pgd": PGD(),
    "no box": PGD(box=False),
    "small steps": PGD(steps=20, relative_step=0.1),
    "one step": PGD(steps=1, relative_step=1.0),
    "large steps": PGD(steps=7, relative_step=0.9),
}


def nets(attack: PGD, **options: Any) -> Runs:
    drawn = Digits(m=20).draw(0)
    given = {"model": MLP(width=50), "optimizer": GD, "domain": (0.0, 1.0), "steps": 60, **options}
    return make_runs(drawn.x_train, drawn.y_train, [0.0, 0.1, 0.3], attack=attack, seeds=[0, 1, 2], **given)


@pytest.mark.parametrize("dense", [0.0, net._DENSE, 2.0], ids=["all dense", "as chosen", "all sparse"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_compiled_is_mapped(attack: str, dense: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every update is forced to be a matrix product, or none is."""
    monkeypatch.setattr(net, "_DENSE", dense)
    for options in (
        {},
        {"domain": None, "model": MLP(width=30, init_scale=1e-2)},
        {"objective": Objective("logistic", "mean"), "optimizer": SD},
    ):
        runs = nets(ATTACKS[attack], **options)
        for steps in (0, 5, 40):
            runs.advance(steps - runs.t)
            batch = runs._batch(torch.arange(3))
            noise = torch.empty(3, 0, 20, 64, dtype=torch.float64)
            expected = vmap(lambda *a, recipe=runs.recipe: loss_and_grad(recipe, *a))(runs.theta, batch, noise)
            found = runs.net.loss_and_grad(runs.theta, batch)
            for a, b in zip(found, expected, strict=True):
                assert torch.allclose(a, b, rtol=1e-9, atol=1e-12 * float(b.abs().max()))


@pytest.mark.parametrize("optimizer", [GD, SD], ids=["gd", "sd"])
def test_training_is_the_same(optimizer: Steepest) -> None:
    fast, slow = nets(PGD(), optimizer=optimizer), nets(PGD(), optimizer=optimizer)
    slow.compiled = False
    slow.__post_init__()
    assert slow.net is None
    train(fast), train(slow)
    assert torch.allclose(fast.theta, slow.theta, rtol=1e-8, atol=1e-10)


def test_float32_agrees_to_its_precision() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 40)), rng.choice([-1.0, 1.0], 30)
    found = []
    for dtype in (torch.float32, torch.float64):
        runs = make_runs(x, y, [0.1], model=MLP(width=30), attack=PGD(), domain=(0.0, 1.0), dtype=dtype)
        found.append(runs.net.loss_and_grad(runs.theta, runs._batch(torch.arange(1))))
    assert torch.allclose(found[0][0].double(), found[1][0], rtol=1e-5)
    assert torch.allclose(found[0][1].double(), found[1][1], atol=1e-4)


OTHERS: dict[str, dict[str, Any]] = {
    "deeper": {"model": MLP(depth=3)},
    "deeper by widths": {"model": MLP(widths=(8, 8))},
    "biases": {"model": MLP(bias="first")},
    "leaky": {"model": MLP(activation="leaky")},
    "identity": {"model": MLP(activation="identity")},
    "power": {"model": MLP(activation="power")},
    "fixed second layer": {"model": MLP(trained="first")},
    "l_2": {"attack": PGD(2.0)},
    "fgsm": {"attack": FGM(math.inf)},
    "random start": {"attack": PGD(random_start=True)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_it_does_not_know_is_mapped(other: str) -> None:
    assert nets(**{"attack": PGD(), **OTHERS[other]}).net is None


def test_small_nets_are_left_to_the_other_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MANY", 50 * 64 + 50)
    assert nets(PGD()).net is not None
    monkeypatch.setattr(plan, "MANY", 50 * 64 + 51)
    assert nets(PGD()).net is None
