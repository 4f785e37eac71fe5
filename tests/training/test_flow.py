"""Steps that follow the flow: of what length they are, and that deep nets keep what they have separated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import make_runs
from pyarrow import parquet

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.data.gaussian import Gaussian
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.optimizers.adam import Adam
from robust_erm.optimizers.spectral import Spectral
from robust_erm.optimizers.steepest import Steepest
from robust_erm.oracles.margin import max_margin
from robust_erm.reports.ends import differ, statuses
from robust_erm.reports.tables import load
from robust_erm.schedules.inverse_loss import InverseLoss
from robust_erm.schedules.relative import Relative
from robust_erm.schedules.schedule import Point
from robust_erm.store.config import Run
from robust_erm.store.run_folder import folder_of
from robust_erm.training.mapped import loss_and_grad_of
from robust_erm.training.pack import train_pack
from robust_erm.training.problem import build


def at_half_the_margin() -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Two draws of 15 points in 20 dimensions, and half the l_2 margin of each."""
    drawn = [Gaussian(d=20, m=15, k_w=20, k_x=20).draw(seed) for seed in (0, 1)]
    eps = [0.5 * max_margin(one.x_train * one.y_train[:, None], 2.0).value for one in drawn]
    x, y = torch.tensor([one.x_train.tolist() for one in drawn]), torch.tensor([one.y_train.tolist() for one in drawn])
    return x, y, eps


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("r", [2.0, math.inf, 1.5])
def test_log_loss_falls_to_minus_100_and_never_comes_back(depth: int, r: float) -> None:
    """At half the margin under the exact l_2 attack, in any geometry; of nets in a few hundred steps.

    Constant steps on log L lose what a net of depth 3 has separated. Sign descent on a linear model goes to and fro
    over slopes of 0, which side of them being rounding's: between two looks its log L may rise by what the steps in
    between may lower it by (0.7 is what starts that differ by roundings have shown), and no more.
    """
    x, y, eps = at_half_the_margin()
    model = DeepLinear(depth=depth, width=20) if depth > 1 else Linear(init_scale=0.1)
    runs = make_runs(x, y, eps, model=model, optimizer=Steepest(Relative(), r), attack=Exact(2.0), seeds=[0, 1])
    runs.steps = 1500
    rows, losses = torch.arange(2), []
    while len(runs.running) and runs.t < runs.steps:
        losses.append(runs.log_losses(rows))
        runs.advance(5)
    found = torch.stack(losses)
    below = (found <= -100).int().argmax(0) * 5
    if depth > 1:
        assert bool((found.amin(0) <= -100).all())
        assert int(below.max()) <= 750
    assert bool((found.amin(0) <= -90).all())
    separated = found < -math.log(15)
    for k in range(2):
        after = found[int(separated[:, k].int().argmax()) :, k]
        to_and_fro = 5 * Relative().fall if (r, depth) == (math.inf, 1) else 0.0
        assert float((after[1:] - after[:-1]).max()) < to_and_fro
        assert float(after.max()) < -math.log(15), "what is separated stays so"


FOLLOWING: list[Any] = [Spectral(Relative()), *(Steepest(Relative(), r) for r in (2.0, math.inf))]
NETS: list[tuple[Any, Any]] = [(DeepLinear(depth=3, width=20), Exact(2.0))]
NETS += [(MLP(depth=k, width=20), attack) for k in (2, 3) for attack in (NoAttack(2.0), FGM(2.0), PGD(2.0))]


@pytest.mark.turns(3)
@pytest.mark.parametrize("optimizer", FOLLOWING, ids=["spectral", "l2", "linf"])
@pytest.mark.parametrize(("net", "attack"), NETS)
def test_so_it_falls_of_networks_and_in_spectral_steps(net: Any, attack: Any, optimizer: Any) -> None:
    """At half the l_2 margin. Attacked points jump across kinks of ReLUs, which no step foresees: log L may rise then.

    What is separated stays so.
    """
    x, y, eps = at_half_the_margin()
    runs = make_runs(x, y, eps, model=net, optimizer=optimizer, attack=attack, seeds=[0, 1], steps=800)
    losses = []
    while len(runs.running) and runs.t < runs.steps:
        losses.append(runs.log_losses(torch.arange(2)))
        runs.advance(5)
    found = torch.stack(losses)
    assert float(found.amin(0).max()) <= -100
    for k in range(2):
        after = found[int((found[:, k] < -math.log(15)).int().argmax()) :, k]
        assert float(after.max()) < -math.log(15)
        if isinstance(attack, (NoAttack, Exact)):
            assert float(after.diff().max()) < 0


