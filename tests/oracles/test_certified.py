"""Bounds on the worst-case margin of one-hidden-layer nets: sound, ordered, and exact where they should be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_erm.attacks.apgd import APGD
from robust_erm.attacks.attack import Victim
from robust_erm.oracles.certified import Hidden, Region, certified_margin, crown_bound, interval_bound, pre_activations
from robust_erm.oracles.milp import exact

PS = [1.0, 2.0, math.inf]


def net(seed: int, d: int = 6, h: int = 12, n: int = 10, rivals: int = 1) -> tuple[Hidden, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    w, b = torch.randn(h, d, generator=g).double(), 0.3 * torch.randn(h, generator=g).double()
    a, c = torch.randn(n, rivals, h, generator=g).double(), torch.randn(n, rivals, generator=g).double()
    return Hidden(w, b, a, c), torch.rand(n, d, generator=g).double()


def attacked(of: Hidden, region: Region) -> torch.Tensor:
    """The least margins that APGD finds; of every point its own net, and the box is the interval."""
    y = torch.ones(len(region.x)).double()
    victim = Victim(of.margins, region.x, y, region.box, None)
    attack = APGD(region.p, box=region.box is not None, steps=40, restarts=2)
    noise = attack.draw(*region.x.shape, torch.Generator().manual_seed(0))
    return of.margins(attack.perturb(victim, torch.tensor(region.eps, dtype=torch.float64), noise))


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_every_point_may_have_a_radius_of_its_own(p: float, box: tuple[float, float] | None) -> None:
    """Radii (n,) give what each gives alone: all bounds, and the exact answer."""
    of, x = net(3, n=3, rivals=2)
    eps = torch.tensor([0.02, 0.1, 0.3]).double()
    whole = Region(x, eps, p, box)
    for i in range(3):
        own, alone = Hidden(of.w, of.b, of.a[i : i + 1], of.c[i : i + 1]), Region(x[i : i + 1], float(eps[i]), p, box)
        for bound in (interval_bound, crown_bound, lambda net, region: certified_margin(net, region, chunk=2)):
            assert float(bound(of, whole)[i]) == pytest.approx(float(bound(own, alone)), rel=1e-9)
        if p == math.inf and box is None:
            assert exact(of, whole, i).verdict == exact(own, alone, 0).verdict


@pytest.mark.parametrize("rivals", [1, 3])
@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_runs_at_once_are_each_alone(box: tuple[float, float] | None, p: float, rivals: int) -> None:
    """A leading axis of runs; of the first all points are sure, of the last none, in pieces of 4 points."""
    each = [net(seed, rivals=rivals) for seed in range(3)]
    each[0] = (replace(each[0][0], c=each[0][0].c + 100), each[0][1])
    each[2] = (replace(each[2][0], c=each[2][0].c - 100), each[2][1])
    together = Hidden(*(torch.stack([getattr(of, name) for of, _ in each]) for name in ("w", "b", "a", "c")))
    x, eps = torch.stack([x for _, x in each]), torch.rand(3, 10, generator=torch.Generator().manual_seed(0)).double()
    whole = Region(x, eps, p, box)
    bounds: list[Callable[[Hidden, Region], torch.Tensor]] = [
        interval_bound,
        crown_bound,
        lambda net, region: crown_bound(net, region, 5),
        lambda net, region: certified_margin(net, region, 5, chunk=4),
        lambda net, region: net.size(region.x),
        lambda net, region: net.margins(region.x),
    ]
    for bound in bounds:
        found = bound(together, whole)
        for i, (alone, own) in enumerate(each):
            assert torch.allclose(found[i], bound(alone, Region(own, eps[i], p, box)), rtol=1e-12, atol=1e-12)
    sure = certified_margin(together, whole, 5) > 0
    assert sure.sum(-1).tolist()[::2] == [10, 0]
    assert 0 <= int(sure[1].sum()) < 10


@pytest.mark.parametrize("rivals", [1, 3])
@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
@given(seed=st.integers(0, 10_000), eps=st.floats(0.0, 0.6))
@settings(max_examples=4, deadline=None)
def test_bounds_are_below_what_attacks_find(
    box: tuple[float, float] | None, p: float, rivals: int, seed: int, eps: float
) -> None:
    of, x = net(seed, rivals=rivals)
    region = Region(x, eps, p, box)
    found = attacked(of, region)
    crown = crown_bound(of, region)
    for bound in (interval_bound(of, region), crown, crown_bound(of, region, 20), certified_margin(of, region, 20)):
        assert bool((bound <= found + 1e-9).all())
    assert bool((crown_bound(of, region, 20) >= crown - 1e-12).all()), "alpha only raises the bound"


@pytest.mark.parametrize("p", PS)
def test_pre_activations_hold_and_are_reached(p: float) -> None:
    of, x = net(1)
    low, high = pre_activations(of, Region(x, 0.3, p, None))
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        u = torch.randn(x.shape, generator=g).double()
        z = (x + 0.3 * u / torch.linalg.vector_norm(u, p, dim=-1, keepdim=True)) @ of.w.mT + of.b
        assert bool(((low - 1e-12 <= z) & (z <= high + 1e-12)).all())
    dual = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[p]
    size = torch.linalg.vector_norm(of.w, dual, dim=-1)
    assert torch.allclose(high - low, (2 * 0.3 * size).expand_as(high)), "||w_j||_{p*} on both sides"


def test_crown_is_exact_where_no_unit_switches() -> None:
    """Then the net is linear: a W x' + ..., whose minimum has a closed form; the interval bound is not it."""
    of, x = net(2)
    of = Hidden(of.w, of.b.abs() + 100, of.a, of.c)
    for p, dual in ((math.inf, 1.0), (2.0, 2.0), (1.0, math.inf)):
        region = Region(x, 0.2, p, None)
        slope = of.a[:, 0] @ of.w
        expected = of.margins(x) - 0.2 * torch.linalg.vector_norm(slope, dual, dim=-1)
        assert torch.allclose(crown_bound(of, region), expected)
        assert bool((interval_bound(of, region) < expected - 1e-6).all())


