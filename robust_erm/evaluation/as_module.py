"""Models of this package as plain ``torch.nn.Module``."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from robust_erm.core.fields import unchanged
from robust_erm.core.params import Params
from robust_erm.core.stack import alternating
from robust_erm.models.cnn import CNN
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP


class Applied(nn.Module):
    """A model that is no stack of torch's layers: its parameters, and ``model.apply`` as the forward pass."""

    def __init__(self, model: Any, params: Params) -> None:
        super().__init__()
        self._model = model
        self._names = {name: name.replace(".", "__") for name in params}  # torch allows no dots here
        for name, value in params.items():
            self.register_parameter(self._names[name], nn.Parameter(value.clone()))

    def forward(self, x: Tensor) -> Tensor:
        """X (n, d) -> (n,) or (n, C)."""
        found: Tensor = self._model.apply({name: getattr(self, own) for name, own in self._names.items()}, x)
        return found


def as_module(model: Any, params: Params) -> nn.Module:
    """``model`` with ``params``: x (n, d) -> (n,) for one logit, (n, C) for several.

    An ``nn.Sequential`` of torch's own layers for linear, deep linear, fully connected (ReLU, leaky ReLU, identity) and
    convolutional models; :class:`Applied` for others, a user's own among them. In the parameters' own precision.
    """
    layers = _layers(model, params)
    if layers is None:
        return Applied(model, params)
    return nn.Sequential(*layers).to(next(iter(params.values())).dtype)


def _layers(model: Any, params: Params) -> list[nn.Module] | None:
    """The layers of a sequential form; None: it has none."""
    if unchanged(model, Linear, "init"):
        w = params["w"]
        return _squeezed([_dense(w if w.ndim == 2 else w.unsqueeze(0))])
    if unchanged(model, DeepLinear, "init"):
        return _squeezed([_dense(params[f"W{k}"]) for k in range(1, model.depth + 1)])
    if unchanged(model, CNN, "init"):
        return _convolutional(params)
    if not unchanged(model, MLP, "init") or model.activation == "power":
        return None
    found: list[nn.Module] = []
    for k in range(1, model.layers + 1):
        weight = params[f"W{k}"] if f"W{k}" in params else alternating(params["W1"])
        found.append(_dense(weight, params.get(f"b{k}")))
        if k < model.layers:
            slope = {"relu": 0.0, "identity": 1.0}.get(model.activation, model.slope)
            found.append({0.0: nn.ReLU(), 1.0: nn.Identity()}.get(slope, nn.LeakyReLU(slope)))
    return _squeezed(found)


def _convolutional(params: Params) -> list[nn.Module]:
    side = 4 * math.isqrt(params["W3"].shape[1] // params["W2"].shape[0])  # two poolings by 2
    found: list[nn.Module] = [nn.Unflatten(1, (params["W1"].shape[1], side, side))]
    for k in (1, 2):
        weight, bias = params[f"W{k}"], params.get(f"b{k}")
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 5, padding=2, bias=bias is not None)
        found += [_filled(layer, weight, bias), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [_dense(params[f"W{k}"], params.get(f"b{k}")) for k in (3, 4)]
    return _squeezed([*found, nn.Flatten(), dense[0], nn.ReLU(), dense[1]])


def _dense(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    return _filled(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight, bias)


def _filled(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.to(weight.dtype)
    layer.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
    return layer


def _squeezed(layers: list[nn.Module]) -> list[nn.Module]:
    """(n, 1) as (n,)."""
    last = layers[-1]
    return [*layers, nn.Flatten(0)] if isinstance(last, nn.Linear) and last.out_features == 1 else layers
