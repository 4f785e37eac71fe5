from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import separable
from scipy.optimize import nnls

from robust_erm.core.errors import ConfigError
from robust_erm.models.cnn import CNN
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.oracles import kkt as module
from robust_erm.oracles.kkt import gram, in_span, kkt, pooled
from robust_erm.oracles.margin import max_margin
from robust_erm.oracles.robust_margin import robust_max_margin


def points(m: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = separable(m, d, seed)
    return torch.from_numpy(x), torch.from_numpy(y)


def test_the_max_margin_separator_is_a_kkt_point() -> None:
    """Stationary, complementary, with the multipliers of its dual; on support vectors alone just as well."""
    x, y = points(20, 30)
    exact = max_margin((x * y[:, None]).numpy(), 2)
    w = {"w": torch.from_numpy(exact.w)}
    for slack in (None, 1e-6):
        found = kkt(Linear(), w, x, y, slack)
        assert found.stationarity < 1e-9
        assert found.complementarity < 1e-9
        assert found.feasible
        assert found.lam / found.lam.sum() == pytest.approx(exact.lam, abs=1e-8)


@pytest.mark.parametrize("length", [1e-9, 1e-7, 1.0, 4e6, 1e9])
def test_lengths_of_points_do_not_hide_a_kkt_point(length: float) -> None:
    """``w = sum_i x_i / ||x_i||_2^2`` has margin 1 on orthogonal points, of any lengths; their span is all of them."""
    x = torch.diag(torch.tensor([length, 1.0, 2.0], dtype=torch.float64))
    y = torch.ones(3, dtype=torch.float64)
    w = {"w": (x / x.diag() ** 2).sum(0)}
    assert kkt(Linear(), w, x, y).stationarity < 1e-9
    assert pooled(Linear(), [(w, x)], y) < 1e-9
    net = {"W1": torch.eye(3, dtype=torch.float64), "W2": torch.ones(1, 3, dtype=torch.float64)}
    inside, off = in_span(MLP(width=3), net, x)
    assert off < 1e-9
    assert torch.allclose(inside["W1"], net["W1"])


def test_points_that_no_unit_sees_have_no_multiplier() -> None:
    """Their gradients are 0: rounding of K gave them multipliers of 1e15, and a residual above 1."""
    generator, model = torch.Generator().manual_seed(178), MLP(width=4)
    params = model.init(3, 1, generator)
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    y = torch.where(model.apply(params, x) >= 0, 1.0, -1.0).double()
    found, slopes = kkt(model, params, x, y), module._gradients(model, params, x, y).numpy()
    dead = ~slopes.any(axis=1)
    assert dead.sum() == 1
    theta = torch.cat([p.flatten() for p in params.values()]).numpy()
    assert not found.lam[dead].any()
    assert found.stationarity == pytest.approx(nnls(slopes.T, theta)[1] / np.linalg.norm(theta), abs=1e-9)


def test_other_directions_are_not() -> None:
    x, y = points(20, 30)
    l1 = max_margin((x * y[:, None]).numpy(), math.inf)
    assert kkt(Linear(), {"w": torch.from_numpy(l1.w)}, x, y, slack=1e-6).stationarity > 0.1
    away = kkt(Linear(), {"w": -torch.from_numpy(l1.w)}, x, y)
    assert not away.feasible
    noise = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert kkt(Linear(), {"w": noise}, x, y).stationarity > 0.3


def test_the_diagonal_net_of_the_l1_separator_is_a_kkt_point() -> None:
    """tsilivis2024 Cor. 4.7 and Prop. 4.8: u = sqrt|w| with the oracle's w, at the attacked points."""
    x, y = points(20, 30)
    z = (x * y[:, None]).numpy()
    eps = 0.4 * max_margin(z, math.inf).value
    found = {}
    for r in (1, 2):
        w = torch.from_numpy(robust_max_margin(z, r, math.inf, eps).w)
        u = {"u_plus": w.clamp_min(0).sqrt(), "u_minus": (-w).clamp_min(0).sqrt()}
        found[r] = kkt(Diagonal(), u, x - eps * y[:, None] * w.sign(), y, slack=1e-6)
    assert found[1].stationarity < 1e-6
    assert found[2].stationarity > 0.1


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (MLP(width=7), 1),
        (MLP(width=7, depth=3, bias="first"), 1),
        (MLP(width=6, depth=3, bias="all"), 4),
        (MLP(widths=(6, 4), bias="first", activation="leaky", slope=0.3), 3),
        (MLP(width=6, bias="all", activation="identity"), 1),
        (MLP(width=6, bias="first", activation="power"), 3),
        (MLP(width=6, bias="first", trained="first"), 1),
        (Diagonal(alpha=1.0), 1),
        (DeepLinear(depth=3), 1),
        (CNN(), 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("budget", [2**30, 1])
def test_gram_matrix_is_that_of_the_gradients(
    model: Any, outputs: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against one backward pass a sample; whatever fits into memory."""
    monkeypatch.setattr(module, "_BYTES", budget)
    d = 64 if isinstance(model, CNN) else 9
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, d, generator=generator, dtype=torch.float64)
    y = torch.tensor([1.0, -1, 1, 1, -1]).double() if outputs == 1 else torch.tensor([0.0, 1, 2, 1, 0]).double()
    params = {k: v.double().requires_grad_() for k, v in model.init(d, outputs, generator).items()}
    rows = []
    for i in range(5):
        f = model.apply(params, x[i : i + 1])[0]
        q = y[i] * f if outputs == 1 else f[int(y[i])] - f[[c for c in range(outputs) if c != int(y[i])]].max()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(q, list(params.values()))]).numpy())
    expected = np.stack(rows) @ np.stack(rows).T
    detached = {k: v.detach() for k, v in params.items()}
    assert gram(model, detached, x, y).numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_what_is_not_homogeneous_is_refused() -> None:
    x, y = points(4, 5)
    model = MLP(width=3, bias="all")
    with pytest.raises(ConfigError, match="not homogeneous"):
        kkt(model, model.init(5, 1, torch.Generator()), x, y)
    with pytest.raises(ConfigError, match="slack = -1"):
        kkt(Linear(), {"w": torch.ones(5)}, x, y, slack=-1)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_a_kkt_point_with_kinks_is_seen_as_one(noise: float) -> None:
    """Two points at an angle, of opposite labels, and two neurons, each at its kink on the other's point.

    With ``rho = <x_1, x_2>``, ``w_1 = lam v (x_1 - rho x_2)`` and ``lam^2 (1 - rho^2) = 1`` all conditions hold with
    ``sigma' = rho`` at both kinks (vardi2022 Sec. 5.1), and with no 0-1 slopes. Training only comes near: ``noise``.
    """
    rho = 0.6
    x = torch.tensor([[1.0, 0.0, 0.0], [rho, math.sqrt(1 - rho**2), 0.0]], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0], dtype=torch.float64)
    lam = 1 / math.sqrt(1 - rho**2)
    v = 1 / math.sqrt(lam * (1 - rho**2))  # of margins 1
    w = lam * v * torch.stack([x[0] - rho * x[1], x[1] - rho * x[0]])
    params = {"W1": w + noise, "W2": torch.tensor([[v, -v]], dtype=torch.float64)}
    found = kkt(MLP(width=2), params, x, y, kinks=1e-3)
    assert found.kink_share == 0.5
    assert found.stationarity > 0.2
    assert found.stationarity_kinks < 1e-7 + 3 * noise
    assert found.feasible
    away = {**params, "W1": w + torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -0.5]])}
    assert kkt(MLP(width=2), away, x, y, kinks=1e-3).stationarity_kinks > 0.3, "no slope mends another direction"
    with pytest.raises(ConfigError, match="one hidden layer"):
        kkt(MLP(depth=3, width=2), MLP(depth=3, width=2).init(3, 1, torch.Generator()), x, y, kinks=1e-3)


def test_pooled_constraints_hold_those_of_each_iterate() -> None:
    """One iterate: the residual of kkt. More: never above that of the last. A cone that needs both: 0."""
    x, y = points(8, 5)
    nets = [MLP(width=6).init(5, 1, torch.Generator().manual_seed(k)) for k in range(3)]
    for params in nets:
        alone = pooled(MLP(width=6), [(params, x)], y)
        assert alone == pytest.approx(kkt(MLP(width=6), params, x, y).stationarity, rel=1e-8)
    several = pooled(MLP(width=6), [(params, x + 0.1 * k) for k, params in enumerate(nets)], y)
    assert several <= pooled(MLP(width=6), [(nets[-1], x + 0.2)], y) + 1e-12
    w = {"w": torch.tensor([3.0, 4.0], dtype=torch.float64)}
    jumps = [(w, torch.tensor([[1.0, 0.0]], dtype=torch.float64)), (w, torch.tensor([[0.0, 1.0]], dtype=torch.float64))]
    one = torch.ones(1, dtype=torch.float64)
    assert pooled(Linear(), jumps, one) == pytest.approx(0, abs=1e-12)
    assert pooled(Linear(), jumps[1:], one) == pytest.approx(0.6)
    with pytest.raises(ConfigError, match="take fewer"):
        pooled(MLP(width=6), [(nets[0], x)] * 10**6, y)
