"""An optimizer as three factors: what is published under a name, and what users put together without any Python."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_runs, separable, train
from torch.func import vmap

from robust_erm.accumulators.lion import TwoMeans
from robust_erm.accumulators.moments import Moments
from robust_erm.accumulators.momentum import Velocity
from robust_erm.accumulators.none import NoMemory
from robust_erm.accumulators.shampoo import Shampoo
from robust_erm.attacks.none import NoAttack
from robust_erm.core.errors import ConfigError
from robust_erm.core.params import Layout
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.models.mlp import MLP
from robust_erm.optimizers.descent import Descent
from robust_erm.optimizers.optimizer import first_state
from robust_erm.optimizers.spectral import Spectral
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant
from robust_erm.store.config import Run
from robust_erm.training import contracts
from robust_erm.training.step import native

STEP = Constant(1e-2)


def muon(w: torch.Tensor, state: dict[str, torch.Tensor], lr: float) -> torch.Tensor:
    """The step of Jordan et al.'s script, with exact polar factors: lerps, momentum 0.95, Nesterov's."""
    grad, buffer = w.grad, state.setdefault("m", torch.zeros_like(w))
    assert grad is not None
    buffer.lerp_(grad, 1 - 0.95)
    u, _, vh = torch.linalg.svd(grad.lerp(buffer, 0.95), full_matrices=False)
    return w.data - lr * u @ vh


def signum(w: torch.Tensor, state: dict[str, torch.Tensor], lr: float) -> torch.Tensor:
    """Bernstein et al. 2018, Alg. 2."""
    grad = w.grad
    assert grad is not None
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * grad
    return w.data - lr * state["m"].sign()


def lion(w: torch.Tensor, state: dict[str, torch.Tensor], lr: float) -> torch.Tensor:
    """Chen et al. 2023, Program 1, no decay."""
    grad, m = w.grad, state.get("m", torch.zeros_like(w))
    assert grad is not None
    state["m"] = 0.99 * m + 0.01 * grad
    return w.data - lr * (0.9 * m + 0.1 * grad).sign()


SCRIPTS: dict[str, tuple[Any, Any]] = {
    "muon": (Descent(STEP, Layers(), Velocity(0.95, nesterov=True)), muon),
    "signum": (Descent(STEP, Lp(math.inf), Velocity()), signum),
    "lion": (Descent(STEP, Lp(math.inf), TwoMeans()), lion),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_against_the_published_scripts(name: str) -> None:
    """Forty steps of a net on the plain exponential loss, by a script as published and by us in the log domain."""
    ours, script = SCRIPTS[name]
    assert ours.nickname == name
    x, y = separable(10, 5)
    model = MLP(width=6, init_scale=1.0)
    runs = make_runs(x, y, [0.0], model=model, attack=NoAttack(), optimizer=ours, steps=40)
    layout, start = runs.recipe.layout, runs.theta[0].clone()
    params = {k: v.clone().requires_grad_() for k, v in layout.unflatten(start).items()}
    states: dict[str, dict[str, torch.Tensor]] = {k: {} for k in params}
    for _ in range(40):
        f = model.apply(params, torch.from_numpy(x))
        torch.exp(-torch.from_numpy(y) * f).sum().backward()
        for k, w in params.items():
            w.data = script(w, states[k], 1e-2)
            w.grad = None
    assert torch.allclose(train(runs).theta[0], layout.flatten(params).detach(), rtol=1e-7, atol=1e-9)


def test_named_optimizers_are_their_factors() -> None:
    """The same steps, normalized or not, whether the factors are named or spelled out."""
    layout = Layout((("W", (4, 3)), ("b", (4,))))
    g, loss = torch.randn(16, generator=torch.Generator().manual_seed(0)).double(), torch.tensor(-2.0).double()
    for normalized in (False, True):
        for named, norm in ((Steepest(STEP, 3.0, normalized), Lp(3.0)), (Spectral(STEP, normalized), Layers())):
            spelled = Descent(STEP, norm, NoMemory(), normalized)
            one, other = (o.update(g, loss, o.init(g), layout) for o in (named, spelled))
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
            assert named.scales_with_loss == spelled.scales_with_loss == (not normalized)
            assert named.norm == norm


def test_shampoo_without_a_memory_is_spectral_descent() -> None:
    """Bernstein & Newhouse 2024; up to the root of rounding, for it squares the singular values."""
    layout = Layout((("W", (4, 3)), ("b", (4,))))
    g, loss = torch.randn(16, generator=torch.Generator().manual_seed(0)).double(), torch.tensor(-2.0).double()
    steps = []
    for optimizer in (Descent(STEP, Lp(2.0), Shampoo(0.0), normalized=False), Spectral(STEP, normalized=True)):
        direction, scale, _ = optimizer.update(g, loss, first_state(optimizer, g, layout), layout)
        steps.append(scale.exp() * direction)
    assert torch.allclose(*steps, rtol=1e-7)


class Begun(Descent):
    """Starts otherwise."""

    def init(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"velocity": torch.ones_like(theta), "unit": torch.zeros_like(theta[0])}


def test_an_init_of_ones_own_is_asked() -> None:
    theta, layout = torch.zeros(16).double(), Layout((("W", (4, 3)), ("b", (4,))))
    ours, theirs = (kind(STEP, Lp(2.0), Velocity()) for kind in (Descent, Begun))
    assert not first_state(ours, theta, layout)["velocity"].any()
    assert first_state(theirs, theta, layout)["velocity"].all()


def test_what_they_are_called() -> None:
    assert Descent(STEP, Layers(polar="newton_schulz"), Velocity(nesterov=True)).nickname == "muon_ns"
    assert Descent(STEP, Lp(2.0), Velocity()).nickname == "nmd"
    assert Descent(STEP, Lp(2.0), Shampoo(), normalized=False).nickname == "shampoo"
    assert Descent(STEP, Lp(2.0), Velocity(), normalized=False).nickname == "l2_momentum"
    assert Descent(STEP, Layers(1.0, 1.0), Moments()).nickname == "s1_l1_adam"


PARTS: list[Any] = [Layers(), Layers(1.0, 2.0), Layers(3.0, 1.0, vectors=1.0)]


@pytest.mark.parametrize(
    "accumulator", [NoMemory(), Velocity(nesterov=True), TwoMeans(), Moments()], ids=lambda a: a.name
)
@pytest.mark.parametrize("geometry", [*PARTS, Lp(1.5)], ids=lambda g: g.name)
def test_a_step_of_all_runs_is_that_of_each(geometry: Any, accumulator: Any) -> None:
    layout = Layout((("W", (4, 3)), ("b", (4,))))
    optimizer = Descent(STEP, geometry, accumulator)
    assert native(optimizer)
    g = torch.Generator().manual_seed(1)
    state = {k: torch.stack([v] * 3) for k, v in first_state(optimizer, torch.zeros(16).double(), layout).items()}
    other = state
    for _ in range(4):
        grad, loss = (torch.randn(3, *s, generator=g, dtype=torch.float64) for s in ((16,), ()))
        direction, scale, state = optimizer.update(grad, loss, state, layout)
        mapped, unit, other = vmap(lambda a, b, s: optimizer.update(a, b, s, layout))(grad, loss, other)
        assert torch.allclose(direction, mapped, rtol=1e-12, atol=1e-14)
        assert torch.equal(scale, unit)
        assert all(torch.equal(state[k], other[k]) for k in state)


MINE = """
# steepest descent of Nesterov's momentum in the sum of the layers' nuclear norms
defaults: [{geometry: layers}, {accumulator: nesterov}, {schedule: power}, _self_]
_target_: robust_erm.optimizers.descent.Descent
normalized: true
geometry: {r: 1.0, across: 1.0}
accumulator: {beta: 0.8}
"""


def test_a_users_optimizer_is_one_yaml_and_no_python(tmp_path: Path) -> None:
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "nuclear.yaml").write_text(MINE)
    small = ["data=digits", "data.m=10", "model=mlp", "model.width=5", "eps=0.05", "logger=none", "stop.steps=3"]
    line = [sys.executable, "-m", "robust_erm.train", "--config-dir", "mine", "optimizer=nuclear", *small]
    done = subprocess.run([*line, "run_dir=out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["step"] == 3
    assert summary["margin_robust_s1_l1"] == pytest.approx(summary["margin_robust"] / summary["norm_s1_l1"] ** 2)


class Half:
    """No norm: its steepest direction has length 1 / 2."""

    run_axis = True
    name = "half"
    value = staticmethod(lambda theta, layout: theta.norm(dim=-1))
    dual_value = value
    steepest = staticmethod(lambda g, layout: g / (2 * g.norm(dim=-1, keepdim=True)))
    sharp = staticmethod(lambda g, layout: g)


def test_a_geometry_that_is_no_norm_is_refused(resolved: Callable[..., Run]) -> None:
    import dataclasses

    run = resolved("optimizer=nmd", "data.m=10", "model.width=5")
    bad = dataclasses.replace(run.optimizer, geometry=dataclasses.dataclass(frozen=True)(Half)())
    contracts.check(run)
    with pytest.raises(ConfigError, match=r"optimizer.geometry = .*Half: value of steepest\(g\) must be 1, differs by"):
        contracts.check(dataclasses.replace(run, optimizer=bad))
