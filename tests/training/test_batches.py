"""Mini-batches: every point once an epoch, in an order that no other run and no interruption changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_runs, separable, train

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.errors import ConfigError
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.adam import Adam
from robust_erm.optimizers.momentum import Momentum
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant
from robust_erm.store.config import Batches, Run
from robust_erm.store.run_folder import RunFolder, folder_of
from robust_erm.training import resources
from robust_erm.training.callbacks import Interrupted
from robust_erm.training.mapped import loss_and_grad_of
from robust_erm.training.order import Order, order_of
from robust_erm.training.pack import train_pack
from robust_erm.training.runs import Runs
from robust_erm.training.status import CONVERGED, MAX_STEPS, RUNNING

N, D = 22, 6
X, Y = separable(N, D)


def batched(size: int, *, drop_last: bool = False, **options: Any) -> Runs:
    runs = make_runs(X, Y, options.pop("eps", [0.1]), **{"optimizer": Steepest(Constant(0.02)), **options})
    runs.order = order_of(Batches(size, drop_last), N)
    runs.__post_init__()  # the kernel of whole steps is for whole sets
    return runs


def seen_at(order: Order, t: int, seed: int) -> Any:
    """The points (b,) of step t."""
    epoch, k = divmod(t, order.steps)
    return order.of(epoch, seed)[k * order.size : (k + 1) * order.size]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 5, 11, 21])
def test_every_point_comes_once_an_epoch(size: int, drop_last: bool) -> None:
    section = Batches(size, drop_last)
    order = order_of(section, N)
    assert order is not None
    assert order.steps == (N // size if drop_last else math.ceil(N / size))
    for epoch in range(3):
        steps = range(epoch * order.steps, (epoch + 1) * order.steps)
        seen = [seen_at(order, t, 7) for t in steps]
        assert [len(some) for some in seen] == [order.many(t) for t in steps]
        every = np.sort(np.concatenate(seen))
        assert len(every) == (N // size * size if drop_last else N)
        assert len(set(every.tolist())) == len(every)


def test_an_order_is_named_by_seed_and_epoch_alone() -> None:
    def order() -> Order:
        return Order(N, 5, 5)

    late, other = order(), order()
    seen_at(other, 3, 1), seen_at(other, 90, 2)
    assert np.array_equal(seen_at(late, 11, 1), seen_at(other, 11, 1))
    whole = [order().of(epoch, seed) for epoch in (0, 1) for seed in (1, 2)]
    orders = {tuple(one.tolist()) for one in whole}
    assert len(orders) == 4


def test_a_batch_of_all_points_is_the_full_batch(resolved: Callable[..., Run]) -> None:
    assert order_of(Batches(N), N) is None
    assert order_of(Batches(10 * N, True), N) is None
    run = resolved("batch.size=40", "optimizer=gd")  # 40 points: what divides by the loss is allowed
    assert run.steps == run.stop.steps
    assert run.id != resolved("optimizer=gd").id


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_the_trajectory_is_that_of_a_plain_torch_loop(name: str, reduction: str) -> None:
    model, lr, size = MLP(width=7, bias="all"), 0.01, 5
    optimizer = {"sgd": Steepest(Constant(lr)), "momentum": Momentum(Constant(lr)), "adam": Adam(Constant(lr))}[name]
    own = batched(
        size,
        model=model,
        eps=[0.0],
        attack=NoAttack(),
        optimizer=optimizer,
        objective=Objective("logistic", reduction),
        steps=33,
        seeds=[3],
    )
    order = order_of(Batches(size), N)
    assert order is not None
    params = {k: p.clone().requires_grad_() for k, p in own.recipe.layout.unflatten(own.theta[0]).items()}
    theirs: Any = {
        "sgd": lambda p: torch.optim.SGD(p, lr),
        "momentum": lambda p: torch.optim.SGD(p, lr, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr),
    }[name](list(params.values()))
    x, y = torch.as_tensor(X), torch.as_tensor(Y)
    for t in range(33):
        at = torch.from_numpy(seen_at(order, t, 3))
        each = torch.nn.functional.softplus(-y[at] * model.apply(params, x[at]))
        theirs.zero_grad()
        (each.mean() * (N if reduction == "sum" else 1)).backward()  # of a sum, the estimate over all points
        theirs.step()
    train(own)
    expected = own.recipe.layout.flatten({k: p.detach() for k, p in params.items()})
    assert torch.allclose(own.theta[0], expected, rtol=1e-10, atol=1e-12)


def test_the_sum_is_estimated_without_bias() -> None:
    runs = batched(11, model=Linear(1.0), attack=Exact())
    rows, points, order = torch.tensor([0]), runs._points(torch.tensor([0])), runs.order
    assert order is not None
    noise = runs.noise(runs.recipe.attack, [0], 11, runs.generators)
    parts = []
    for t in range(2):
        log_loss, _ = loss_and_grad_of(runs.theta, runs.groups(rows, runs._batch(rows, points(t))), noise)
        parts.append(float(log_loss.exp()) * math.exp(runs._of_all(order.many(t))))
    assert np.mean(parts) == pytest.approx(float(runs.log_losses(rows).exp()), rel=1e-12)


def test_runs_end_by_the_loss_of_the_whole_set() -> None:
    """At the first end of an epoch at which the whole set's loss is at the target, whatever batches say."""
    options: dict[str, Any] = {"optimizer": Steepest(Constant(2e-3)), "steps": 20_000, "loss": 6.0, "eps": [0.01]}
    runs, losses = batched(5, **options), []
    looks = runs.looks
    assert looks == 5
    while len(runs.running):
        losses.append(float(runs.log_losses(torch.tensor([0]))))
        runs.advance(looks)
        runs.look()
    assert int(runs.status[0]) == CONVERGED
    assert int(runs.stopped_at[0]) % looks == 0
    assert all(loss > math.log(6.0) for loss in losses)
    assert float(runs.log_losses(torch.tensor([0]))) <= math.log(6.0)
    assert float(runs.best_log_loss[0]) == float(runs.log_losses(torch.tensor([0])))
    endless = batched(5, **{**options, "loss": None, "steps": 40})
    assert endless.looks is None, "where no loss may end it, epochs are not looked at"
    assert int(train(endless).status[0]) == MAX_STEPS


