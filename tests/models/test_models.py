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
from robust_erm.models.linear_conv import LinearConv
from robust_erm.models.mlp import MLP

HOMOGENEOUS: list[Any] = [
    Linear(init_scale=1.0),
    Diagonal(depth=2, alpha=0.7),
    Diagonal(depth=3, alpha=0.7),
    DeepLinear(depth=4, width=5),
    LinearConv(depth=1),
    LinearConv(depth=3),
    MLP(depth=2, width=5),
    MLP(depth=3, width=5, bias="first"),
    MLP(widths=(5, 3, 4), bias="first"),
    MLP(depth=3, width=5, bias="first", activation="leaky", slope=0.2),
    MLP(width=5, bias="first", activation="identity"),
    MLP(width=5, bias="first", activation="power"),
    MLP(width=5, activation="power", power=1.5, trained="first"),
    MLP(width=5, bias="first", trained="first"),
    CNN(channels=(2, 3), hidden=5, bias=False),
]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("model", HOMOGENEOUS, ids=str)
@pytest.mark.parametrize("outputs", [1, 3])
def test_degree(model: Any, outputs: int) -> None:
    """f(x; a params) = a^L f(x; params)."""
    one = isinstance(model, Diagonal | LinearConv) or getattr(model, "trained", "all") == "first"
    if one and outputs > 1:
        with pytest.raises(ConfigError, match=r"has one logit|for one logit, here there are 3"):
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


@pytest.mark.parametrize(
    ("option", "between"),
    [
        ({"activation": "leaky"}, nn.LeakyReLU()),
        ({"activation": "leaky", "slope": 0.3}, nn.LeakyReLU(0.3)),
        ({"activation": "identity"}, nn.Identity()),
        ({"activation": "power", "power": 1.0}, nn.ReLU()),
    ],
    ids=str,
)
def test_activations_are_torchs(option: dict[str, Any], between: nn.Module) -> None:
    model = MLP(widths=(5,), bias="all", **option)
    params = model.init(6, 4, generator())
    x = torch.randn(7, 6, generator=generator()).double()
    expected = between(x @ params["W1"].mT + params["b1"]) @ params["W2"].mT + params["b2"]
    assert torch.allclose(model.apply(params, x), expected, rtol=1e-12)


@pytest.mark.parametrize("p", [1.4, 2.0, 3.0, 7.0])
@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_powers_of_relu(p: float, scale: float) -> None:
    """Number by number, at any scale of the weights; a unit without weight gives 0, and is not moved."""
    model = MLP(width=4, bias="first", activation="power", power=p)
    params = model.init(9, 1, generator())
    params = {"W1": scale * params["W1"], "b1": scale * params["b1"], "W2": params["W2"]}
    params["W1"][2] = 0
    params["b1"][2] = 3 * scale
    x = torch.randn(6, 9, generator=generator()).double()
    f, slope = model.apply(params, x), torch.func.grad(lambda q: model.apply(q, x).sum())(params)
    for i in range(6):
        total = 0.0
        for j in (0, 1, 3):
            z = float(params["W1"][j] @ x[i] + params["b1"][j]) / scale
            length = math.sqrt(9 * sum((float(w) / scale) ** 2 for w in params["W1"][j]))
            total += float(params["W2"][0, j]) * max(z, 0) ** p / length ** (p - 1) * scale
        assert float(f[i]) == pytest.approx(total, rel=1e-9)
    assert all(bool(g.isfinite().all()) for g in slope.values())
    assert not slope["W1"][2].any()
    assert not slope["b1"][2]
    assert not slope["W2"][0, 2]
    assert slope["W1"].any()


def test_a_fixed_second_layer() -> None:
    """+-1/width in turn, and no parameter; the same start as of the net in which it is one."""
    model = MLP(width=5, bias="first", trained="first")
    params, full = model.init(6, 1, generator()), MLP(width=5, bias="first").init(6, 1, generator())
    assert list(params) == ["W1", "b1"]
    assert all(torch.equal(params[name], full[name]) for name in params)
    full["W2"] = torch.tensor([[1, -1, 1, -1, 1]]).double() / 5
    x = torch.randn(7, 6, generator=generator()).double()
    assert torch.allclose(model.apply(params, x), MLP(width=5, bias="first").apply(full, x), rtol=1e-13)


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


