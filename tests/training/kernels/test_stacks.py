"""Small nets run by run, compiled, against one run at a time by torch."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from conftest import make_runs
from threadpoolctl import threadpool_info
from torch import Tensor

from robust_erm.attacks.attack import Victim
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.activations import Activation
from robust_erm.core.norms import Norm
from robust_erm.core.stack import Stack
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.training import kernels, stacked
from robust_erm.training.kernels import plan
from robust_erm.training.runs import Runs

DTYPES = [torch.float64, torch.float32]
MODELS: dict[str, Any] = {
    "deep_linear": DeepLinear(depth=3, width=5),
    "mlp": MLP(width=7),
    "mlp, all biases": MLP(widths=(7, 3, 6), bias="all"),
    "mlp of one unit": MLP(depth=3, width=1, bias="first"),
    "mlp, leaky": MLP(depth=3, width=6, activation="leaky", slope=0.3),
    "mlp, identity": MLP(width=6, bias="all", activation="identity"),
}
OTHERS: dict[str, Any] = {
    "linear": Linear(),
    "power": MLP(width=7, activation="power"),
    "fixed second layer": MLP(width=6, trained="first"),
}


def three(model: Any, outputs: int, dtype: torch.dtype, n: int = 9, d: int = 5, **given: Any) -> Runs:
    """Three runs on two sets of n points."""
    g = torch.Generator().manual_seed(1)
    x = torch.rand(3, n, d, generator=g, dtype=torch.float64)
    y = torch.randint(0, max(outputs, 2), (3, n), generator=g).double()
    y = 2 * y - 1 if outputs == 1 else y
    given = {"attack": FGM(math.inf), "objective": Objective("cross_entropy", "mean"), "domain": (0.0, 1.0), **given}
    return make_runs(x, y, [0.05, 0.2, 0.1], model=model, outputs=outputs, seeds=[0, 1, 2], dtype=dtype, **given)


def kernel_of(runs: Runs) -> Any:
    recipe = runs.recipe
    assert recipe.stack is not None
    return kernels.for_stack(recipe.stack, recipe.layout, recipe.objective, runs.theta.dtype)


def descended(runs: Runs, p: float, start: Tensor, length: Tensor, box: Any, radius: Tensor | None) -> Tensor:
    """Three steps of every run by torch alone."""
    found = []
    for i in range(len(start)):
        params = runs.recipe.layout.unflatten(runs.theta[i])
        x, y = (a[0] for a in runs.train.of(torch.tensor([i])))
        victim = Victim(lambda z, params=params: runs.recipe.model.apply(params, z), x, y, box, None)
        given = None if radius is None else radius[i].unsqueeze(-1)
        found.append(victim.descend(Norm(p), length[i].unsqueeze(-1), box, given, 3, start[i]))
    return torch.stack(found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("p", [2.0, math.inf])
def test_attacks_are_torchs(p: float, model: str, dtype: torch.dtype) -> None:
    """With and without ball and box, from the points themselves and from others, for one logit and for more."""
    for outputs, ball, box in product((1, 3), (False, True), (None, (0.0, 1.0))):
        runs = three(MODELS[model], outputs, dtype)
        x, y = runs.train.of(torch.arange(3))
        length = torch.full((3, 9), 0.05, dtype=dtype) * torch.tensor([[1], [2], [3]], dtype=dtype)
        nets = kernel_of(runs).at(runs.theta, 9)
        for start in (x, (x + 0.02).clamp(0, 1)):
            ours = nets.descend(p, y, start, length, box, (x, 2 * length) if ball else None, 3)
            theirs = descended(runs, p, start, length, box, 2 * length if ball else None)
            near = (ours - theirs).abs().amax((1, 2)) <= (1e-11 if dtype == torch.float64 else 1e-4)
            assert bool(near.all())


@pytest.mark.parametrize("attack", [NoAttack(), FGM(math.inf), FGM(2.0), PGD(steps=4), PGD(p=2.0, box=False)], ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_training_goes_this_way(model: str, attack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its losses and gradients are those of the products of all runs; with few points, and where weights turn."""
    for outputs, dtype, n in product((1, 3), DTYPES, (9, 40)):
        runs = three(MODELS[model], outputs, dtype, n, attack=attack)
        noise = runs.noise(attack, [0, 1, 2], n, runs.generators_of("attack"))
        batch, found = runs._batch(torch.arange(3)), []
        for small in (stacked.SMALL, 0):
            monkeypatch.setattr(stacked, "SMALL", small)
            assert (stacked._small(runs.recipe, runs.theta, batch.x) is not None) == bool(small)
            found.append(stacked.loss_and_grad(runs.recipe, runs.theta, batch, noise))
        monkeypatch.undo()
        eps = 1e3 * torch.finfo(dtype).eps
        for one, other in zip(*found, strict=True):
            assert torch.allclose(one, other, rtol=eps, atol=eps * float(other.abs().max()))


