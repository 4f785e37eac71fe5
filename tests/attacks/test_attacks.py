from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from robust_erm.attacks.attack import Victim
from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.errors import ConfigError
from robust_erm.core.norms import Norm
from robust_erm.models.mlp import MLP

PS = [1.0, 2.0, math.inf]


def linear_victim(seed: int, d: int = 6, n: int = 8, classes: int = 2, **extra: Any) -> Victim:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=g, dtype=torch.float64)
    if classes == 2:
        w = torch.randn(d, generator=g, dtype=torch.float64)
        y = torch.randint(0, 2, (n,), generator=g).double() * 2 - 1
        return Victim(lambda z: z @ w, x, y, extra.get("domain"), w)
    w = torch.randn(classes, d, generator=g, dtype=torch.float64)
    y = torch.randint(0, classes, (n,), generator=g).double()
    return Victim(lambda z: z @ w.mT, x, y, extra.get("domain"), w)


def net_victim(seed: int, domain: tuple[float, float] | None = None) -> Victim:
    g = torch.Generator().manual_seed(seed)
    model = MLP(width=16)
    params = model.init(6, 1, g)
    x = torch.rand(8, 6, generator=g, dtype=torch.float64)
    y = torch.randint(0, 2, (8,), generator=g).double() * 2 - 1
    return Victim(lambda z: model.apply(params, z), x, y, domain, None)


def run(attack: Any, victim: Victim, eps: float) -> torch.Tensor:
    noise = attack.draw(*victim.x.shape, torch.Generator().manual_seed(7))
    found: torch.Tensor = attack.perturb(victim, torch.tensor(eps, dtype=torch.float64), noise)
    return found


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, math.inf])
def test_exact_reaches_the_closed_form(p: float) -> None:
    victim = linear_victim(0)
    assert victim.weight is not None
    reached = victim.margin(run(Exact(p), victim, 0.3))
    expected = victim.margin(victim.x) - 0.3 * Norm(p).dual.value(victim.weight)
    assert torch.allclose(reached, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.0, 2.0))
@settings(max_examples=10, deadline=None)
def test_pgd_never_beats_exact(p: float, classes: int, seed: int, eps: float) -> None:
    victim = linear_victim(seed, classes=classes)
    exact = victim.margin(run(Exact(p), victim, eps))
    pgd = victim.margin(run(PGD(p, steps=20, random_start=True, restarts=2), victim, eps))
    assert bool((pgd >= exact - 1e-9).all())


@pytest.mark.parametrize("p", PS)
def test_pgd_with_many_steps_reaches_exact(p: float) -> None:
    victim = linear_victim(1)
    exact = victim.margin(run(Exact(p), victim, 0.5))
    pgd = victim.margin(run(PGD(p, steps=200, relative_step=0.1), victim, 0.5))
    assert torch.allclose(pgd, exact, atol=1e-9)


@pytest.mark.parametrize("p", PS)
def test_multiclass_exact_is_the_least_over_rivals(p: float) -> None:
    """Against brute force: PGD on each pairwise (linear) margin."""
    victim = linear_victim(2, classes=4)
    w = victim.weight
    assert w is not None
    worst = []
    for i, (x, y) in enumerate(zip(victim.x, victim.y.long().tolist(), strict=True)):
        pair = [float((w[y] - w[c]) @ x - 0.4 * Norm(p).dual.value(w[y] - w[c])) for c in range(4) if c != y]
        worst.append(min(pair))
        assert i < 8
    assert torch.allclose(victim.margin(run(Exact(p), victim, 0.4)), torch.tensor(worst, dtype=torch.float64))


@pytest.mark.parametrize("attack", [NoAttack(), FGM(math.inf), FGM(2.0), PGD(1.0), PGD(2.0), PGD(math.inf)])
def test_eps_zero_changes_nothing(attack: Any) -> None:
    victim = net_victim(0, domain=(0.0, 1.0))
    assert torch.equal(run(attack, victim, 0.0), victim.x)


@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_stays_in_ball_and_box(p: float, random_start: bool) -> None:
    """||x' - x||_p <= eps and x' in [0, 1]: the box is on x + delta, never on delta."""
    victim = net_victim(3, domain=(0.0, 1.0))
    x = run(PGD(p, random_start=random_start), victim, 0.4)
    assert float(Norm(p).value(x - victim.x).max()) <= 0.4 + 1e-12
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    free = run(PGD(p, random_start=random_start, box=False), victim, 0.4)
    assert float(free.min()) < 0 or float(free.max()) > 1