def test_gaussian_start() -> None:
    """N(0, init_scale^2) in every layer, whatever its fan-in."""
    params = MLP(width=300, bias="all", init_scale=0.5, init_law="gaussian").init(200, 9, generator())
    for p in (params["W1"], params["W2"], torch.cat([params["b1"], params["b2"]])):
        assert float(p.std()) == pytest.approx(0.5, rel=4 / math.sqrt(2 * p.numel()))
        assert abs(float(p.mean())) < 4 * 0.5 / math.sqrt(p.numel())
        assert float((p.abs() > 0.5).double().mean()) == pytest.approx(0.317, abs=2 / math.sqrt(p.numel()))


@pytest.mark.parametrize("law", ["uniform", "gaussian"])
def test_scales_of_layers(law: str) -> None:
    """Factors on what is drawn without them."""
    plain = MLP(widths=(5, 4), bias="all", init_law=law).init(6, 2, generator())
    scaled = MLP(widths=(5, 4), bias="all", init_law=law, layer_scales=(1, 0.1, 3)).init(6, 2, generator())
    assert [tuple(plain[f"W{k}"].shape) for k in (1, 2, 3)] == [(5, 6), (4, 5), (2, 4)]
    for name, factor in (("W1", 1), ("b1", 1), ("W2", 0.1), ("b2", 0.1), ("W3", 3), ("b3", 3)):
        assert torch.allclose(scaled[name], factor * plain[name], rtol=1e-14)


def test_widths_stand_for_depth_and_width() -> None:
    x = torch.randn(7, 6, generator=generator()).double()
    one, other = MLP(depth=3, width=5), MLP(depth=9, width=2, widths=(5, 5))
    params = one.init(6, 1, generator())
    assert all(map(torch.equal, params.values(), other.init(6, 1, generator()).values()))
    assert torch.equal(one.apply(params, x), other.apply(params, x))
    assert (other.layers, other.degree) == (3, 3)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"widths": ()}, "widths = []: must have 1 to 999 hidden widths"),
    ({"widths": (8, 0)}, "widths = 0: must be 1 or more"),
    ({"widths": (1,) * 1000}, "must have 1 to 999 hidden widths"),
    ({"activation": "power", "power": 0.5}, "power = 0.5: must be between 1 (relu) and 100"),
    ({"power": math.inf}, "power = inf: must be between 1"),
    ({"power": math.nan}, "power = nan: must be between 1"),
    ({"activation": "power", "depth": 3}, "activation = power: needs one hidden layer, depth 2, this net has depth 3"),
    ({"activation": "power", "widths": (4, 4)}, "this net has depth 3"),
    ({"activation": "relo"}, "activation = relo: must be one of relu, leaky, identity, power (did you mean relu?)"),
    ({"slope": -0.1}, "slope = -0.1: must be between 0 (relu) and 1 (identity)"),
    ({"slope": math.nan}, "slope = nan: must be between"),
    ({"trained": "last"}, "trained = last: must be one of all, first"),
    ({"trained": "first", "depth": 1}, "trained = first: needs one hidden layer, depth 2, this net has depth 1"),
    ({"trained": "first", "bias": "all"}, "trained = first: fixes the second layer, which then has no bias"),
    ({"init_law": "normal"}, "init_law = normal: must be one of uniform, gaussian"),
    ({"layer_scales": (1.0,)}, "layer_scales = [1.0]: must have as many factors as there are trained layers, 2"),
    ({"layer_scales": (1.0, 1.0), "trained": "first"}, "trained layers, 1; null"),
    ({"layer_scales": (1.0, -1.0)}, "layer_scales = -1.0: must be positive and finite"),
    ({"layer_scales": (0.0, 1.0)}, "layer_scales = 0.0: must be positive and finite"),
]


@pytest.mark.parametrize(("options", "says"), BAD, ids=[str(options)[:60] for options, _ in BAD])
def test_options_that_make_no_net(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MLP(**options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_diagonal_start() -> None:
    params = Diagonal(alpha=1e-3).init(8, 1, generator())
    assert torch.allclose(params["u_plus"], torch.full((8,), 1e-3 / 4).double())
    assert torch.equal(Diagonal().weight(params), torch.zeros(8).double())


@pytest.mark.parametrize("d", [1, 5, 8])
def test_a_linear_convolutional_net_is_diagonal_in_the_fourier_basis(d: int) -> None:
    params = LinearConv(depth=3).init(d, 1, generator())
    product = torch.stack([torch.fft.fft(k) for k in params.values()]).prod(0)
    w = LinearConv(depth=3).weight(params)
    assert torch.allclose(torch.fft.fft(w), product)
    kernel, other = params["k1"], params["k2"]
    by_hand = [sum(kernel[i] * other[(j - i) % d] for i in range(d)) for j in range(d)]
    assert torch.allclose(LinearConv().weight(params), torch.stack(by_hand))  # type: ignore[arg-type]


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
