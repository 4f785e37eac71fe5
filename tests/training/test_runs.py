"""The run axis: a run in a pack is the run alone; resuming is not noticed."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_runs, separable, train

from robust_erm.accumulators.lion import TwoMeans
from robust_erm.accumulators.moments import Moments
from robust_erm.accumulators.momentum import Velocity
from robust_erm.accumulators.shampoo import Shampoo
from robust_erm.attacks.apgd import APGD
from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fab import FAB
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.pgd import PGD
from robust_erm.data.digits import Digits
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.adam import Adam
from robust_erm.optimizers.descent import Descent
from robust_erm.optimizers.momentum import Momentum
from robust_erm.optimizers.spectral import Spectral
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.bounded_loss import BoundedLoss
from robust_erm.schedules.constant import Constant
from robust_erm.schedules.inverse_loss import InverseLoss
from robust_erm.training.attacked import attacked, attacked_points, clean
from robust_erm.training.kept import export, load
from robust_erm.training.measure import Evaluation, log_spaced, measure
from robust_erm.training.order import Order
from robust_erm.training.runs import Runs
from robust_erm.training.status import CONVERGED, MAX_STEPS, RUNNING
from robust_erm.training.step import Batch, perturbed

INF = math.inf
EPS, SEEDS = [0.0, 0.1, 0.2, 0.05], [0, 1, 2, 3]

CASES: dict[str, dict[str, Any]] = {
    "linear gd": {"optimizer": Steepest(BoundedLoss()), "attack": Exact(), "steps": 400, "loss": 1e-3},
    "linear cd": {"optimizer": Steepest(BoundedLoss(), 1.0), "attack": Exact(), "steps": 400, "loss": 1e-3},
    "linear sd": {"optimizer": Steepest(Constant(1e-2), math.inf, True), "attack": Exact(), "steps": 400},
    "linear p=1": {"optimizer": Steepest(Constant(1e-2), math.inf, True), "attack": Exact(1.0), "steps": 300},
    "diagonal": {"model": Diagonal(alpha=0.1), "optimizer": Steepest(InverseLoss()), "attack": Exact(), "steps": 300},
    "net gd": {"model": MLP(width=8), "optimizer": Steepest(InverseLoss(0.05, 1, 1)), "attack": PGD(), "steps": 150},
    "net back-off": {"model": MLP(width=8), "optimizer": Steepest(InverseLoss()), "attack": PGD(), "steps": 150},
    "net sd": {
        "model": MLP(width=8),
        "optimizer": Steepest(Constant(1e-3), math.inf, True),
        "attack": PGD(),
        "steps": 150,
    },
    "net random start": {
        "model": MLP(width=8),
        "optimizer": Adam(Constant(1e-3)),
        "attack": PGD(2.0, random_start=True, restarts=2),
        "steps": 60,
    },
    "net momentum": {"model": MLP(width=8), "optimizer": Momentum(Constant(1e-3)), "attack": PGD(), "steps": 60},
    "net spectral": {"model": MLP(width=8), "optimizer": Spectral(Constant(1e-2), True), "attack": PGD(), "steps": 60},
}
STEP, NESTEROV = Constant(1e-2), Velocity(0.9, nesterov=True)
FACTORS: dict[str, Any] = {
    "net muon": Descent(STEP, Layers(), NESTEROV),
    "net muon_ns": Descent(STEP, Layers(polar="newton_schulz"), NESTEROV),
    "net nuclear": Descent(STEP, Layers(1.5, 1.0, vectors=INF), TwoMeans(), normalized=False),
    "net entries": Descent(STEP, Layers(3.0, 2.0, "entries"), Moments()),
    "net shampoo": Descent(STEP, Lp(2.0), Shampoo(), normalized=False),
}
NET = {"model": MLP(width=8, bias="first"), "attack": PGD(), "steps": 40}
CASES |= {name: {**NET, "optimizer": optimizer} for name, optimizer in FACTORS.items()}


def digits(seeds: list[int]) -> tuple[Any, Any]:
    drawn = [Digits(m=12).draw(seed) for seed in seeds]
    return np.stack([d.x_train for d in drawn]), np.stack([d.y_train for d in drawn])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_run_in_a_pack_is_the_run_alone(case: str, shared: bool) -> None:
    x, y = digits(SEEDS)
    data = (lambda k: (x[0], y[0])) if shared else (lambda k: (x[k : k + 1], y[k : k + 1]))
    together = train(make_runs(*((x[0], y[0]) if shared else (x, y)), EPS, seeds=SEEDS, **CASES[case]), chunk=37)
    for k in range(4):
        alone = train(make_runs(*data(k), EPS[k : k + 1], seeds=SEEDS[k : k + 1], **CASES[case]), chunk=50)
        assert int(alone.status[0]) == int(together.status[k])
        assert int(alone.stopped_at[0]) == int(together.stopped_at[k])
        assert torch.equal(alone.theta[0], together.theta[k]), "on the CPU not even the rounding differs"


ATTACKS = [PGD(), PGD(2.0), PGD(1.0), PGD(random_start=True, restarts=2), FGM(2.0), APGD(steps=5), FAB(steps=3)]


LARGE: dict[str, dict[str, Any]] = {
    "parameters": {"optimizer": Steepest(Constant(1e-4), INF), "model": MLP(width=700), "attack": FGM(INF)},
    "points": {"attack": Exact(2.0), "objective": Objective("logistic")},
    "points, mapped": {"attack": Exact(), "model": Diagonal(alpha=0.1)},
}


@pytest.mark.parametrize("case", LARGE)
def test_a_large_run_in_a_pack_is_the_run_alone(case: str) -> None:
    """Over 2^15 parameters or points, from where on torch splits lone sums among threads: here there is one."""
    assert torch.get_num_threads() == 1
    given, (x, y) = LARGE[case] | {"steps": 9}, separable(*((40, 64) if case == "parameters" else (40_000, 3)), seed=2)
    many = make_runs(x, y, EPS, seeds=SEEDS, **given)
    many.advance(4)
    for k in range(4):
        one = make_runs(x, y, EPS[k : k + 1], seeds=SEEDS[k : k + 1], **given)
        one.advance(4)
        assert torch.equal(one.theta[0], many.theta[k])


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_radius_of_zero_is_not_attacked(attack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes no bit, and costs no attack."""
    x, y = digits([0])
    model = {"model": MLP(depth=3, width=8), "optimizer": Steepest(Constant(1e-2)), "steps": 20, "seeds": [0, 1]}
    runs = train(make_runs(x[0], y[0], [0.0, 0.0], attack=attack, **model))
    rows = torch.arange(2)
    batch = Batch(runs.train.x[0], runs.train.y[0], runs.eps[0], runs.bound[0], {})
    noise = attack.draw(12, x.shape[-1], torch.Generator())
    assert torch.equal(perturbed(runs.recipe, attack, runs.theta[0], batch, noise), batch.x)
    asked: list[int] = []
    perturb = type(attack).perturb

    def counted(self, victim, eps, noise):  # type: ignore[no-untyped-def]
        asked.append(1)
        return perturb(self, victim, eps, noise)

    monkeypatch.setattr(type(attack), "perturb", counted)
    again = train(make_runs(x[0], y[0], [0.0, 0.0], attack=attack, **model))
    attacked(again, attack, again.train, again.eps, rows)
    again.log_losses(rows)
    assert not asked
    mixed = train(make_runs(x[0], y[0], [0.0, 0.1], attack=attack, **model))
    assert asked
    assert torch.equal(mixed.theta[0], again.theta[0])