def test_the_whole_sets_loss_in_pieces_is_the_loss_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for model, attack in ((MLP(width=5), PGD(2.0)), (Linear(1.0), Exact())):
        runs = batched(5, model=model, attack=attack)
        whole = make_runs(X, Y, [0.1], model=model, attack=attack).log_losses(torch.tensor([0]))
        monkeypatch.setattr("robust_erm.training.attacked.CHUNK", 7)
        assert torch.allclose(runs.log_losses(torch.tensor([0])), whole, rtol=1e-12)


def test_a_step_that_diverges_is_told_at_once() -> None:
    runs = train(batched(5, optimizer=Steepest(Constant(1e200), math.inf, True), model=MLP(width=3), steps=50))
    assert int(runs.status[0]) not in (RUNNING, CONVERGED)
    assert bool(runs.theta.isfinite().all())


LINE = (
    *("data=digits", "data.m=37", "model=mlp", "model.width=9", "attack=pgd", "eps=0.1", "batch.size=8"),
    *("optimizer/schedule=constant", "optimizer.schedule.lr=1e-2", "stop.epochs=40", "stop.loss=1e-6"),
)
EACH = [("seed=0",), ("seed=1",), ("seed=2", "eps=0.05"), ("seed=2",)]


def test_a_pack_killed_and_resumed_in_the_middle_of_an_epoch_ends_as_each_alone(
    resolved: Callable[..., Run], tmp_path: Path
) -> None:
    def results(folder: str, *, alone: bool) -> list[bytes]:
        fixed = ("trainer.checkpoint_seconds=0", "trainer.inner_steps=7", f"output_dir={tmp_path / folder}")
        runs = [resolved(*LINE, *own, *fixed) for own in EACH]
        assert runs[0].steps == 200
        if alone:
            for run in runs:
                train_pack([run])
        else:
            for calls in (3, 4, 5):  # 7 steps a call, 5 an epoch
                count = iter(range(calls))
                with pytest.raises(Interrupted):
                    train_pack(runs, stop=lambda count=count: next(count, None) is None)
                kept = RunFolder(runs[0]).read_checkpoint()
                assert kept is not None
                assert kept["run"]["t"] % 5
                assert kept["run"]["status"] == RUNNING
            train_pack(runs)
        found = []
        for run in runs:
            kept = torch.load(folder_of(run) / "checkpoint.pt", weights_only=True)
            found.append((folder_of(run) / "metrics.parquet").read_bytes() + kept["run"]["theta"].numpy().tobytes())
        return found

    assert results("together", alone=False) == results("alone", alone=True)


_NOISY = ("bounded_loss", "inverse_loss", "log_constant", "relative", "stable")  # they look at a loss, here a batch's


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimizer=gd", "batch.size=8"], "mini-batch"),
        *(([f"optimizer/schedule={name}", "batch.size=8"], "mini-batch") for name in _NOISY),
        (["batch.size=0"], "1 or more"),
        (["batch.size=-3"], "1 or more"),
        (["batch.size=many"], "wrong type"),
        (["stop.epochs=-1"], "0 or more"),
        (["data=gaussian", "model=linear", "attack=exact", "optimizer=oracle", "batch.size=8"], "takes no steps"),
        (["measure_every=0"], "1 or more"),
        (["measure_every=1", "stop.steps=10000000"], "at most 100,000"),
    ],
)
def test_what_does_not_go_with_batches_is_refused(
    resolved: Callable[..., Run], overrides: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        resolved(*overrides)


def test_memory_counts_the_batch(resolved: Callable[..., Run]) -> None:
    line = ["data=sphere", "data.m=60000", "data.d=50", "optimizer/schedule=constant", "optimizer.schedule.lr=1"]
    whole, part = (resources.of_run(resolved(*line, f"batch.size={size}")) for size in ("null", 64))
    assert part < whole / 40
