"""Every yaml of conf/optimizer, found by itself, comes to the max-margin separator of its own norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from conftest import make_runs, train

from robust_erm.accumulators.moments import Moments
from robust_erm.accumulators.momentum import Velocity
from robust_erm.accumulators.none import NoMemory
from robust_erm.accumulators.shampoo import Shampoo
from robust_erm.attacks.none import NoAttack
from robust_erm.core.fields import numbers
from robust_erm.core.norms import Norm
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.models.linear import Linear
from robust_erm.objectives import Objective
from robust_erm.optimizers.descent import Descent
from robust_erm.oracles.linearised import margin_gap
from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.schedules.constant import Constant
from robust_erm.store.config import Run
from robust_erm.store.source import conf_dir
from robust_erm.training.problem import build


def found_in(folder: str) -> list[str]:
    """Names of the yamls in a folder of conf/optimizer."""
    return sorted(path.stem for path in (conf_dir() / "optimizer" / folder).glob("*.yaml"))


STAYS = "decayed"  # which ends at the least of loss and penalty: test_optimizers.py
NAMES = [name for name in found_in("") if name != STAYS]

# By how much of the greatest robust margin per ||w||_r a run may miss it, and after how many steps. At margin gamma it
# misses some log(m) / (gamma ||w||), and the more, the more of the margin the threat takes. -log L, and ||w|| with it,
# grows like t where steps are on log L, or are normalized and of one length: the distance falls like 1 / t. With one
# step size on L it grows like log t: some 10 % are left after 10,000 steps of this problem.
# Steps and distances are of the yaml's own schedule with its own numbers, unless INSTEAD says why not.
STEPS = {
    "gd": (2000, 0.025),  # 1 / t: 0.16 at 300, 0.04 at 1000
    "cd": (10_000, 0.015),  # 1 / t until 1 / L has come to eta_plus, 1e5; then 1 / log t
    "sd": (70_000, 0.02),  # 1 / t, at ||w||_inf <= 2e-4 t
    "momentum": (1000, 0.015),  # 1 / t
    "steepest": (1000, 0.015),  # 1 / t
    "spectral": (1000, 0.01),  # 1 / t
    "adam": (1500, 0.02),  # 1 / t
    "descent": (1000, 0.01),  # 1 / t
    "nmd": (1000, 0.01),  # 1 / t
    "signum": (3000, 0.015),  # t^-0.6, as ||w|| grows
    "lion": (5000, 0.02),  # 1 / t
    "muon": (2000, 0.012),  # 1 / t
    "muon_ns": (2000, 0.012),  # a column has one singular value: the same
    "shampoo": (2000, 0.02),  # 1 / t
    "mirror": (1000, 0.012),  # t^-2
    "oracle": (0, 1e-9),
}
INSTEAD = {
    # constant on L: 1 / log t; where it grows like e^(0.018 t), 1 / t
    "momentum": "optimizer/schedule=growing schedule.lr=1e-2 schedule.factor=1.2 schedule.every=10",
    # 1 / t, but ||w|| <= 1 after 1,000 steps of 1e-3
    "spectral": "schedule.lr=0.05",
    # eta = 0.01 (t + 1)^-0.5: ||w|| <= 2 after 10,000 steps
    "descent": "schedule.lr=0.05 schedule.a=0",
    "nmd": "schedule.lr=0.05 schedule.a=0",
    "signum": "schedule.lr=0.1 schedule.a=0.4",
    # and L must not outrun what a memory forgets in a step, log beta: else old gradients outweigh all later ones. Lion
    # stays at 0.89 of the margin for thousands of steps of 0.02, Muon at 0.98 for steps of 0.05
    "lion": "schedule.lr=0.003 schedule.a=0",
    "muon": "schedule.lr=0.02 schedule.a=0",
    "muon_ns": "schedule.lr=0.02 schedule.a=0",
    "shampoo": "schedule.lr=0.02 schedule.a=0",
    # ||w|| grows like t^(1 / (r - 1)): t^(1/2) for the yaml's r = 3
    "mirror": "r=1.5",
    # epsilon = 1e-8 makes GD of it once L is far below; and as v forgets, its root falls by beta2^(1/2) a step, which
    # L must not outrun: with 0.999 in 1,500 steps by no more than e^-0.75
    "adam": "epsilon=0 beta2=0.9 schedule.lr=0.01",
}


def on_a_row(norm: Lp | Layers) -> float:
    """The exponent that a norm of all parameters has on one vector of weights."""
    return norm.r if isinstance(norm, Lp) else norm.vectors


@pytest.mark.turns(4)
@pytest.mark.parametrize("p", ["2", "inf"])
@pytest.mark.parametrize("name", NAMES)
def test_it_comes_to_the_separator_of_its_own_norm(name: str, p: str, resolved: Callable[..., Run]) -> None:
    """Six points in R^10, clean and at half the margin under the exact attack, as one pack."""
    data = ("data=gaussian", "data.d=10", "data.m=6", "data.m_test=10", "eps_unit=margin")
    options = [o if o.startswith("optimizer/") else f"optimizer.{o}" for o in INSTEAD.get(name, "").split()]
    line = (*data, "model=linear", "attack=exact", f"p={p}", "stop.loss=null", f"optimizer={name}", *options)
    steps, far = STEPS.get(name, (1000, 0.02))
    runs = [resolved(*line, f"stop.steps={steps}", f"eps={eps}") for eps in (0, 0.5)]
    pack, _, _ = build(runs, torch.device("cpu"))
    while len(pack.running):
        pack.advance(steps + 1)
    own = on_a_row(runs[0].optimizer.norm)
    z, threat = pack.train.x[0] * pack.train.y[0].unsqueeze(-1), Norm(float(p))
    for eps, w in zip(pack.eps, pack.theta, strict=True):
        margin = float((z @ w - eps * threat.dual.value(w)).min())
        share = {}
        for r in {1.0, 1.5, 2.0, math.inf, own}:
            best = robust_max_margin(z.numpy(), r, threat.p, float(eps))
            share[r] = margin / float(Norm(r).value(w)) / best.value
            assert share[r] <= best.upper / best.value * (1 + 1e-9)
        assert share[own] >= 1 - far, f"eps = {float(eps):g}"
        assert max(share, key=lambda r: share[r]) == own, "nearer to the separator of its norm than to any other"


CLASSES, WIDTH = 4, 6
SEVERAL = (Layers(), Layers(1.0), Layers(3.0), Layers(math.inf, 1.0, "entries"))
GEOMETRIES = {geometry.name: geometry for geometry in SEVERAL}
MOMENTUM = Velocity(0.5, nesterov=True)
STEP = Constant(0.05)
# by how much of the margin in their own norm 1,500 steps miss it
BEYOND = {
    "spectral": (Descent(STEP, Layers(), NoMemory()), 0.03),
    "s1_linf": (Descent(STEP, Layers(1.0), NoMemory()), 0.04),
    "s3_linf": (Descent(STEP, Layers(3.0), NoMemory()), 0.03),
    "linf_l1": (Descent(STEP, Layers(math.inf, 1.0, "entries"), NoMemory()), 0.03),
    "muon": (Descent(STEP, Layers(), MOMENTUM), 0.03),
    "shampoo": (Descent(STEP, Lp(2.0), Shampoo(), normalized=False), 0.03),  # with beta = 0.99 it stays at 0.90
    "adam": (Descent(Constant(0.02), Lp(2.0), Moments(epsilon=0.0, beta2=0.9), normalized=False), 0.03),
}


@pytest.mark.turns(5)
@pytest.mark.parametrize("name", BEYOND)
def test_of_a_matrix_it_is_the_separator_of_that_geometry(name: str) -> None:
    """A linear model of four classes, clean: the margin over ||W|| against the best that duality allows."""
    optimizer, far = BEYOND[name]
    own = "linf_l1" if optimizer.norm == Lp(math.inf) else optimizer.norm.name  # of one layer the same norm
    found = shares(optimizer, 1500)
    assert found[own] >= 1 - far
    assert max(found, key=lambda other: found[other]) == own, "nearer to the best of its norm than of any other"


@pytest.mark.turns
def test_what_newton_schulz_does_to_the_margin() -> None:
    """Muon as published stays well below the spectral margin, which exact polar factors come to."""
    exact, five = (Descent(STEP, Layers(polar=polar), MOMENTUM) for polar in ("exact", "newton_schulz"))
    assert five.norm == exact.norm == Layers()
    assert shares(five, 1500)["spectral"] < 0.9 < 0.97 < shares(exact, 1500)["spectral"]


@cache
def shares(optimizer: Descent, steps: int) -> dict[str, float]:
    """Of the greatest margin in each geometry, what the optimizer has come to."""
    g = torch.Generator().manual_seed(0)
    x, teacher = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((12, WIDTH), (WIDTH, CLASSES)))
    y = (x @ teacher).argmax(-1).double()
    options: dict[str, Any] = {"objective": Objective("cross_entropy"), "outputs": CLASSES, "steps": steps}
    runs = train(make_runs(x, y, [0.0], attack=NoAttack(), optimizer=optimizer, **options), steps)
    params = runs.recipe.layout.unflatten(runs.theta[0])
    return {name: 1 - margin_gap(Linear(), params, x, y, other) for name, other in GEOMETRIES.items()}


def test_no_line_is_left_of_an_optimizer_that_is_not_there() -> None:
    assert set(INSTEAD) <= set(STEPS) <= set(NAMES)


@pytest.mark.turns(4)
@pytest.mark.parametrize("name", ["gd", "cd", "sd", "steepest", "spectral", "momentum"])
def test_so_it_does_by_steps_that_follow_the_flow(name: str, resolved: Callable[..., Run]) -> None:
    """``relative`` sets the length of a step itself, and so suits any optimizer, whatever its own schedule was."""
    data = ("data=gaussian", "data.d=10", "data.m=6", "data.m_test=10", "eps_unit=margin")
    line = (*data, "model=linear", "attack=exact", "p=2", "stop.loss=null", "stop.steps=1500", f"optimizer={name}")
    runs = [resolved(*line, "optimizer/schedule=relative", f"eps={eps}") for eps in (0, 0.5)]
    assert runs[0].optimizer.schedule.lr == 0.01
    pack, _, _ = build(runs, torch.device("cpu"))
    while len(pack.running):
        pack.advance(2000)
    r = on_a_row(runs[0].optimizer.norm)
    z = pack.train.x[0] * pack.train.y[0].unsqueeze(-1)
    for eps, w in zip(pack.eps, pack.theta, strict=True):
        best = robust_max_margin(z.numpy(), r, 2.0, float(eps)).value
        share = float((z @ w - eps * w.norm()).min()) / float(Norm(r).value(w)) / best
        assert share > 0.9


LINES = [f"optimizer={name}" for name in found_in("")]
LINES += [f"optimizer=gd optimizer/schedule={name}" for name in found_in("schedule")]
LINES += [f"optimizer=descent optimizer/accumulator={name}" for name in found_in("accumulator")]
LINES += ["optimizer=descent optimizer/accumulator=momentum optimizer.accumulator.mean=true"]


@pytest.mark.parametrize("line", LINES)
def test_a_run_alone_has_the_bits_that_it_has_beside_others_numbers(line: str, resolved: Callable[..., Run]) -> None:
    """Whatever differs within a pack, every per-run field of every yaml: in float32, where 1 - 0.9 is not 0.1."""
    model = ("model=mlp", "model.width=6", "attack=fgm")
    if line.endswith(("=oracle", "=smooth")):  # which know linear models alone
        model = ("model=linear" if line.endswith("oracle") else "model=deep_linear", "attack=exact", "p=2")
    common = (*model, "data=digits", "data.m=30", "eps=0.05", "dtype=float32", "objective=logistic", *line.split())
    common = (*common, "stop.loss=null", "stop.steps=25")
    first = resolved(*common)
    for path, value in numbers(first.optimizer).items():
        runs = [first, resolved(*common, f"optimizer.{path}={0.93 * value or 0.1}")]
        together, _, _ = build(runs, torch.device("cpu"))
        assert list(together.numbers) == [path]
        train(together)
        for run, theta in zip(runs, together.theta, strict=True):
            alone, _, _ = build([run], torch.device("cpu"))
            assert not alone.numbers
            assert torch.equal(train(alone).theta[0], theta), path
