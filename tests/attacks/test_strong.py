"""APGD, FAB and Square: against closed forms, solvers, each other, and another library's AutoAttack."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from sklearn.datasets import load_digits

from robust_erm.attacks.apgd import APGD, checkpoints
from robust_erm.attacks.attack import Victim
from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fab import FAB, nearest_zero
from robust_erm.attacks.pgd import PGD
from robust_erm.attacks.square import Square
from robust_erm.core.norms import Norm

PS = [1.0, 2.0, math.inf]


def victim(seed: int, classes: int = 1, d: int = 9, n: int = 10, box: bool = True, linear: bool = False) -> Victim:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=g, dtype=torch.float64)
    w1, w2 = (torch.randn(k, m, generator=g, dtype=torch.float64) for k, m in ((20, d), (classes, 20)))
    w = torch.randn(classes, d, generator=g, dtype=torch.float64)

    def outputs(z: torch.Tensor) -> torch.Tensor:
        f = z @ w.mT if linear else (z @ w1.mT).relu() @ w2.mT
        return f.squeeze(-1) if classes == 1 else f

    f = outputs(x)
    y = f.sign() if classes == 1 else f.argmax(-1).double()  # all right to begin with
    return Victim(outputs, x, y, (0.0, 1.0) if box else None, (w[0] if classes == 1 else w) if linear else None)


def run(attack: Any, of: Victim, eps: float) -> torch.Tensor:
    noise = attack.draw(*of.x.shape, torch.Generator().manual_seed(7))
    found: torch.Tensor = attack.perturb(of, torch.tensor(eps, dtype=torch.float64), noise)
    return found


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10_000), eps=st.floats(0.0, 1.5), classes=st.sampled_from([1, 3, 5]))
@settings(max_examples=8, deadline=None)
def test_stays_in_ball_and_box(p: float, box: bool, seed: int, eps: float, classes: int) -> None:
    of = victim(seed, classes, box=box)
    attacks: list[Any] = [APGD(p, steps=10, restarts=2, box=box), FAB(p, steps=10, box=box)]
    if p == math.inf:
        attacks.append(Square(queries=20, box=box))
    if classes > 3:
        attacks += [APGD(p, steps=5, loss="dlr", targets=2, box=box), APGD(p, steps=5, loss="dlr", box=box)]
    for attack in attacks:
        x = run(attack, of, eps)
        assert float(Norm(p).value(x - of.x).max()) <= eps * (1 + 1e-9) + 1e-12
        if box:
            assert 0 <= float(x.min()) <= float(x.max()) <= 1


@pytest.mark.parametrize(("p", "atol"), [(1.0, 0.02), (2.0, 1e-3), (math.inf, 1e-9)])
def test_apgd_reaches_the_exact_attack_on_linear_models(p: float, atol: float) -> None:
    of = victim(1, box=False, linear=True)
    found, exact = (of.margin(run(a, of, 0.4)) for a in (APGD(p, box=False), Exact(p)))
    assert bool((found >= exact - 1e-9).all())
    assert torch.allclose(found, exact, atol=atol * float((of.margin(of.x) - exact).max()))


@pytest.mark.parametrize("p", PS)
def test_fab_finds_the_distance_to_a_hyperplane(p: float) -> None:
    of = victim(2, box=False, linear=True)
    assert of.weight is not None
    distance = of.margin(of.x) / Norm(p).dual.value(of.weight)
    found = Norm(p).value(run(FAB(p, box=False), of, 100.0) - of.x)
    assert torch.allclose(found, distance, rtol=0.06)  # it oversteps by a twentieth, and never undershoots
    assert bool((found >= distance * (1 - 1e-9)).all())
    near = run(FAB(p, box=False), of, float(distance.median()))
    moved = (near != of.x).any(-1)
    assert bool((distance[moved] <= float(distance.median())).all()), "farther points keep the clean x"
    assert bool(moved.any())
    assert not bool(moved.all())


@pytest.mark.parametrize("p", PS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_nearest_zero_is_what_solvers_find(p: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    d = 5
    x, w = rng.uniform(0, 1, d), rng.normal(size=d)
    w[0] = 0.0 if seed % 3 == 0 else w[0]
    corner = float(np.where(w > 0, -w * x, -w * (x - 1)).sum())  # the least <w, delta> in the box
    value = float(rng.uniform(0, 1)) * -corner
    given_ = [torch.from_numpy(a).unsqueeze(0) for a in (w, np.array(value), x)]
    delta = nearest_zero(Norm(p), given_[0], given_[1].reshape(1), given_[2], (0.0, 1.0))[0].numpy()
    assert w @ delta == pytest.approx(-value, abs=1e-9)
    assert (x + delta).min() >= -1e-12
    assert (x + delta).max() <= 1 + 1e-12
    low, high = -x, 1 - x
    if p == 2:
        fits = {"type": "eq", "fun": lambda z: w @ z + value}
        found = minimize(lambda z: z @ z, delta * 0.9, bounds=list(zip(low, high, strict=True)), constraints=fits)
        best = math.sqrt(found.fun)
    else:  # delta = a - b and, for p = inf, a + b <= t
        cost = np.concatenate([np.zeros(2 * d), [1.0]])
        eye = np.eye(d)
        one, each = np.concatenate([np.ones(2 * d), [-1.0]])[None], np.hstack([eye, eye, -np.ones((d, 1))])
        bound = one if p == 1 else each
        span = np.hstack([eye, -eye, np.zeros((d, 1))])
        a_ub = np.vstack([bound, span, -span])
        b_ub = np.concatenate([np.zeros(len(bound)), high, -low])
        best = linprog(cost, a_ub, b_ub, np.concatenate([w, -w, [0.0]])[None], [-value], bounds=(0, None)).fun
    assert np.linalg.norm(delta, p) == pytest.approx(best, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("p", PS)
def test_a_pixel_without_gradient_is_no_fault_in_float32(p: float) -> None:
    w, x = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.5]])
    delta = nearest_zero(Norm(p), w, torch.tensor([0.5]), x, (0.0, 1.0))
    assert float((w * delta).sum()) == pytest.approx(-0.5)
    assert float(delta[0, 2]) == 0


def test_nearest_zero_goes_as_far_as_it_can() -> None:
    w, x = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([[0.25, 0.5]]).double()
    for p in PS:
        delta = nearest_zero(Norm(p), w, torch.tensor([100.0]).double(), x, (0.0, 1.0))
        assert delta.tolist() == [[-0.25, 0.5]]


def test_losses_are_the_papers() -> None:
    f = torch.tensor([[5.0, 3.0, 2.0, 1.0], [1.0, 4.0, 2.0, 3.5]]).double()
    y = torch.tensor([0.0, 3.0]).double()
    assert APGD()._untargeted(f, y).tolist() == [-2.0, 0.5]
    # eq. (6): -(z_y - max other) / (z_1 - z_3)
    assert APGD(loss="dlr")._untargeted(f, y).tolist() == pytest.approx([-2 / 3, 0.5 / 2])
    # eq. (7): -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2)
    rival = torch.tensor([2, 0])
    targeted = APGD(loss="dlr", targets=1)._targeted(f, y, rival)
    assert targeted.tolist() == pytest.approx([-3 / 3.5, -2.5 / 2.5])


def test_checkpoints_are_the_papers() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_apgd_beats_pgd_of_as_many_steps() -> None:
    of = victim(3, classes=1, d=49, n=200)
    pgd, apgd = (of.margin(run(a, of, 0.3)).mean() for a in (PGD(steps=100), APGD(steps=100)))
    assert float(apgd) < float(pgd)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6, 1e100])
def test_the_logit_scale_does_not_mask_gradients(scale: float) -> None:
    of = victim(4, n=60)
    scaled = Victim(lambda z: scale * of.outputs(z), of.x, of.y, of.domain, None)
    for attack in (APGD(steps=20), FAB(steps=20), Square(queries=50)):
        assert torch.equal(of.margin(run(attack, of, 0.2)) > 0, of.margin(run(attack, scaled, 0.2)) > 0)


@pytest.mark.parametrize("d", [49, 10])
def test_square_changes_squares_and_lowers_margins(d: int) -> None:
    of = victim(5, d=d, n=50, box=False)
    few, many = (of.margin(run(Square(queries=q, box=False), of, 0.1)) for q in (1, 300))
    white = of.margin(run(APGD(box=False), of, 0.1))
    assert bool((many <= few + 1e-12).float().mean() > 0.9)
    assert float((many - white).mean()) < 0.25 * float((of.margin(of.x) - white).mean()), "near what gradients find"
    x = run(Square(queries=300, box=False), of, 0.1)
    assert torch.allclose((x - of.x).abs(), torch.full_like(x, 0.1)), "every coordinate at +-eps"


@pytest.mark.turns
@pytest.mark.filterwarnings("ignore")
def test_as_strong_as_autoattack() -> None:
    """Ten classes, trained a little robust: torchattacks' AutoAttack and ours leave the same points."""
    library = pytest.importorskip("torchattacks", reason="NOT HELD AGAINST AUTOATTACK: make test installs it")
    data, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(data / 16, dtype=torch.float32), torch.tensor(labels)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    loss = torch.nn.functional.cross_entropy
    for _ in range(150):
        start = x[:1000].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(net(start), y[:1000]), start)
        optimizer.zero_grad()
        loss(net((x[:1000] + 0.08 * gradient.sign()).clamp(0, 1)), y[:1000]).backward()
        optimizer.step()
    x, y, eps = x[1000:1100], y[1000:1100], 0.1
    theirs = library.AutoAttack(net.eval(), norm="Linf", eps=eps, version="standard", n_classes=10, seed=0)
    broken = net(theirs(x.view(-1, 1, 8, 8), y)).argmax(1) != y
    net = net.double()
    of = Victim(lambda z: net(z), x.double(), y.double(), (0.0, 1.0), None)
    attacks = (APGD(), APGD(loss="dlr"), APGD(loss="dlr", targets=9), FAB(), Square(queries=1000))
    ours = torch.stack([of.margin(run(a, of, eps)) <= 0 for a in attacks]).any(0)
    clean = of.margin(of.x) <= 0
    assert 0.2 < float(ours.double().mean()) < 0.9, "there is something to disagree on"
    assert float(clean.double().mean()) < 0.2
    assert int((broken & ~ours).sum()) <= 1
    assert int((ours & ~broken).sum()) <= 3
