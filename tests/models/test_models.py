from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from robust_erm.core.errors import ConfigError
from robust_erm.core.params import Layout
from robust_erm.models.cnn import CNN
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP

HOMOGENEOUS: list[Any] = [
    Linear(init_scale=1.0),
    Diagonal(depth=2, alpha=0.7),
    Diagonal(depth=3, alpha=0.7),
    DeepLinear(depth=4, width=5),
    MLP(depth=2, width=5),
    MLP(depth=3, width=5, bias="first"),
    CNN(channels=(2, 3), hidden=5, bias=False),
]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("model", HOMOGENEOUS, ids=str)
@pytest.mark.parametrize("outputs", [1, 3])
def test_degree(model: Any, outputs: int) -> None:
    """f(x; a params) = a^L f(x; params)."""
    if isinstance(model, Diagonal) and outputs > 1:
        with pytest.raises(ConfigError, match="has one logit"):
            model.init(16, outputs, generator())
        return
    params = model.init(16, outputs, generator())
    params = {k: v + 0.1 * torch.randn(v.shape, generator=generator()).double() for k, v in params.items()}
    x = torch.randn(4, 16, generator=generator()).double()
    f = model.apply(params, x)
    assert f.shape == ((4,) if outputs == 1 else (4, 3))
    scaled = model.apply({k: 1.3 * v for k, v in params.items()}, x)
    assert torch.allclose(scaled, 1.3**model.degree * f, rtol=1e-10)


@pytest.mark.parametrize("model", [MLP(bias="all"), CNN(channels=(2, 3), hidden=5)], ids=str)
def test_no_degree(model: Any) -> None:
    assert model.degree is None
    params = model.init(16, 1, generator())
    x = torch.randn(4, 16, generator=generator()).double()
    f, scaled = model.apply(params, x), model.apply({k: 2 * v for k, v in params.items()}, x)
    assert (scaled / f).std() > 0.01


@pytest.mark.parametrize("model", [m for m in HOMOGENEOUS if hasattr(m, "weight")], ids=str)
def test_weight_is_the_predictor(model: Any) -> None:
    params = model.init(16, 1, generator())
    x = torch.randn(4, 16, generator=generator()).double()
    assert torch.allclose(model.apply(params, x), x @ model.weight(params), rtol=1e-10)


def test_mlp_is_torchs() -> None:
    model = MLP(depth=3, width=5, bias="all")
    params = model.init(6, 4, generator())
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    with torch.no_grad():
        for k, layer in enumerate((net[0], net[2], net[4]), start=1):
            layer.weight.copy_(params[f"W{k}"])
            layer.bias.copy_(params[f"b{k}"])
    x = torch.randn(7, 6, generator=generator()).double()
    assert torch.allclose(model.apply(params, x), net(x), rtol=1e-12)


def test_cnn_is_madrys() -> None:
    """The layers of Madry et al. 2018 for MNIST, by torch.nn; 3,274,634 parameters."""
    model = CNN()
    params = model.init(784, 10, generator())
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(64 * 49, 1024), nn.ReLU(), nn.Linear(1024, 10)),
    ).double()
    assert Layout.of(params).size == sum(p.numel() for p in net.parameters()) == 3_274_634
    with torch.no_grad():
        for k, layer in enumerate((net[0], net[3], net[7], net[9]), start=1):
            layer.weight.copy_(params[f"W{k}"])
            layer.bias.copy_(params[f"b{k}"])
    x = torch.rand(3, 784, generator=generator()).double()
    assert torch.allclose(model.apply(params, x), net(x.reshape(3, 1, 28, 28)), rtol=1e-9)


def test_init_is_torchs_default_scaled() -> None:
    """U(-b, b), b = scale / sqrt(fan_in): the variance is b^2 / 3 and nothing lies outside."""
    params = MLP(width=400, bias="all", init_scale=0.5).init(100, 1, generator())
    for name, fan_in in (("W1", 100), ("b1", 100), ("W2", 400)):
        bound = 0.5 / math.sqrt(fan_in)
        assert float(params[name].abs().max()) <= bound
        assert float(params[name].var()) == pytest.approx(bound**2 / 3, rel=0.15)


def test_diagonal_start() -> None:
    params = Diagonal(alpha=1e-3).init(8, 1, generator())
    assert torch.allclose(params["u_plus"], torch.full((8,), 1e-3 / 4).double())
    assert torch.equal(Diagonal().weight(params), torch.zeros(8).double())


def test_layout_round_trip() -> None:
    params = CNN(channels=(2, 3), hidden=5).init(16, 3, generator())
    layout = Layout.of(params)
    theta = layout.flatten(params)
    assert theta.shape == (layout.size,)
    for name, value in layout.unflatten(theta).items():
        assert torch.equal(value, params[name])


def test_cnn_refuses_what_is_no_image() -> None:
    with pytest.raises(ConfigError, match="side a multiple of 4"):
        CNN().init(100, 1, generator())
