"""Fully connected networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from robust_erm.core.activations import KINDS, Activation
from robust_erm.core.errors import at_most, one_of, positive, require
from robust_erm.core.fields import later, per_run, unchanged
from robust_erm.core.linalg import linear
from robust_erm.core.margins import squeeze_logit
from robust_erm.core.params import Params
from robust_erm.core.stack import Stack, alternating
from robust_erm.models.model import gaussian, uniform


@dataclass(frozen=True)
class MLP:
    """``f(x) = W_L a(... a(W_1 x + b_1) ...)``.

    Args:
        depth: L, the number of weight matrices; 2 is the one-hidden-layer net of the papers.
        width: of every hidden layer.
        bias: none; first (b_1 only: vardi2022, frei2023, still homogeneous); or all.
        init_scale: factor on the start; PyTorch's default uniform initialisation of weights and biases
            (tsilivis2024 App. F.2: 1e-2, feature learning), or the standard deviation of a Gaussian one.
        widths: of the hidden layers, one by one, as in [1024,64]: stands for ``depth`` (one more than there are) and
            ``width``, which then count for nothing; null: depth - 1 times ``width``.
        activation: relu; leaky; identity; or power, ``relu(z_j)^p / (||w_j|| sqrt(d))^(p-1)`` with the unit's weight
            w_j in d dimensions and z_j = <w_j, x> + b_j, 0 where w_j = 0; one hidden layer only
            (:mod:`robust_erm.core.activations`).
        slope: of leaky, in [0, 1].
        power: p of power, a real number from 1 (relu) to 100.
        trained: all; or first, (W_1, b_1) of a net with one hidden layer and one logit: the second layer is
            +1/width, -1/width, +1/width, ..., and no parameter.
        init_law: uniform, U(-b, b) with b = init_scale / sqrt(fan-in); or gaussian, N(0, init_scale^2) for every
            weight and bias of every layer.
        layer_scales: factors on the start of each trained layer, as in [1,0.1]; null: 1.

    Reference:
        Min & Vidal 2024 (power, gaussian); Li, Pan, Lyu & Li 2025, "Feature averaging" (fixed second layer).
    """

    depth: int = 2
    width: int = 64
    bias: str = "none"
    init_scale: float = per_run(1.0)
    widths: tuple[int, ...] | None = later(None)
    activation: str = later("relu")
    slope: float = later(0.01)
    power: float = later(3.0)
    trained: str = later("all")
    init_law: str = later("uniform", per_run=True)
    layer_scales: tuple[float, ...] | None = later(None, per_run=True)

    def __post_init__(self) -> None:
        at_most("depth", self.depth, 1000)
        at_most("width", self.width, 10**9)
        one_of("bias", self.bias, ("none", "first", "all"))
        positive("init_scale", self.init_scale, "must be positive and finite: zero is a stationary point")
        if self.widths is not None:
            says = "must have 1 to 999 hidden widths, as in [1024,64]; null: width for every hidden layer"
            require(1 <= len(self.widths) <= 999, "widths", list(self.widths), says)
            for width in self.widths:
                at_most("widths", width, 10**9)
        one_of("activation", self.activation, KINDS)
        require(0 <= self.slope <= 1, "slope", self.slope, "must be between 0 (relu) and 1 (identity)")
        require(1 <= self.power <= 100, "power", self.power, "must be between 1 (relu) and 100, more than any of use")
        one_of("trained", self.trained, ("all", "first"))
        one_of("init_law", self.init_law, ("uniform", "gaussian"))
        self._check_layers()

    def _check_layers(self) -> None:
        one_hidden = f"needs one hidden layer, depth 2, this net has depth {self.layers}"
        require(self.activation != "power" or self.layers == 2, "activation", "power", one_hidden)
        require(self.trained == "all" or self.layers == 2, "trained", "first", one_hidden)
        fixed = "fixes the second layer, which then has no bias: bias must be none or first"
        require(self.trained == "all" or self.bias != "all", "trained", "first", fixed)
        if self.layer_scales is not None:
            many, scales = len(self._trained_layers), list(self.layer_scales)
            says = f"must have as many factors as there are trained layers, {many}; null: 1 for each"
            require(len(scales) == many, "layer_scales", scales, says)
            for scale in scales:
                positive("layer_scales", scale)

    @property
    def layers(self) -> int:
        """L, the number of weight matrices."""
        return self.depth if self.widths is None else len(self.widths) + 1

    @property
    def degree(self) -> int | None:
        """Of the trained layers, without biases or with first-layer biases; one layer is homogeneous with any."""
        return None if self.bias == "all" and self.layers > 1 else len(self._trained_layers)

    @property
    def _trained_layers(self) -> range:
        return range(1, self.layers + 1 if self.trained == "all" else 2)

    @property
    def _between(self) -> Activation:
        plain = self.activation == "power" and self.power == 1
        return Activation("relu" if plain else self.activation, self.slope, self.power)

    def _biased(self, k: int) -> bool:
        return self.bias == "all" or (self.bias == "first" and k == 1)

    @property
    def stack(self) -> Stack:
        """The layers, for :mod:`robust_erm.core.stack`."""
        weights = {k: f"W{k}" for k in self._trained_layers}
        layers = ((weights.get(k), f"b{k}" if self._biased(k) else None) for k in range(1, self.layers + 1))
        return Stack(tuple(layers), self._between)

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """W1 (width, d), b1 (width,), ..., WL (outputs, width); of the trained layers only."""
        says = f"has a fixed second layer for one logit, here there are {outputs}: use trained=all, or two classes"
        require(self.trained == "all" or outputs == 1, "trained", self.trained, says)
        sizes = [d, *(self.widths or [self.width] * (self.depth - 1)), outputs]
        params: Params = {}
        for k in self._trained_layers:
            scale = self.init_scale * (1.0 if self.layer_scales is None else self.layer_scales[k - 1])
            params[f"W{k}"] = self._start((sizes[k], sizes[k - 1]), sizes[k - 1], scale, generator)
            if self._biased(k):
                params[f"b{k}"] = self._start((sizes[k],), sizes[k - 1], scale, generator)
        return params

    def _start(self, shape: tuple[int, ...], fan_in: int, scale: float, generator: torch.Generator) -> Tensor:
        gauss = self.init_law == "gaussian"
        return gaussian(shape, scale, generator) if gauss else uniform(shape, fan_in, scale, generator)

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """X (n, d) -> (n,) or (n, C)."""
        h = x
        for k in range(1, self.layers + 1):
            weight = params[f"W{k}"] if k in self._trained_layers else alternating(params["W1"])
            h = linear(h, weight)
            if self._biased(k):
                h = h + params[f"b{k}"]
            if k < self.layers:
                h = self._between.value(h, weight)
        return squeeze_logit(h)


def one_hidden_relu(model: object) -> TypeGuard[MLP]:
    """Whether formulas of nets with one hidden layer of ReLUs, and any biases and outputs, are this model's."""
    return unchanged(model, MLP, "init") and model.layers == 2 and model.activation == "relu"
