"""The compiled step against the mapped one, and what a run's bits may depend on."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_runs, separable, train

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.data.gaussian import Gaussian
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.bounded_loss import BoundedLoss
from robust_erm.schedules.constant import Constant
from robust_erm.schedules.growing import Growing
from robust_erm.training import kernels
from robust_erm.training.kept import export, load
from robust_erm.training.kernels import compiled
from robust_erm.training.kernels.dense import Dense
from robust_erm.training.kernels.sparse import Sparse
from robust_erm.training.runs import Runs

EPS = [0.0, 0.02, 0.05]
INF = math.inf

# smooth wherever they go within these steps, so that rounding stays rounding; see below for kinks
CASES: dict[str, dict[str, Any]] = {
    "gd": {"attack": Exact(2.0), "optimizer": Steepest(BoundedLoss()), "steps": 300, "loss": 1e-3},
    "gd mean": {"attack": Exact(2.0), "optimizer": Steepest(BoundedLoss()), "objective": Objective(reduction="mean")},
    "gd normalized": {"attack": Exact(2.0), "optimizer": Steepest(Growing(1e-3, 1.5, 10), 2.0, True)},
    "cd": {"attack": Exact(), "optimizer": Steepest(BoundedLoss(), 1.0), "steps": 300},
    "cd normalized": {"attack": Exact(), "optimizer": Steepest(Constant(1e-3), 1.0, True)},
    "sd": {"attack": Exact(2.0), "optimizer": Steepest(Constant(1e-3), INF, True)},
    "sd scaled": {"attack": NoAttack(), "optimizer": Steepest(Constant(1e-7), INF)},
    "diagonal gd": {"model": Diagonal(alpha=0.3), "attack": Exact(2.0), "optimizer": Steepest(Constant(1e-4))},
    "diagonal 3": {"model": Diagonal(3, 1.0), "attack": NoAttack(), "optimizer": Steepest(Constant(1e-5))},
    "diagonal cd": {"model": Diagonal(alpha=0.3), "attack": Exact(), "optimizer": Steepest(Constant(1e-4), 1.0)},
    "start anywhere": {"model": Linear(0.1), "attack": Exact(), "optimizer": Steepest(Constant(1e-5))},
}


def points(sparse: bool) -> tuple[Any, Any]:
    if not sparse:
        return separable(40, 60)
    drawn = Gaussian(d=64, m=48, k_w=64, k_x=4).draw(0)
    return drawn.x_train, drawn.y_train


def both(sparse: bool, eps: list[float], **case: Any) -> tuple[Runs, Runs]:
    """The compiled and the mapped form of the same runs."""
    found = []
    for compiled_ in (True, False):
        runs = make_runs(*points(sparse), eps, **{"steps": 150, **case})
        runs.recipe, runs.compiled = dataclasses.replace(runs.recipe, sparse=sparse), compiled_
        runs.__post_init__()
        found.append(runs)
    assert found[1].kernel is None
    return found[0], found[1]


@pytest.mark.parametrize("case", CASES)
def test_compiled_is_mapped(case: str) -> None:
    fast, slow = both(False, EPS, **CASES[case])
    assert isinstance(fast.kernel, Dense)
    train(fast), train(slow)
    assert torch.equal(fast.status, slow.status)
    assert torch.equal(fast.stopped_at, slow.stopped_at)
    assert torch.allclose(fast.theta, slow.theta, rtol=0, atol=1e-11 * float(slow.theta.abs().max()))


@pytest.mark.parametrize("case", ["cd", "cd normalized", "diagonal cd"])
def test_sparse_is_mapped(case: str) -> None:
    fast, slow = both(True, EPS, **CASES[case])
    assert isinstance(fast.kernel, Sparse)
    train(fast), train(slow)
    assert torch.equal(fast.status, slow.status)
    assert torch.allclose(fast.theta, slow.theta, rtol=0, atol=1e-11 * float(slow.theta.abs().max()))


@pytest.mark.parametrize("r", [2.0, INF])
def test_kinks_before_rounding_grows(r: float) -> None:
    """At kinks of eps ||w||_1 any two ways to round drift apart; for the first steps they agree."""
    optimizer = Steepest(BoundedLoss(), r) if r == 2 else Steepest(Constant(1e-3), r, True)
    fast, slow = both(False, EPS, attack=Exact(), optimizer=optimizer, steps=15)
    train(fast), train(slow)
    assert torch.allclose(fast.theta, slow.theta, rtol=0, atol=1e-11 * float(slow.theta.abs().max()))


def test_kinks_end_at_the_same_loss() -> None:
    """Where the paths differ by rounding at kinks, they still go to the same minimum."""
    fast, slow = both(False, [0.05], attack=Exact(), optimizer=Steepest(BoundedLoss()), steps=2000, loss=1e-6)
    train(fast), train(slow)
    assert torch.equal(fast.status, slow.status)
    assert abs(int(fast.stopped_at[0]) - int(slow.stopped_at[0])) <= 0.02 * int(slow.stopped_at[0])


@pytest.mark.parametrize("sparse", [False, True])
def test_divergence_keeps_the_best_state(sparse: bool) -> None:
    optimizer = Steepest(Constant(1e3), 1.0)
    fast, slow = both(sparse, [0.0, 0.05], attack=Exact(), optimizer=optimizer, steps=400)
    train(fast), train(slow)
    assert fast.status.tolist() == slow.status.tolist()
    assert bool(fast.theta.isfinite().all())
    assert torch.allclose(fast.theta, slow.theta, rtol=1e-9)


def test_exponentials() -> None:
    import numpy as np

    t = np.concatenate([np.linspace(-745, 0, 4001), [-1e4, -np.inf]])
    out, bits = np.empty_like(t), np.empty(len(t), dtype=np.int64)
    compiled.exp_into(t[:-1], 1.0, 0.0, out[:-1], bits[:-1])
    exact = np.exp(t[:-1])
    ordinary = t[:-1] > -708
    assert np.max(np.abs(out[:-1][ordinary] / exact[ordinary] - 1)) < 1e-15
    assert np.all(out[:-1][~ordinary] <= 1e-307)
    compiled.exp_into(np.array([np.nan, -1.0]), 1.0, 0.0, out[:2], bits[:2])
    assert np.isnan(out[0])
    assert out[1] == pytest.approx(math.exp(-1), rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("m", "d"), [(40, 60), (7, 33), (64, 512), (300, 100)])
def test_a_row_of_a_product_does_not_depend_on_the_number_of_rows(m: int, d: int, dtype: torch.dtype) -> None:
    """What pack = solo, bit for bit, rests on: padded shapes, as kernels/dense.py uses them, and one thread."""
    assert torch.get_num_threads() == 1
    generator = torch.Generator().manual_seed(0)
    wide, tall = -(-d // 16) * 16, -(-m // 16) * 16
    z = torch.randn(tall, wide, generator=generator).to(dtype)
    for right in (z, z.mT.contiguous()):
        left = torch.randn(64, right.shape[0], generator=generator).to(dtype)
        whole = torch.mm(left, right)
        for rows in range(4, 64, 4):
            assert torch.equal(torch.mm(left[:rows], right), whole[:rows])
            assert torch.equal(torch.mm(left[64 - rows :], right), whole[64 - rows :])


@pytest.mark.parametrize("case", ["gd", "cd", "diagonal gd"])
def test_several_data_sets_in_one_pack(case: str) -> None:
    """Runs of three data sets, in no order: each is the run alone, to the last bit."""
    import numpy as np

    drawn = [separable(40, 60, seed) for seed in range(3)]
    x, y = np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn])
    which = [2, 0, 1, 0, 2, 2, 0]
    eps = [0.0, 0.01, 0.02, 0.05, 0.01, 0.05, 0.0]
    together = make_runs(x[which], y[which], eps, **{"steps": 150, **CASES[case]})
    shared = make_runs(x[which], y[which], eps, **{"steps": 150, **CASES[case]})
    shared.train.x, shared.train.y, shared.train.of_run = (
        torch.as_tensor(x),
        torch.as_tensor(y),
        torch.tensor(which),
    )
    shared.__post_init__()
    train(together), train(shared, 33)
    assert torch.equal(together.theta, shared.theta)
    for k in (0, 3):
        alone = train(make_runs(x[which[k]], y[which[k]], eps[k : k + 1], **{"steps": 150, **CASES[case]}))
        assert torch.equal(alone.theta[0], shared.theta[k])


def take_over(second: Runs, first: Runs) -> None:
    """Put all runs to where the first pack has left them."""
    second.t = first.t
    load(second, {k: export(first, k) for k in range(len(first.seeds))})


def test_resuming_sparse_is_bit_for_bit() -> None:
    whole, _ = both(True, EPS, **CASES["cd"])
    first, _ = both(True, EPS, **CASES["cd"])
    second, _ = both(True, EPS, **CASES["cd"])
    train(whole, 50)
    first.advance(37)
    take_over(second, first)
    train(second, 29)
    assert torch.equal(whole.theta, second.theta)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_checkpoints_cross_between_the_forms(case: str, sparse: bool) -> None:
    """A device has the mapped form alone, and so has a CPU where numba is missing; after 37 steps, within a refresh."""
    for start in (0, 1):
        whole = train(both(sparse, EPS, **CASES[case])[0])
        first, second = both(sparse, EPS, **CASES[case])[start], both(sparse, EPS, **CASES[case])[1 - start]
        first.advance(37)
        take_over(second, first)
        train(second, 29)
        assert torch.equal(whole.stopped_at, second.stopped_at)
        assert torch.allclose(whole.theta, second.theta, rtol=0, atol=1e-11 * float(whole.theta.abs().max()))


def test_a_checkpoint_of_the_compiled_form_where_numba_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, whole = both(False, EPS, **CASES["cd"])[0], train(both(False, EPS, **CASES["cd"])[0])
    first.advance(37)
    monkeypatch.setattr(kernels, "_loaded", lambda *_: None)
    second, _ = both(False, EPS, **CASES["cd"])
    assert second.compiled
    assert second.kernel is None
    take_over(second, first)
    train(second)
    assert torch.allclose(whole.theta, second.theta, rtol=0, atol=1e-11 * float(whole.theta.abs().max()))


def test_nets_where_numba_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They train by calls of torch, to the same numbers."""
    given: dict[str, Any] = {"model": MLP(width=8), "objective": Objective("logistic"), "attack": FGM(INF), "steps": 30}
    found = []
    for missing in (False, True):
        if missing:
            monkeypatch.setattr(kernels, "_loaded", lambda *_: None)
        kernels.for_scores.cache_clear()
        kernels.for_attacks.cache_clear()
        assert (kernels.for_scores(given["objective"], torch.float64) is None) is missing
        found.append(train(make_runs(*points(False), EPS, optimizer=Steepest(Constant(1e-2)), **given)).theta)
    kernels.for_scores.cache_clear()
    kernels.for_attacks.cache_clear()
    assert torch.allclose(*found, rtol=0, atol=1e-11 * float(found[0].abs().max()))