@pytest.mark.parametrize("p", [2.0, math.inf])
def test_pgd_lowers_the_margin_of_a_net(p: float) -> None:
    victim = net_victim(4)
    clean, one, ten = (victim.margin(z) for z in (victim.x, run(FGM(p), victim, 0.3), run(PGD(p), victim, 0.3)))
    assert bool((ten < clean).all())
    assert float((ten - one).mean()) <= 1e-9


def test_restarts_keep_the_smallest_margin() -> None:
    victim = net_victim(5)
    attack = PGD(restarts=4, random_start=True, steps=3)
    noise = attack.draw(*victim.x.shape, torch.Generator().manual_seed(7))
    eps = torch.tensor(0.3, dtype=torch.float64)
    best = victim.margin(attack.perturb(victim, eps, noise))
    single = [victim.margin(attack.perturb(victim, eps, noise[k : k + 1])) for k in range(4)]
    assert torch.equal(best, torch.stack(single).amin(0))


@pytest.mark.parametrize("p", PS)
def test_random_start_is_uniform_in_the_ball(p: float) -> None:
    """||u||_p^d is uniform on [0, 1] for u uniform in the unit ball: mean 1/2, variance 1/12."""
    u = PGD(p, random_start=True).draw(20_000, 4, torch.Generator().manual_seed(0))[0]
    share = Norm(p).value(u) ** 4
    assert float(share.max()) <= 1 + 1e-12
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / 12, abs=0.005)
    assert float(u.mean(0).abs().max()) < 0.02


def test_attack_does_not_stop_where_the_loss_underflows() -> None:
    """Scaling the net by 1e6 makes exp(-margin) zero in float64; the attack moves all the same."""
    victim = net_victim(6)
    scaled = Victim(lambda z: 1e6 * victim.outputs(z), victim.x, victim.y, None, None)
    assert torch.allclose(run(PGD(), scaled, 0.3), run(PGD(), victim, 0.3), atol=1e-12)


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="p = 3"):
        PGD(p=3.0)
    with pytest.raises(ConfigError, match="random_start=true"):
        PGD(restarts=2)
    with pytest.raises(ConfigError, match="steps"):
        PGD(steps=0)


def boxed_optimum(w: torch.Tensor, x: torch.Tensor, eps: float) -> float:
    """min <w, x'> over ||x' - x||_1 <= eps and x' in [0, 1], by a linear program in the moves up and down."""
    found = linprog(
        torch.cat([w, -w]).tolist(),
        A_ub=[[1.0] * (2 * len(w))],
        b_ub=[eps],
        bounds=[*[(0, 1 - v) for v in x.tolist()], *[(0, v) for v in x.tolist()]],
    )
    return float(w @ x) + float(found.fun)


@pytest.mark.parametrize("eps", [0.3, 1.0, 2.5])
def test_l1_in_the_box_is_the_linear_program(eps: float) -> None:
    """One step of FGM is exact for a linear model; PGD comes as close as its step is small."""
    victim = linear_victim(8, domain=(0.0, 1.0))
    w = victim.weight
    assert w is not None
    best = [boxed_optimum(y * w, x, eps) for x, y in zip(victim.x, victim.y, strict=True)]
    optimum = torch.tensor(best, dtype=torch.float64)
    for attack, slack in ((FGM(1.0), 0.0), (PGD(1.0, 40, 0.2), 0.2), (PGD(1.0, 400, 0.02), 0.02)):
        x = run(attack, victim, eps)
        assert float(Norm(1.0).value(x - victim.x).max()) <= eps + 1e-12
        excess = victim.margin(x) - optimum
        assert float(excess.min()) >= -1e-9
        assert float(excess.max()) <= slack * eps * float(w.abs().max()) + 1e-9, attack


def test_l1_moves_on_where_a_pixel_is_at_its_bound() -> None:
    """The steepest pixel cannot move: the next one must."""
    x, w = torch.tensor([[0.0, 0.9, 0.9]]).double(), torch.tensor([3.0, 2.0, 1.0]).double()
    victim = Victim(lambda z: z @ w, x, torch.ones(1).double(), (0.0, 1.0), None)
    assert float(victim.margin(run(FGM(1.0), victim, 0.5))[0]) == pytest.approx(1.7)