def test_runs_end_at_their_own_steps_and_stay_there() -> None:
    x, y = digits(SEEDS)
    runs = make_runs(x, y, EPS, seeds=SEEDS, loss=1e-3, steps=5000)
    ended: dict[int, torch.Tensor] = {}
    while len(runs.running):
        runs.advance(10)
        for k in range(4):
            if int(runs.status[k]) != RUNNING:
                ended.setdefault(k, runs.theta[k].clone())
    assert set(runs.status.tolist()) == {CONVERGED}
    assert len(set(runs.stopped_at.tolist())) > 1
    for k, theta in ended.items():
        assert torch.equal(theta, runs.theta[k])
    assert bool((runs.log_losses(torch.arange(4)) <= math.log(1e-3)).all())


def test_a_run_stops_at_the_first_step_below_the_target() -> None:
    x, y = separable(10, 20)
    runs = train(make_runs(x, y, [0.01], loss=1e-2, steps=1000))
    stopped = int(runs.stopped_at[0])
    before = make_runs(x, y, [0.01], steps=stopped - 1)
    assert float(train(before).log_losses(torch.tensor([0]))[0]) > math.log(1e-2)
    exactly = train(make_runs(x, y, [0.01], loss=1e-2, steps=stopped))
    assert int(exactly.status[0]) == CONVERGED
    assert int(train(make_runs(x, y, [0.01], loss=1e-2, steps=stopped - 1)).status[0]) == MAX_STEPS


