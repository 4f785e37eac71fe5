from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from conftest import make_runs, separable, train
from torch.func import vmap

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.none import NoAttack
from robust_erm.core.errors import ConfigError
from robust_erm.core.params import Layout
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.adam import Adam
from robust_erm.optimizers.decayed import Decayed
from robust_erm.optimizers.momentum import Momentum
from robust_erm.optimizers.spectral import Spectral
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.bounded_loss import BoundedLoss
from robust_erm.schedules.constant import Constant
from robust_erm.schedules.growing import Growing
from robust_erm.schedules.inverse_loss import InverseLoss
from robust_erm.schedules.power import Power
from robust_erm.schedules.relative import Relative
from robust_erm.schedules.schedule import Point
from robust_erm.training.step import Batch, Recipe, move, native

LAYOUT = Layout((("W1", (4, 3)), ("b1", (4,)), ("W2", (1, 4))))
ZERO = torch.tensor(0.0, dtype=torch.float64)


def gradient(seed: int) -> torch.Tensor:
    return torch.randn(LAYOUT.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("r", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_unnormalised_is_normalised_times_the_dual_norm(r: float) -> None:
    """<update, g> = ||g||_{r*}^2 and ||update||_r = ||g||_{r*}, on the concatenated parameters."""
    g = gradient(0)
    update, scale, _ = Steepest(Constant(1.0), r).update(g, ZERO - 2, {}, LAYOUT)
    direction, unit, _ = Steepest(Constant(1.0), r, normalized=True).update(g, ZERO - 2, {}, LAYOUT)
    dual = torch.linalg.vector_norm(g, ord=1 / (1 - 1 / r) if r > 1 else math.inf)
    assert torch.allclose(update, dual * direction, rtol=1e-12)
    assert float(direction @ g) == pytest.approx(float(dual), rel=1e-12)
    assert float(scale) == -2
    assert float(unit) == 0


def test_coordinate_descent_moves_one_coordinate_of_the_whole_network() -> None:
    update, _, _ = Steepest(Constant(1.0), 1.0).update(gradient(1), ZERO, {}, LAYOUT)
    assert int((update != 0).sum()) == 1


@pytest.mark.parametrize("normalized", [False, True])
def test_spectral_direction_is_steepest(normalized: bool) -> None:
    """Every layer's spectral norm is 1 and <u, g> is the sum of the nuclear norms, the dual norm."""
    g = gradient(2)
    update, _, _ = Spectral(Constant(1.0), normalized).update(g, ZERO, {}, LAYOUT)
    parts = LAYOUT.unflatten(g)
    nuclear = sum(float(torch.linalg.svdvals(p.reshape(p.shape[0], -1)).sum()) for p in parts.values())
    u = update if normalized else update / nuclear
    assert float(u @ g) == pytest.approx(nuclear, rel=1e-12)
    for p in LAYOUT.unflatten(u).values():
        assert float(torch.linalg.matrix_norm(p.reshape(p.shape[0], -1), ord=2)) == pytest.approx(1, rel=1e-12)


def test_spectral_ignores_zero_singular_values() -> None:
    """A rank-one gradient has a rank-one direction, not an arbitrary completion; zero stays zero."""
    layout = Layout((("W", (3, 3)),))
    a, b = torch.tensor([1.0, 2, 2]).double(), torch.tensor([0.6, 0.8, 0]).double()
    update, _, _ = Spectral(Constant(1.0), True).update(torch.outer(a, b).reshape(-1), ZERO, {}, layout)
    assert torch.allclose(update.reshape(3, 3), torch.outer(a / 3, b), atol=1e-12)
    still, _, _ = Spectral(Constant(1.0), True).update(torch.zeros(9).double(), ZERO, {}, layout)
    assert torch.equal(still, torch.zeros(9).double())


@pytest.mark.parametrize(
    ("ours", "theirs", "lr"),
    [
        (lambda s: Adam(s), lambda p, lr: torch.optim.Adam(p, lr=lr), 1e-2),
        (lambda s: Adam(s, epsilon=0.0), lambda p, lr: torch.optim.Adam(p, lr=lr, eps=0.0), 1e-2),
        (lambda s: Momentum(s), lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9), 1e-3),
        (lambda s: Steepest(s), lambda p, lr: torch.optim.SGD(p, lr=lr), 1e-3),
        (lambda s: Decayed(s, 0.3), lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.3), 1e-3),
    ],
)
def test_against_torch_optim(ours: Any, theirs: Any, lr: float) -> None:
    """Fifty steps of a net on the plain exponential loss, by torch.optim and by us in the log domain."""
    x, y = separable(10, 5)
    model = MLP(width=6, init_scale=1.0)
    runs = make_runs(x, y, [0.0], model=model, attack=NoAttack(), optimizer=ours(Constant(lr)), steps=50)
    layout = runs.recipe.layout
    theta = runs.theta[0].clone().requires_grad_()
    optimizer = theirs([theta], lr)
    for _ in range(50):
        optimizer.zero_grad()
        f = model.apply(layout.unflatten(theta), torch.from_numpy(x))
        torch.exp(-torch.from_numpy(y) * f).sum().backward()
        optimizer.step()
    assert torch.allclose(train(runs).theta[0], theta.detach(), rtol=1e-8, atol=1e-10)


