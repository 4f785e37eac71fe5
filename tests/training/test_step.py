"""Gradients, the worst-case loss, and the log domain, for one run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import make_runs, separable, train

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.norms import Norm
from robust_erm.models.cnn import CNN
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.bounded_loss import BoundedLoss
from robust_erm.schedules.constant import Constant
from robust_erm.schedules.growing import Growing
from robust_erm.schedules.inverse_loss import InverseLoss
from robust_erm.schedules.power import Power
from robust_erm.training.status import CONVERGED, DIVERGED
from robust_erm.training.step import Batch, loss_and_grad


def at(runs: Any, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    eps = runs.eps[0]
    batch = Batch(runs.train.x[0], runs.train.y[0], eps, runs.bound[0], {})
    noise = runs.recipe.attack.draw(*runs.train.x[0].shape, torch.Generator())
    return loss_and_grad(runs.recipe, theta, batch, noise)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("model", [Linear(), Diagonal(depth=3), DeepLinear(depth=3, width=5)])
@pytest.mark.parametrize("loss", ["exponential", "logistic"])
def test_exact_gradient_is_that_of_the_written_formula(p: float, model: Any, loss: str) -> None:
    """Autograd through sum_i l(-y_i <w, x_i> + eps ||w||_{p*}) (tsilivis2024 eq. 8), away from kinks."""
    x, y = separable(12, 6)
    runs = make_runs(x, y, [0.3], model=model, attack=Exact(p), objective=Objective(loss, "sum"))
    theta = torch.randn(runs.theta.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def formula(t: torch.Tensor) -> torch.Tensor:
        w = model.weight(runs.recipe.layout.unflatten(t))
        s = -runs.train.y[0] * (runs.train.x[0] @ w) + 0.3 * torch.linalg.vector_norm(w, ord=Norm(p).dual.p)
        return (s.exp() if loss == "exponential" else torch.log1p(s.exp())).sum()

    log_loss, grad = at(runs, theta)
    expected, value = torch.func.grad_and_value(formula)(theta)
    assert torch.allclose(log_loss.exp(), value, rtol=1e-12)
    assert torch.allclose(grad * value, expected, rtol=1e-9, atol=1e-9)


def test_the_eps_term_is_trained_on() -> None:
    """The trap of public code: training must follow the worst-case gradient, not the clean one."""
    x, y = separable(12, 6)
    runs = make_runs(x, y, [0.3])
    theta = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    worst, clean = at(runs, theta)[1], at(make_runs(x, y, [0.0]), theta)[1]
    assert float((worst - clean).abs().max()) > 0.05
    z = runs.train.x[0] * runs.train.y[0].unsqueeze(-1)
    share = torch.softmax(-(z @ theta), 0)
    assert torch.allclose(worst, -(share @ z) + 0.3 * theta.sign(), atol=1e-12)


@pytest.mark.parametrize("attack", [NoAttack(), PGD()])
@pytest.mark.parametrize(
    ("model", "d", "outputs"),
    [
        (MLP(depth=3, width=7, bias="all"), 16, 1),
        (MLP(width=7, bias="first"), 16, 3),
        (CNN(channels=(2, 3), hidden=5), 16, 3),
        (Linear(init_scale=1.0), 16, 3),
    ],
)
def test_gradient_against_finite_differences(attack: Any, model: Any, d: int, outputs: int) -> None:
    """At fixed x' (Danskin): the gradient must be that of the loss of the perturbed points."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(6, d, dtype=torch.float64, generator=g)
    y = torch.arange(6).double() % 3 if outputs == 3 else torch.tensor([1.0, -1, 1, -1, 1, 1]).double()
    objective = Objective("cross_entropy" if outputs == 3 else "exponential")
    runs = make_runs(x, y, [0.1], model=model, attack=attack, objective=objective, outputs=outputs)
    theta = runs.theta[0]
    log_loss, grad = at(runs, theta)
    moved = make_runs(
        _fixed(runs, theta), y, [0.0], model=model, attack=NoAttack(), objective=objective, outputs=outputs
    )
    direction = torch.randn(theta.shape, dtype=torch.float64, generator=g)
    h = 1e-6
    plus, minus = (at(moved, theta + s * h * direction)[0] for s in (1, -1))
    assert float(grad @ direction) == pytest.approx(float((plus - minus) / (2 * h)), rel=1e-5, abs=1e-7)
    assert float(log_loss) == pytest.approx(float(at(moved, theta)[0]), rel=1e-12)


def _fixed(runs: Any, theta: torch.Tensor) -> torch.Tensor:
    from robust_erm.training.step import perturbed

    batch = Batch(runs.train.x[0], runs.train.y[0], runs.eps[0], runs.bound[0], {})
    return perturbed(runs.recipe, runs.recipe.attack, theta, batch, torch.empty(0))


def naive(start: torch.Tensor, x: Any, y: Any, eps: float, lr: float, steps: int, direction: Any) -> torch.Tensor:
    """Plain training on the plain loss, as a research script would write it; steps stop on the kinks of ||w||_1."""
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    w = start.clone().requires_grad_()
    for _ in range(steps):
        loss = torch.exp(-y * (x @ w) + eps * w.abs().sum().detach()).sum()
        (g,) = torch.autograd.grad(loss, w)
        with torch.no_grad():
            push = eps * loss
            g = torch.where(w == 0, g.sign() * (g.abs() - push).clamp_min(0), g + push * w.sign())
            after = w - lr * direction(g)
            w[:] = torch.where(w * after < 0, 0.0, after)
    return w.detach()


