"""The scale of logits, of inputs and of parameters hides nothing: powers of two change no bit of an answer.

Scales reach from 2^-100 to 2^100 (1e-30 to 1e30). In float32 a square, a product of two gradients or an absolute
threshold among them is seen at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_erm.attacks.apgd import APGD
from robust_erm.attacks.attack import Victim
from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fab import FAB
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.pgd import PGD
from robust_erm.attacks.square import Square
from robust_erm.core.margins import by_layers, normalised
from robust_erm.core.params import Layout
from robust_erm.measures.norms import STANDARD
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.oracles.certified import Hidden, Region, certified_margin, crown_bound
from robust_erm.oracles.risk import gaussian_accuracy
from robust_erm.training.kernels import for_net, plan
from robust_erm.training.kernels.compiled import dual_norm
from robust_erm.training.step import Recipe

PS = [1.0, 2.0, math.inf]
EPS = {1.0: 2.0, 2.0: 1.0, math.inf: 0.5}
POWERS = st.integers(-100, 100)
DTYPES = [torch.float32, torch.float64]


def victim(power: int, dtype: torch.dtype, classes: int, box: bool, linear: bool, inputs: int = 0) -> Victim:
    """A net, or a linear model, whose logits are 2^power times as large, and its inputs 2^inputs times."""
    g = torch.Generator().manual_seed(3)
    x = torch.rand(12, 9, generator=g, dtype=torch.float64).to(dtype)
    w1 = torch.randn(20, 9, generator=g, dtype=torch.float64).to(dtype)
    w2 = torch.randn(classes, 20, generator=g, dtype=torch.float64).to(dtype)
    w = torch.randn(classes, 9, generator=g, dtype=torch.float64).to(dtype)
    scale = 2.0**power

    def outputs(z: torch.Tensor) -> torch.Tensor:
        z = z * 2.0**-inputs
        f = z @ (scale * w).mT if linear else (z @ w1.mT).relu() @ (scale * w2).mT
        return f.squeeze(-1) if classes == 1 else f

    f = outputs(x * 2.0**inputs)
    y = f.sign() if classes == 1 else f.argmax(-1).to(dtype)
    weight = scale * 2.0**-inputs * (w[0] if classes == 1 else w) if linear else None
    return Victim(outputs, x * 2.0**inputs, y, (0.0, 2.0**inputs) if box else None, weight)


def found(attack: Any, of: Victim, eps: float) -> torch.Tensor:
    noise = attack.draw(*of.x.shape, torch.Generator().manual_seed(5)).to(of.x)
    x: torch.Tensor = attack.perturb(of, torch.tensor(eps, dtype=of.x.dtype), noise)
    return x


def attacks(p: float, classes: int, box: bool) -> list[Any]:
    some: list[Any] = [
        PGD(p, steps=5, box=box),
        PGD(p, steps=5, random_start=True, restarts=2, box=box),
        FGM(p, box=box),
        APGD(p, steps=12, restarts=2, box=box),
        FAB(p, steps=12, box=box),
    ]
    if p == math.inf:
        some.append(Square(queries=30, box=box))
    if classes > 3:
        some += [APGD(p, steps=12, loss="dlr", box=box), APGD(p, steps=12, loss="dlr", targets=2, box=box)]
    return some


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", PS)
@given(power=POWERS, classes=st.sampled_from([1, 2, 5]), box=st.booleans())
@settings(max_examples=12, deadline=None)
def test_attacks_do_not_see_the_scale_of_logits(
    p: float, dtype: torch.dtype, power: int, classes: int, box: bool
) -> None:
    one, scaled = (victim(k, dtype, classes, box, linear=False) for k in (0, power))
    for attack in attacks(p, classes, box):
        x = found(attack, one, EPS[p])
        assert torch.equal(found(attack, scaled, EPS[p]), x), attack
        assert bool((x != one.x).any()), "it finds something"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", PS)
@given(power=st.integers(-40, 40), classes=st.sampled_from([1, 5]), box=st.booleans())
@settings(max_examples=8, deadline=None)
def test_attacks_do_not_see_the_unit_of_inputs(
    p: float, dtype: torch.dtype, power: int, classes: int, box: bool
) -> None:
    one, scaled = (victim(0, dtype, classes, box, linear=False, inputs=k) for k in (0, power))
    for attack in attacks(p, classes, box):
        x = found(attack, scaled, EPS[p] * 2.0**power)
        assert torch.equal(x * 2.0**-power, found(attack, one, EPS[p])), attack


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
@given(power=POWERS, classes=st.sampled_from([1, 4]))
@settings(max_examples=10, deadline=None)
def test_the_exact_attack_does_not_see_the_scale_of_weights(
    p: float, dtype: torch.dtype, power: int, classes: int
) -> None:
    one, scaled = (victim(k, dtype, classes, box=False, linear=True) for k in (0, power))
    assert torch.equal(found(Exact(p), scaled, 0.4), found(Exact(p), one, 0.4))


@pytest.mark.turns
def test_fab_breaks_what_apgd_breaks_at_any_scale() -> None:
    """Logits from 1e-30 to 1e30 in float32: the fault was that FAB then broke none."""
    for p in PS:
        for power in (-100, -64, 0, 64, 100):
            of = victim(power, torch.float32, 5, box=True, linear=False)
            broken = {type(a).__name__: int((of.margin(found(a, of, EPS[p])) <= 0).sum()) for a in (APGD(p), FAB(p))}
            assert broken["FAB"] >= broken["APGD"] - 1
            assert broken["FAB"] >= 9


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("exponent", [-38, -30, 0, 30])
def test_normalised_margins_do_not_see_the_scale_of_parameters(dtype: torch.dtype, exponent: int) -> None:
    """``2^{kL} q / ||2^k theta||^L``: the power alone would leave float32's range."""
    g = torch.Generator().manual_seed(0)
    theta = torch.randn(400, generator=g, dtype=torch.float64).to(dtype)
    layout = Layout((("theta", (400,)),))
    layers = {f"W{k}": theta[100 * k : 100 * (k + 1)].view(10, 10) for k in range(3)}
    least, scale = torch.tensor(3.0, dtype=dtype), 2.0**exponent
    for vector, q in ((theta, least), (1e3 * theta, 1e9 * least)):
        here, beyond = ({n: norm.value(v, layout) for n, norm in STANDARD.items()} for v in (vector, scale * vector))
        there = normalised(q * scale**3, beyond, 3, "margin")
        for name, value in normalised(q, here, 3, "margin").items():
            assert float(there[name]) == pytest.approx(float(value), rel=1e-6)
            assert float(value) > 0
    there_ = by_layers(least * scale**3, {name: scale * layer for name, layer in layers.items()})
    assert float(there_) == pytest.approx(float(by_layers(least, layers)), rel=1e-6)