def test_zero_steps() -> None:
    x, y = separable(10, 20)
    runs = train(make_runs(x, y, [0.0], steps=0))
    assert int(runs.status[0]) == MAX_STEPS
    assert int(runs.stopped_at[0]) == 0


def stored(kept: dict[str, Any]) -> dict[str, Any]:
    """Through the file format of checkpoints."""
    buffer = io.BytesIO()
    torch.save(kept, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


@pytest.mark.parametrize("case", CASES)
def test_resuming_is_bit_for_bit(case: str) -> None:
    x, y = digits(SEEDS)
    build = lambda: make_runs(x, y, EPS, seeds=SEEDS, **CASES[case])  # noqa: E731
    whole = train(build(), chunk=50)
    first = build()
    first.advance(23)
    second = build()
    second.t = first.t
    load(second, {k: stored(export(first, k)) for k in range(4)})
    train(second, chunk=41)
    assert torch.equal(whole.theta, second.theta)
    assert torch.equal(whole.status, second.status)
    assert torch.equal(whole.stopped_at, second.stopped_at)


def evaluate(runs: Runs, **extra: Any) -> list[dict[str, float]]:
    evaluation = Evaluation(runs.train, [None] * len(runs.eps), extra.get("attacks", {}), extra.get("eps", runs.eps))
    return measure(runs, evaluation, torch.arange(len(runs.eps)))


def test_measurements_of_a_linear_model_by_hand() -> None:
    x, y = separable(15, 6)
    runs = make_runs(x, y, [0.2], model=Linear(init_scale=1.0))
    w = runs.theta[0].numpy()
    row = evaluate(runs)[0]
    clean, robust = y * (x @ w), y * (x @ w) - 0.2 * np.abs(w).sum()
    assert row["train_clean_acc"] == np.mean(clean > 0)
    assert row["test_robust_acc"] == row["train_robust_acc"] == np.mean(robust > 0)
    assert row["gap_robust"] == 0
    assert row["log_loss"] == pytest.approx(np.log(np.exp(-robust).sum()), rel=1e-12)
    for name, order in (("l1", 1), ("l2", 2), ("linf", math.inf)):
        size = np.linalg.norm(w, ord=order)
        assert row[f"margin_robust_{name}"] == row[f"w_margin_robust_{name}"] == pytest.approx(robust.min() / size)
        assert row[f"w_margin_clean_{name}"] == pytest.approx(clean.min() / size)
        assert row[f"norm_{name}"] == pytest.approx(size)


def test_margins_of_a_net_do_not_change_with_its_scale() -> None:
    """Degree L: multiplying theta by a leaves every normalised margin where it is."""
    x, y = digits([0])
    for model, degree in (
        (MLP(width=8, depth=3), 3),
        (MLP(width=8, bias="first"), 2),
        (Diagonal(depth=3, alpha=0.3), 3),
    ):
        attack = Exact() if isinstance(model, Diagonal) else PGD()
        runs = make_runs(x[0], y[0], [0.1], model=model, attack=attack)
        runs.theta += 0.01 * torch.randn(runs.theta.shape, generator=torch.Generator().manual_seed(0)).double()
        row = evaluate(runs)[0]
        runs.theta *= 1.7
        scaled = evaluate(runs)[0]
        assert scaled["margin_robust"] == pytest.approx(1.7**degree * row["margin_robust"])
        normalised = [k for k in row if k.startswith(("margin_clean_", "margin_robust_", "w_margin"))]
        assert len(normalised) >= 6
        for k in normalised:
            assert scaled[k] == pytest.approx(row[k], rel=1e-9), k


def test_no_normalised_margin_without_homogeneity() -> None:
    x, y = digits([0])
    row = evaluate(make_runs(x[0], y[0], [0.1], model=MLP(width=4, bias="all"), attack=PGD()))[0]
    assert "margin_robust" in row
    assert not [k for k in row if k.startswith("margin_robust_")]


def test_several_evaluation_attacks_side_by_side() -> None:
    x, y = digits([0])
    runs = train(make_runs(x[0], y[0], [0.15], model=MLP(width=8), attack=PGD(steps=1), steps=40))
    row = evaluate(runs, attacks={"l2": PGD(2.0), "strong": PGD(steps=50, random_start=True, restarts=3)})[0]
    parts = [row[f"train_robust_acc_{name}"] for name in ("train", "l2", "strong")]
    assert row["train_robust_acc"] <= min(parts) <= row["train_clean_acc"]


def test_evaluation_at_another_radius() -> None:
    x, y = digits([0])
    optimizer = Steepest(InverseLoss(0.05, 1, 1))
    runs = train(make_runs(x[0], y[0], [0.0], model=MLP(width=8), attack=PGD(), optimizer=optimizer, steps=100))
    row = evaluate(runs, eps=torch.tensor([0.3]).double())[0]
    assert row["train_robust_acc"] < row["train_clean_acc"]
    assert row["log_loss"] == pytest.approx(float(runs.log_losses(torch.tensor([0]))[0]))


def test_log_spaced() -> None:
    assert log_spaced(0, 10) == [0]
    assert log_spaced(1, 10) == [0, 1]
    assert log_spaced(1000, 1) == [0, 1, 10, 100, 1000]
    steps = log_spaced(200_000, 10)
    assert steps[0] == 0
    assert steps[-1] == 200_000
    assert steps == sorted(set(steps))
    assert len(steps) < 60


def test_evaluation_in_chunks_is_evaluation_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = separable(50, 6)
    runs = make_runs(x, y, [0.2, 0.1], model=Linear(init_scale=1.0), attack=PGD())
    whole = attacked(runs, PGD(), runs.train, runs.eps, torch.arange(2))
    monkeypatch.setattr("robust_erm.training.attacked.CHUNK", 7)
    assert torch.allclose(whole, attacked(runs, PGD(), runs.train, runs.eps, torch.arange(2)), rtol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
def test_blocks_evaluated_together_are_those_evaluated_alone(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is given several blocks of points at once: with the noise that each has alone."""
    x, y = digits([0, 1, 2])
    attack = PGD(random_start=True, restarts=2)
    runs = make_runs(x, y, [0.2, 0.1], seeds=[0, 1], attack=attack, model=MLP(width=8, init_scale=1.0))
    runs.compiled, runs.net = compiled, None
    runs.order = Order(runs.train.x.shape[-2], 5, -(-runs.train.x.shape[-2] // 5))
    monkeypatch.setattr("robust_erm.training.attacked.CHUNK", 5)
    rows, sizes, plain = torch.arange(2), [], runs.noise
    monkeypatch.setattr(runs, "noise", lambda *given: sizes.append(given[2]) or plain(*given))

    def measured() -> list[torch.Tensor]:
        given = runs.train, runs.eps, rows
        return [
            attacked(runs, attack, *given),
            attacked_points(runs, attack, *given),
            clean(runs, runs.train, rows),
            *runs.losses_and_gradients(rows),
        ]

    alone, drawn = measured(), list(sizes)
    sizes.clear()
    monkeypatch.setattr("robust_erm.training.attacked._blocks_at_once", lambda *_: 2)
    for one, together in zip(alone, measured(), strict=True):
        torch.testing.assert_close(together, one, rtol=1e-11, atol=1e-13)
    assert sizes == drawn
    assert drawn == [5, 5, 2] * 3


@pytest.mark.parametrize("attack", [PGD(), PGD(2.0, random_start=True)], ids=["fixed", "random"])
def test_whoever_is_interrupted_has_taken_no_step_or_all(attack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are stepped some at a time: an interruption between them leaves all at the step before, noise and all."""
    x, y = digits([0, 1, 2])
    options: dict[str, Any] = {"model": MLP(width=8), "optimizer": Momentum(Constant(1e-3)), "attack": attack}
    make: Any = lambda: make_runs(x, y, [0.1, 0.2, 0.05], seeds=[0, 1, 2], steps=40, **options)  # noqa: E731
    monkeypatch.setattr("robust_erm.training.stacked.CACHE", 1)
    expected = train(make())
    runs, calls = make(), iter(range(100))
    runs.advance(3)
    step = Runs._advance

    def broken(self: Runs, rows: torch.Tensor, n: int) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return step(self, rows, n)

    with monkeypatch.context() as patch:
        patch.setattr(Runs, "_advance", broken)
        with pytest.raises(KeyboardInterrupt):
            runs.advance(5)
    kept = [export(runs, i) for i in range(3)]
    assert [one["t"] for one in kept] == [3, 3, 3]
    again = make()
    again.t = 3
    load(again, dict(enumerate(kept)))
    assert torch.equal(train(again).theta, expected.theta)