@pytest.mark.parametrize(
    ("r", "normalized", "direction"),
    [
        (2.0, False, lambda g: g),
        (2.0, True, lambda g: g / g.norm()),
        (math.inf, True, lambda g: g.sign()),
        (math.inf, False, lambda g: g.abs().sum() * g.sign()),
        (1.0, True, lambda g: g.sign() * (g.abs() == g.abs().max())),
    ],
)
def test_log_domain_equals_naive_where_naive_works(r: float, normalized: bool, direction: Any) -> None:
    x, y = separable(10, 5)
    optimizer = Steepest(Constant(1e-3), r, normalized)
    runs = make_runs(x, y, [0.05], model=Linear(init_scale=1.0), optimizer=optimizer, steps=300)
    start = runs.theta[0].clone()
    train(runs)
    w = naive(start, x, y, 0.05, 1e-3, 300, direction)
    assert torch.allclose(runs.theta[0], w, rtol=1e-9, atol=1e-9)


def test_a_loss_of_1e_minus_200_is_an_ordinary_state() -> None:
    """GD with the step 1/((B+eps)^2 L) reaches log L < -1000, where exp underflows, and goes on."""
    x, y = separable(10, 100)
    runs = train(make_runs(x, y, [0.01], steps=3000, optimizer=Steepest(BoundedLoss(eta_plus=math.inf))))
    log_loss, grad = at(runs, runs.theta[0])
    assert float(log_loss) < -1000
    assert float(log_loss.exp()) == 0
    assert float(grad.norm()) > 0.01
    converged = train(make_runs(x, y, [0.01], steps=3000, loss=1e-300, optimizer=Steepest(BoundedLoss(math.inf))))
    assert int(converged.status[0]) == CONVERGED


def test_a_huge_loss_is_an_ordinary_state() -> None:
    x, y = separable(10, 5)
    runs = make_runs(x, y, [0.0])
    theta = -1e4 * torch.from_numpy(y @ x)
    log_loss, grad = at(runs, theta)
    assert float(log_loss) > 1000
    assert grad.isfinite().all()


def test_bounded_loss_is_the_papers_step() -> None:
    """min(eta_plus, 1/((B + eps)^2 L)) on L, written out; the cap binds in the end."""
    x, y = separable(8, 20)
    eps, cap = 0.02, 3.0
    runs = train(make_runs(x, y, [eps], steps=400, optimizer=Steepest(BoundedLoss(cap))))
    w = torch.zeros(20, dtype=torch.float64)
    xt, yt = torch.from_numpy(x), torch.from_numpy(y)
    bound, capped = float(xt.abs().max()), 0
    for _ in range(400):
        losses = torch.exp(-yt * (xt @ w) + eps * w.abs().sum())
        total = losses.sum()
        clean = -((losses * yt) @ xt)
        # at w_j = 0 the least of |g_j + eps L s|, s in [-1, 1]
        g = torch.where(w == 0, clean.sign() * (clean.abs() - eps * total).clamp_min(0), clean + eps * total * w.sign())
        eta = min(cap, 1 / ((bound + eps) ** 2 * float(total)))
        capped += eta == cap
        w = torch.where(w * (w - eta * g) < 0, 0.0, w - eta * g)  # stops on a kink
    assert 0 < capped < 400
    assert torch.allclose(runs.theta[0], w, rtol=1e-9)


def test_growing_schedule() -> None:
    x, y = separable(8, 5)
    schedule = Growing(lr=1e-4, factor=1.5, every=10)
    runs = train(make_runs(x, y, [0.0], steps=40, optimizer=Steepest(schedule, math.inf, True)), chunk=7)
    reach = 1e-4 * 10 * (1 + 1.5 + 1.5**2 + 1.5**3)
    assert float(runs.theta[0].abs().max()) == pytest.approx(reach, rel=1e-12)


def test_power_schedule() -> None:
    """Sign descent's first weight has moved by the sum of the steps; two runs of one pack by their own."""
    x, y = separable(8, 5)
    runs = make_runs(x, y, [0.0, 0.0], steps=3, optimizer=Steepest(Power(lr=1e-4, a=0.5), math.inf, True))
    runs.numbers = {"schedule.a": torch.tensor([0.5, 1.0]).double()}
    reach = [1e-4 * sum((t + 1) ** -a for t in range(3)) for a in (0.5, 1.0)]
    assert train(runs, chunk=2).theta.abs().amax(-1).tolist() == pytest.approx(reach, rel=1e-12)


def test_inverse_loss_never_raises_the_loss_while_it_may_back_off() -> None:
    x, y = separable(10, 20)
    schedule = InverseLoss(lr=50.0, lowest=1e-12)
    runs = make_runs(x, y, [0.0], steps=400, optimizer=Steepest(schedule))
    values = []
    while len(runs.running):
        runs.advance(1)
        values.append(float(runs.state["schedule"]["log_loss"][0]))
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] - 10
    assert len(set(values)) < len(values), "a first step of 50 must have been undone at least once"


def test_divergence_keeps_the_best_state_and_says_when() -> None:
    """The exponential loss with a far too large constant step on L: log L overflows after a few steps."""
    x, y = separable(20, 5, seed=1)
    y[:3] *= -1  # not separable
    runs = make_runs(x, y, [0.0], steps=200, optimizer=Steepest(Constant(1e3)))
    seen: list[float] = []
    while len(runs.running):
        seen.append(float(at(runs, runs.theta[0])[0]))
        runs.advance(1)
    assert int(runs.status[0]) == DIVERGED
    assert int(runs.stopped_at[0]) == len(seen) - 1
    assert not math.isfinite(seen[-1])
    assert all(map(math.isfinite, seen[:-1]))
    assert float(at(runs, runs.theta[0])[0]) == min(seen[:-1])
    assert runs.theta.isfinite().all()