@given(power=POWERS)
@settings(max_examples=10, deadline=None)
def test_bounds_and_accuracies_do_not_see_the_scale(power: int) -> None:
    g = torch.Generator().manual_seed(1)
    w, b = torch.randn(14, 6, generator=g).double(), 0.3 * torch.randn(14, generator=g).double()
    a, c = torch.randn(8, 2, 14, generator=g).double(), torch.randn(8, 2, generator=g).double()
    region, scale = Region(torch.rand(8, 6, generator=g).double(), 0.1, math.inf, (0.0, 1.0)), 2.0**power
    one = Hidden(w, b, a, c)
    for scaled in (Hidden(w, b, scale * a, scale * c), Hidden(scale * w, scale * b, a, scale * c)):
        for bound in (certified_margin, lambda net, region: crown_bound(net, region, 20)):
            expected = scale * bound(one, region)
            assert torch.allclose(bound(scaled, region), expected, rtol=1e-9, atol=1e-12 * scale)
    plain = crown_bound(one, region)
    assert bool((crown_bound(one, region, 20) > plain).any()), "alpha does raise some"
    teacher = np.array([1.0, -2.0, 0.5])
    v = np.array([0.3, -1.0, 0.4])
    for exponent in (power, 10 * power):
        other = gaussian_accuracy(v, np.ldexp(teacher, -exponent), 0.1, 2.0)
        assert gaussian_accuracy(np.ldexp(v, exponent), teacher, 0.1, 2.0) == other
    assert gaussian_accuracy(v, teacher, 0.1, 2.0) == pytest.approx(0.85, abs=0.1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("eps", [0.1, 1e-3, 1e-5, 1e-6])
def test_the_compiled_pgd_sees_steps_of_any_size(
    dtype: torch.dtype, eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside attacks/pgd.py, also where a step is near the rounding of inputs in float32."""
    monkeypatch.setattr(plan, "MANY", 0)
    model, g = MLP(width=30), torch.Generator().manual_seed(2)
    params = model.init(9, 1, g)
    theta = torch.cat([v.reshape(-1) for v in params.values()]).to(dtype)
    x = torch.rand(1, 40, 9, generator=g, dtype=torch.float64).to(dtype)
    f = model.apply({k: v.to(dtype) for k, v in params.items()}, x[0])
    y = f.sign().unsqueeze(0)
    attack = PGD(steps=10, box=False)
    optimizer: Any = None  # not asked
    recipe = Recipe(model, Layout.of(params), Objective(), optimizer, attack, None)
    kernel: Any = for_net(recipe, attack, dtype)
    assert kernel is not None
    margins = y[0] * kernel.outputs(theta.unsqueeze(0), x, y, torch.tensor([eps], dtype=dtype))[0]
    of = Victim(lambda z: model.apply({k: v.to(dtype) for k, v in params.items()}, z), x[0], y[0], None, None)
    expected = of.margin(found(attack, of, eps))
    fall = of.margin(x[0]) - expected
    assert bool((fall > 0).any())
    noise = 300 * torch.finfo(dtype).eps * float(f.abs().max())
    assert torch.allclose(margins, expected, atol=noise, rtol=1e-3), "of the same points, to rounding"
    moved = float((of.margin(x[0]) - margins).mean())
    assert moved == pytest.approx(float(fall.mean()), rel=0.2, abs=noise / 20)


@pytest.mark.parametrize("exponent", [-300, -200, -150, 0, 150, 200, 300])
def test_the_compiled_norm_is_safe(exponent: int) -> None:
    w = np.array([3.0, -4.0, 12.0]) * 10.0**exponent
    assert dual_norm(w, 3, 2) == pytest.approx(13 * 10.0**exponent, rel=1e-12)
    assert dual_norm(w, 3, 1) == pytest.approx(19 * 10.0**exponent, rel=1e-12)
    assert dual_norm(np.zeros(3), 3, 2) == 0
    assert math.isnan(dual_norm(np.array([1.0, math.nan]), 2, 2))
    assert dual_norm(np.array([1.0, math.inf]), 2, 2) == math.inf