def test_at_eps_0_all_are_the_margin() -> None:
    of, x = net(3, rivals=2)
    region = Region(x, 0.0, math.inf, (0.0, 1.0))
    assert torch.allclose(crown_bound(of, region), of.margins(x))
    assert torch.allclose(interval_bound(of, region), of.margins(x))


@pytest.mark.parametrize("rivals", [1, 3])
def test_exact_agrees_with_a_fine_grid(rivals: int) -> None:
    """Two inputs: the worst margin to within what the net can change between two points of the grid."""
    of, x = net(4, d=2, h=5, n=24, rivals=rivals)
    region = Region(x, 0.25, math.inf, (0.0, 1.0))
    centre, radius = region.interval
    steps = torch.linspace(-1, 1, 201).double()
    grid = torch.tensor(list(itertools.product(steps.tolist(), steps.tolist()))).double()
    verdicts = set()
    for i in range(len(x)):
        one = Hidden(of.w, of.b, of.a[i : i + 1].expand(len(grid), -1, -1), of.c[i : i + 1].expand(len(grid), -1))
        margins = one.margins(centre[i] + radius[i] * grid)
        slack = float((of.a[i].abs() @ of.w.abs().sum(-1)).max()) * 0.25 / 200
        answer = exact(of, region, i)
        verdicts.add(answer.verdict)
        if float(margins.min()) <= 0:
            assert answer.verdict == "broken"
        if float(margins.min()) > slack:
            assert answer.verdict == "robust"
        if answer.x is not None:
            assert bool(((answer.x - centre[i]).abs() <= radius[i] + 1e-9).all())
            at = Hidden(of.w, of.b, of.a[i : i + 1], of.c[i : i + 1])
            assert float(at.margins(answer.x.unsqueeze(0))) <= 0
    assert verdicts >= {"robust", "broken"}


def test_exact_closes_what_bounds_leave_open() -> None:
    of, x = net(5, d=20, h=30, n=30)
    of = Hidden(of.w, of.b, of.a, of.c + 12)
    region = Region(x, 0.12, math.inf, (0.0, 1.0))
    low, high = certified_margin(of, region), attacked(of, region)
    answers = [exact(of, region, i).verdict for i in range(len(x))]
    assert {"robust", "broken"} == set(answers)
    assert int(((low <= 0) & (high > 0)).sum()) > 0, "the bounds alone leave some open"
    for i, verdict in enumerate(answers):
        assert verdict == "robust" if low[i] > 0 else True
        assert verdict == "broken" if high[i] <= 0 else True


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 2.0**30])
def test_exact_does_not_depend_on_the_scale_of_the_net(scale: float) -> None:
    """The net is homogeneous in W and b together."""
    of, x = net(6, d=20, h=30, n=16)
    of = Hidden(of.w, of.b, of.a, of.c * 0)
    scaled = Hidden(of.w * scale, of.b * scale, of.a, of.c)
    region = Region(x, 0.05, math.inf, (0.0, 1.0))
    answers = [[exact(one, region, i).verdict for i in range(len(x))] for one in (of, scaled)]
    assert answers[0] == answers[1]
    assert {"robust", "broken"} == set(answers[0])