def test_weight_decay_ends_where_loss_and_penalty_are_least() -> None:
    """Two decays in one pack: grad L + decay theta is 0, and stays so."""
    x, y = separable(10, 5)
    runs = make_runs(x, y, [0.0, 0.1], attack=Exact(2.0), optimizer=Decayed(Constant(0.02), 0.5), steps=4000)
    train(runs)
    for w, eps in zip(runs.theta, runs.eps, strict=True):
        at = w.clone().requires_grad_()
        margins = torch.from_numpy(y) * (torch.from_numpy(x) @ at) - eps * at.norm()
        ((-margins).exp().sum() + 0.5 * at.square().sum() / 2).backward()
        assert at.grad is not None
        assert float(at.grad.norm()) < 1e-8


def test_weight_decay_is_of_one_step_length() -> None:
    for options, says in (
        ({"schedule": BoundedLoss()}, "schedule = boundedloss: must be constant"),
        ({"schedule": Constant(0.1), "decay": 10.0}, "decay = 10.0: must be 0 or more, and below 1 / lr = 10"),
        ({"schedule": Constant(0.1), "decay": -1.0}, "decay = -1.0: must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=says):
            Decayed(**options)  # type: ignore[arg-type]


def test_adam_goes_on_where_the_loss_underflows() -> None:
    x, y = separable(10, 100)
    runs = make_runs(x, y, [0.0], optimizer=Adam(Constant(1.0), 0.1, 0.1, 0.0), steps=1200)
    train(runs)
    assert float(runs.best_log_loss[0]) < -800
    assert runs.theta.isfinite().all()


@pytest.mark.parametrize("optimizer", [Adam(Constant(1.0), epsilon=0.0), Momentum(Constant(1.0))])
def test_a_fall_of_the_loss_by_e_to_the_800_in_one_step(optimizer: Any) -> None:
    """Neither infinity nor nan, also in coordinates that never had a gradient; then it goes on."""
    g = gradient(3)
    g[0] = 0
    state = optimizer.init(g)
    for log_loss in (800.0, 0.0, -1.0, 900.0, 100.0):
        direction, scale, state = optimizer.update(g, torch.tensor(log_loss).double(), state, LAYOUT)
        assert direction.isfinite().all()
        assert float(direction[0]) == 0
        assert scale.isfinite()
        assert all(value.isfinite().all() for value in state.values())
    assert float(direction.abs().max()) > 0


SCHEDULES = [
    *(Constant(0.1), BoundedLoss(10.0), Growing(0.1, 1.5, 2), Power(), Relative(), Relative(most=0.02)),
    *(InverseLoss(), InverseLoss(lowest_fall=0.1)),
]
VARIED = {Constant: "schedule.lr", Growing: "schedule.lr", Relative: "schedule.fall", Power: "schedule.a"}
OPTIMIZERS = [partial(Steepest, r=r, normalized=n) for r in (1.0, 1.5, 2.0, math.inf) for n in (False, True)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("make", [*OPTIMIZERS, Momentum, Adam], ids=str)
def test_a_step_of_all_runs_is_that_of_each(make: Any, schedule: Any) -> None:
    """Bit for bit, also where numbers differ between runs, a step is undone, or a kink of ``eps ||w||_1`` is met."""
    d, optimizer = 37, make(schedule)
    assert native(optimizer)
    recipe = Recipe(Linear(), Layout((("w", (d,)),)), Objective(), optimizer, Exact(), None)
    mapped = vmap(partial(move, recipe), in_dims=(None, 0, 0, 0))
    for runs in (5, 3, 1):
        g = torch.Generator().manual_seed(runs)
        theta = torch.randn(runs, d, generator=g, dtype=torch.float64)
        parts = {"optimizer": optimizer.init(theta[0]), "schedule": schedule.init(theta[0])}
        state = {k: {n: torch.stack([v] * runs) for n, v in part.items()} for k, part in parts.items()}
        varied = torch.rand(runs, generator=g, dtype=torch.float64)
        numbers = {VARIED[type(schedule)]: varied} if type(schedule) in VARIED else {}
        eps = torch.rand(runs, generator=g, dtype=torch.float64) * (torch.arange(runs) > 0)
        batch = Batch(theta.unsqueeze(1), theta[:, :1], eps, eps + 1, numbers)
        other, others = theta, state
        for t in range(6):
            loss, grad = (torch.randn(runs, *s, generator=g, dtype=torch.float64) for s in ((), (d,)))
            step = theta.new_tensor(t)
            _, theta, state = move(recipe, step, Point(theta, loss, grad), state, batch)
            _, other, others = mapped(step, Point(other, loss, grad), others, batch)
            assert torch.equal(theta, other)
            assert all(torch.equal(v, others[k][n]) for k, part in state.items() for n, v in part.items())