OPTIMIZERS: list[Any] = [Steepest(Relative(0.02, 0.3), r) for r in (1.0, 2.0, math.inf)]
OPTIMIZERS += [Steepest(Relative(0.02, 0.3), 2.0, True), Spectral(Relative(0.02, 0.3)), Adam(Relative(0.02, 0.3))]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_step_is_as_long_as_it_says(optimizer: Any) -> None:
    """At most 2 % of theta, or what lowers log L by 0.3 to first order; one of the two is reached."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(12, 6, generator=g).double(), torch.tensor([1.0, -1] * 6).double()
    reached = set()
    for scale in (0.01, 1.0, 30.0):
        runs = make_runs(x, y, [0.05], model=MLP(width=5), optimizer=optimizer, attack=NoAttack(), steps=10**6)
        runs.theta *= scale
        runs.__post_init__()
        before = runs.theta.clone()
        _, grad = loss_and_grad_of(before, runs.groups(torch.tensor([0])), torch.zeros(1, 0, 12, 6))
        runs.advance(1)
        moved = runs.theta - before
        relative = float(moved.norm() / before.norm())
        fall = -float((grad * moved).sum())
        assert relative <= 0.02 * (1 + 1e-9)
        assert fall <= 0.3 * (1 + 1e-9)
        assert math.isclose(relative, 0.02, rel_tol=1e-6) or math.isclose(fall, 0.3, rel_tol=1e-6)
        reached.add(relative > 0.0199)
    assert True in reached


def deep_losses(resolved: Callable[..., Run], steps: int, *schedule: str) -> torch.Tensor:
    """Log losses (t, 2), every ten steps, of gd from conf on a deep linear net at half the margin, seeds 0 and 1."""
    data = ("data=gaussian", "data.d=20", "data.m=15", "data.m_test=10", "attack=exact", "p=2", "eps=0.5")
    net = ("model=deep_linear", "model.depth=3", "model.width=32", "objective=logistic", "optimizer=gd")
    line = (*data, *net, "eps_unit=margin", "stop.loss=null", f"stop.steps={steps}", *schedule)
    runs, _, _ = build([resolved(*line, f"seed={seed}") for seed in (0, 1)], torch.device("cpu"))
    rows, found = torch.arange(2), []
    while len(runs.running):
        runs.advance(10)
        found.append(runs.log_losses(rows))
    return torch.stack(found)


SEPARATED = math.log(math.log(2) / 15)
"""Of a mean of 15 logistic losses: below it all margins are positive."""


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ("optimizer/schedule=log_constant", 300),
        ("optimizer/schedule=inverse_loss optimizer.schedule.lowest_fall=null optimizer.schedule.change=null", 1050),
    ],
)
def test_an_absolute_step_on_log_loss_loses_what_a_deep_net_has_separated(
    schedule: str, steps: int, resolved: Callable[..., Run]
) -> None:
    """As lyu2022's trap T1 has it: why schedules with a relative one exist.

    At what step is a matter of rounding: a run may separate them again, and lose them again.
    """
    found = deep_losses(resolved, steps, *schedule.split())
    for k in range(2):
        first = int((found[:, k] < SEPARATED).int().argmax())
        assert float(found[first, k]) < SEPARATED
        assert float(found[first:, k].max()) > 0


@pytest.mark.parametrize("schedule", ["inverse_loss", "relative", "stable"])
def test_what_a_deep_net_has_separated_stays_so(schedule: str, resolved: Callable[..., Run]) -> None:
    """By the schedules as they are in conf: log L falls by more than one in any ten steps, and comes far."""
    found = deep_losses(resolved, 1050, f"optimizer/schedule={schedule}")
    for k in range(2):
        after = found[int((found[:, k] < SEPARATED).int().argmax()) :, k]
        assert float((after[1:] - after[:-1]).max()) < -1
    assert bool((found[-1] < -200).all())


@pytest.mark.turns
def test_gradient_descents_default_keeps_what_it_separates(resolved: Callable[..., Run]) -> None:
    """On every kind of model, far beyond the loss at which runs usually end; log L may swing by a few on the way."""
    data = ("data=gaussian", "data.d=20", "data.m=15", "data.m_test=10", "attack=exact", "p=2", "eps=0.5")
    line = (*data, "eps_unit=margin", "stop.loss=null", "stop.steps=1500", "measure_every=10")
    deep = [f"model=deep_linear model.depth={k}" for k in (2, 3, 4)]
    for model in ("model=linear", "model=diagonal model.alpha=0.1", *deep):
        run = resolved(*line, *model.split())
        train_pack([run])
        curve = parquet.read_table(folder_of(run) / "metrics.parquet").to_pydict()
        separate = [margin > 0 for margin in curve["margin_robust"]]
        assert all(separate[separate.index(True) :])
        falls = [b - a for a, b in itertools.pairwise(curve["log_loss"][separate.index(True) :])]
        assert sum(falls) < 0
        assert max(falls) < 10
        assert curve["log_loss"][-1] < (-4 if model == "model=linear" else -100)


@pytest.mark.parametrize(
    ("schedule", "near"),
    [
        ("optimizer/schedule=stable", True),
        ("optimizer/schedule=relative", True),
        ("optimizer/schedule=inverse_loss", True),
        ("optimizer/schedule=inverse_loss optimizer.schedule.change=null", False),
    ],
)
def test_a_small_start_does_not_leap_along_its_first_gradient(
    schedule: str, near: bool, resolved: Callable[..., Run]
) -> None:
    """On clusters (frei2023), down to L = 1e-43: near a KKT point, and not where the first gradient led."""
    data = ("data=clusters", "data.d=100", "data.k=8", "data.m=64", "data.m_test=10", "data.means=orthogonal")
    net = ("model=mlp", "model.width=40", "model.bias=first", "objective.reduction=mean", "attack=none", "p=2", "eps=0")
    line = (*data, *net, "data.sigma=0.1", "optimizer=gd", "stop.loss=1e-43", "stop.steps=1500", "measure=kkt")
    summary = train_pack([resolved(*line, *schedule.split())])[0]
    assert isinstance(summary, dict)
    assert summary["status"] == "converged"
    assert (summary["kkt_stationarity"] < 0.08) == near
    assert (summary["kkt_stationarity"] > 0.5) == (not near)


def test_lost_separation_is_told(resolved: Callable[..., Run], caplog: pytest.LogCaptureFixture) -> None:
    data = ("data=gaussian", "data.d=20", "data.m=15", "data.m_test=10", "attack=exact", "p=2", "eps=0.5")
    net = ("model=deep_linear", "model.depth=3", "model.width=32", "objective=logistic", "optimizer=gd")
    line = (*data, *net, "eps_unit=margin", "stop.loss=null", "stop.steps=300", "optimizer/schedule=log_constant")
    run = resolved(*line)
    summary = train_pack([run])[0]
    assert isinstance(summary, dict)
    assert summary["status"] == "max_steps"
    curve = parquet.read_table(folder_of(run) / "metrics.parquet").to_pydict()
    at = summary["lost_separation_at"]
    assert all(m <= 0 for s, m in zip(curve["step"], curve["margin_robust"], strict=True) if s >= at)
    assert [m > 0 for s, m in zip(curve["step"], curve["margin_robust"], strict=True) if s < at][-1]
    assert f"from step {at} on no longer does" in caplog.text
    frame = load(folder_of(run))
    both = pd.concat([frame, frame.assign(status="converged", lost_separation_at=None)], ignore_index=True)
    assert list(statuses(both)) == ["max_steps, lost separation", "converged"]
    assert "1 of 2 runs had separated their training points, and no longer do" in differ(both)


def test_the_floor_of_inverse_loss_is_relative_where_it_is_lower() -> None:
    """Where every step raises the loss it is undone, and alpha halved, until alpha is at the floor."""
    theta, grad = torch.ones(3).double(), torch.tensor([0.0, 3.0, 4.0]).double()
    for lowest_fall, floor in ((None, 1e-3), (0.1, 0.1 / 25), (0.01, 0.01 / 25), (1e3, 1e-2)):
        lowest = 1e-3 if lowest_fall is None else 1e-2
        schedule = InverseLoss(1e30, lowest=lowest, lowest_fall=lowest_fall)
        state = schedule.init(theta)
        point, state = schedule.accept(Point(theta, theta.new_tensor(0.0), grad), state)
        undone = 0
        for _ in range(200):
            point, state = schedule.accept(Point(2 * theta, theta.new_tensor(1.0), 7 * grad), state)
            if float(point.log_loss) == 1:
                break
            undone += 1
        assert undone == math.ceil(math.log2(1e30 / floor))