@pytest.mark.parametrize("model", OTHERS)
def test_what_it_does_not_know(model: str) -> None:
    runs = three(OTHERS[model], 1, torch.float64)
    assert kernel_of(runs) is None
    runs.advance(2)


def test_layers_of_ones_own_may_be_lists() -> None:
    given: Any = [["w", None], ["v", "b"]]
    assert {Stack(given): 1} == {Stack((("w", None), ("v", "b"))): 1}


def test_an_activation_must_tell_its_side_by_its_sign() -> None:
    def of(slope: float) -> Stack:
        return Stack((("w", None), ("v", None)), Activation("leaky", slope))

    assert [plan.known_stack(of(slope), Objective()) for slope in (-0.3, 0.0, 0.3, 1.0)] == [False, True, True, True]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("attack", [NoAttack(), FGM(math.inf), PGD(p=2.0)], ids=str)
def test_a_run_notices_neither_its_pack_nor_the_number_of_threads(attack: Any, dtype: torch.dtype) -> None:
    """At sizes where BLAS splits and packs: rows of parameters begin at any address."""
    runs = three(MLP(depth=3, width=67, bias="all"), 1, dtype, n=203, d=61, attack=attack)
    noise = runs.noise(attack, [0, 1, 2], 203, runs.generators_of("attack"))
    whole = stacked.loss_and_grad(runs.recipe, runs.theta, runs._batch(torch.arange(3)), noise)
    before = torch.get_num_threads()
    for i, threads in ((0, 1), (1, 2), (2, 1)):
        torch.set_num_threads(threads)
        one = torch.tensor([i])
        loss, grad = stacked.loss_and_grad(runs.recipe, runs.theta[one], runs._batch(one), noise[one])
        assert torch.equal(loss[0], whole[0][i])
        assert torch.equal(grad[0], whole[1][i])
    torch.set_num_threads(before)
    blas = [
        one for one in threadpool_info() if one["internal_api"] == "openblas" and "numpy.libs" not in one["filepath"]
    ]
    assert all(one["num_threads"] == 1 for one in blas)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("model", ["mlp", "mlp, leaky", "deep_linear"])
def test_what_is_not_finite_is_seen(model: str, bad: float) -> None:
    """In the loss of its run alone: a unit that is off does not hide it."""
    runs = three(MODELS[model], 1, torch.float64)
    noise = torch.empty(3, 0, 9, 5, dtype=torch.float64)
    calm = stacked.loss_and_grad(runs.recipe, runs.theta, runs._batch(torch.arange(3)), noise)
    runs.theta[1] = bad if math.isnan(bad) else runs.theta[1]
    runs.theta[1, -1] = bad
    loss, grad = stacked.loss_and_grad(runs.recipe, runs.theta, runs._batch(torch.arange(3)), noise)
    assert not (loss[1].isfinite() and grad[1].isfinite().all())
    for i in (0, 2):
        assert torch.equal(loss[i], calm[0][i])
        assert torch.equal(grad[i], calm[1][i])
