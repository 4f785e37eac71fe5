"""Labels along rays, exactly; the explicit robust network of vardi2022."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from robust_erm.core.errors import ConfigError
from robust_erm.models.mlp import MLP
from robust_erm.oracles.rays import Flips, flips
from robust_erm.oracles.robust_net import robust_net

D = 16


def net(width: int, bias: str, seed: int, d: int = D, **options: Any) -> tuple[MLP, dict[str, torch.Tensor]]:
    model = MLP(width=width, bias=bias, **options)
    return model, model.init(d, 1, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("bias", "options"),
    [("none", {}), ("first", {}), ("all", {}), ("none", {"trained": "first"}), ("first", {"trained": "first"})],
)
def test_intervals_are_those_of_a_fine_grid(bias: str, options: dict[str, Any]) -> None:
    """Where y f is below the level on a grid, and nowhere else; every end of an interval is a root."""
    g = torch.Generator().manual_seed(5)
    for seed, level in ((0, 0.0), (1, -0.05), (2, 0.1)):
        model, params = net(40, bias, seed, **options)
        x, s = (torch.randn(30, D, generator=g, dtype=torch.float64) for _ in range(2))
        y = torch.where(torch.rand(30, generator=g) < 0.5, 1.0, -1.0).double()
        found = flips(model, params, x, y, s, level)
        t = torch.linspace(1e-6, 12, 20001, dtype=torch.float64)
        common = torch.ones(len(t), dtype=torch.bool)
        for i in range(30):
            below = y[i] * model.apply(params, x[i] + t.unsqueeze(-1) * s[i]) < level
            common &= below
            mine = np.zeros(len(t), dtype=bool)
            for a, b in zip(found.start[found.point == i], found.end[found.point == i], strict=True):
                mine |= (t.numpy() > a) & (t.numpy() < b)
                for root in (a, b):
                    if 0 < root < math.inf:
                        at = float(y[i] * model.apply(params, (x[i] + root * s[i]).unsqueeze(0))[0])
                        assert at == pytest.approx(level, abs=1e-9)
            assert (mine == below.numpy()).all()
            assert found.many[i] == (found.point == i).sum()
            starts = found.start[found.point == i]
            assert found.first[i] == (starts.min() if len(starts) else math.inf)
        expected = float(t[common][0]) if bool(common.any()) else math.inf
        assert found.common == pytest.approx(expected, abs=1e-3) or found.common > 12


def test_labels_that_come_back() -> None:
    """f(t) = 1 - 2 relu(t - 1) + 4 relu(t - 2) - 4 relu(t - 3): below 0 from 1.5 to 2.5, and from 3.5."""
    model = MLP(width=4, bias="all")
    params = {
        "W1": torch.ones(4, 1, dtype=torch.float64),
        "b1": torch.tensor([-1.0, -2.0, -3.0, -100.0], dtype=torch.float64),
        "W2": torch.tensor([[-2.0, 4.0, -4.0, 0.0]], dtype=torch.float64),
        "b2": torch.ones(1, dtype=torch.float64),
    }
    zero, one = torch.zeros(2, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    y = torch.tensor([1.0, 1.0], dtype=torch.float64)
    found = flips(model, params, torch.tensor([[0.0], [2.2]], dtype=torch.float64), y, one)
    assert found.start == pytest.approx([1.5, 3.5, 0.0, 1.3])
    assert found.end == pytest.approx([2.5, math.inf, 0.3, math.inf])
    assert found.first == pytest.approx([1.5, 0.0])
    assert found.common == pytest.approx(1.5)
    assert found.least(1.0) == found.common
    assert found.least(0.5) == 0, "the second point is below at once"
    assert list(found.at(2.0)) == [True, True]
    assert list(found.at(0.2)) == [False, True]
    assert isinstance(flips(model, params, zero, y, one), Flips)


def test_other_nets_and_directions_are_refused() -> None:
    y, x = torch.ones(3, dtype=torch.float64), torch.ones(3, D, dtype=torch.float64)
    model, params = net(4, "first", 0)
    with pytest.raises(ConfigError, match="must have shape"):
        flips(model, params, x, y, torch.ones(D + 1, dtype=torch.float64))
    for other in (MLP(depth=3, width=4), MLP(width=4, activation="leaky")):
        with pytest.raises(ConfigError, match="one hidden layer of ReLUs"):
            flips(other, other.init(D, 1, torch.Generator()), x, y, x[0])


def test_the_simple_example_of_section_5_1() -> None:
    """x_i = sqrt(d) e_i: without biases z of length 2 sqrt(2) brings f to -1 at every positive point, and no less."""
    d = D
    x = math.sqrt(d) * torch.eye(d, dtype=torch.float64)
    y = torch.tensor([1.0] * (d // 2) + [-1.0] * (d // 2), dtype=torch.float64)
    plain = {"W1": x / d, "W2": y.unsqueeze(0)}
    z = 4 / d * x[d // 2 :].sum(0)
    assert float(z.norm()) == pytest.approx(2 * math.sqrt(2))
    positive = flips(MLP(width=d), plain, x[: d // 2], y[: d // 2], z / z.norm(), level=-1.0)
    assert positive.first == pytest.approx([2 * math.sqrt(2)] * (d // 2))
    robust, distance = robust_net(x, y)
    assert robust["b1"] == pytest.approx(-1.0)
    assert distance == pytest.approx(math.sqrt(d) / 4)
    assert math.isinf(flips(MLP(width=d, bias="first"), robust, x[: d // 2], y[: d // 2], -x[: d // 2] / 4).common)


@pytest.mark.parametrize(("m", "d"), [(20, 20), (5, 40), (60, 30)])
def test_the_explicit_network_keeps_its_labels_in_the_ball_that_it_promises(m: int, d: int) -> None:
    """Margins 1; within the ball each unit is on at its own point only, by Cauchy-Schwarz, the proof of Thm 3.1."""
    g = torch.Generator().manual_seed(m)
    x = torch.randn(m, d, generator=g, dtype=torch.float64)
    x = math.sqrt(d) * x / x.norm(dim=1, keepdim=True)
    y = torch.where(torch.rand(m, generator=g) < 0.5, 1.0, -1.0).double()
    params, distance = robust_net(x, y)
    model = MLP(width=m, bias="first")
    assert y * model.apply(params, x) == pytest.approx(torch.ones(m, dtype=torch.float64), abs=1e-9)
    assert distance > 0
    z = x @ params["W1"].T + params["b1"]
    reach = distance * params["W1"].norm(dim=1)
    own = z.diag()
    assert bool((own - reach >= 0.5 - 1e-9).all())
    assert bool((z - torch.diag(own) + reach <= -0.5 + torch.eye(m) * 10 + 1e-9).all())
    with pytest.raises(ConfigError, match="length"):
        robust_net(2 * x, y)
    with pytest.raises(ConfigError, match="one line"):
        robust_net(torch.cat([x, -x[:1]]), torch.cat([y, y[:1]]))


def test_the_least_length_that_flips_a_share() -> None:
    """Against a fine grid, with a net whose points come back."""
    model, params = net(8, "first", 3)
    g = torch.Generator().manual_seed(5)
    x = torch.randn(40, D, generator=g, dtype=torch.float64)
    y = model.apply(params, x).sign()
    u = torch.randn(D, generator=g, dtype=torch.float64)
    found = flips(model, params, x, y, u)
    grid = np.linspace(0, 8, 8001)
    shares = np.array([float((y * model.apply(params, x + t * u) < 0).double().mean()) for t in grid])
    assert shares.max() >= 0.3, "the ray flips some"
    for share in (0.05, 0.2, 0.3):
        above = grid[shares >= share]
        assert found.least(share) == pytest.approx(above[0], abs=1.1e-3)
    assert math.isinf(found.least(1.0)) == math.isinf(found.common)