def test_step_sizes_differ_within_a_pack() -> None:
    """numbers stands for the optimizer's fields, compiled and mapped."""
    lrs = [1e-4, 3e-4, 1e-3]
    for compiled_ in (True, False):
        runs = make_runs(*points(False), [0.02] * 3, optimizer=Steepest(Constant(1.0)), attack=Exact(2.0), steps=100)
        runs.numbers, runs.compiled = {"schedule.lr": torch.tensor(lrs).double()}, compiled_
        runs.__post_init__()
        train(runs)
        for k, lr in enumerate(lrs):
            optimizer = Steepest(Constant(float(runs.numbers["schedule.lr"][k])))
            alone = make_runs(*points(False), [0.02], optimizer=optimizer, attack=Exact(2.0), steps=100)
            alone.compiled = compiled_
            alone.__post_init__()
            assert torch.equal(train(alone).theta[0], runs.theta[k]), lr


TRAINED = """
import hashlib, sys
sys.path[:0] = [{root!r}, {tests!r}]
from conftest import make_runs, train
from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fgm import FGM
from robust_erm.data.gaussian import Gaussian
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.training.kernels import compiled, compiled_stacks
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.bounded_loss import BoundedLoss
from robust_erm.schedules.constant import Constant
drawn = Gaussian(d=40, m=32, k_w=40, k_x=40).draw(1)
optimizer = Steepest(BoundedLoss(), 2.0)
given = {{"optimizer": optimizer, "attack": Exact(), "steps": 300}}
runs = make_runs(drawn.x_train, drawn.y_train, [0.0, 0.059], **given)
given = {{"model": MLP(width=8), "objective": Objective("logistic"), "optimizer": Steepest(Constant(1e-2))}}
nets = make_runs(drawn.x_train, drawn.y_train, [0.0, 0.059], **given, attack=FGM(float("inf")), steps=50)
found = b"".join(train(some).theta.numpy().tobytes() for some in (runs, nets))
functions = compiled.update, compiled_stacks.descend_into, compiled_stacks.grads_into
print(hashlib.sha256(found).hexdigest(), sum(sum(f.stats.cache_misses.values()) for f in functions))
"""


@pytest.mark.turns(90)
def test_first_use_gives_the_bits_of_every_later_one(tmp_path: Path) -> None:
    """Nobody trains with code that they compiled themselves: it may differ in the last bit."""
    root = Path(__file__).resolve().parents[3]
    script = TRAINED.format(root=str(root), tests=str(root / "tests"))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    line = [sys.executable, "-c", script]
    said = [subprocess.run(line, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.split()[1] == "0"
    assert "compiling loops (stacks, torch.float64), once on this machine" in said[0].stderr
    assert "compiling" not in said[1].stderr
