"""Fully connected models of many runs: outputs, and derivatives in inputs and parameters, as batched matrix products.

A *stack* is ``f(x) = W_L a(... a(W_1 x + b_1) ...) + b_L``: a linear model has one layer, a deep linear one no
activation. All functions take a leading run axis R, and know no framework of derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.linalg import linear, product
from robust_erm.core.params import Params


@dataclass(frozen=True)
class Stack:
    """What a fully connected model is made of.

    Args:
        layers: names of each layer's weight (out, in) and of its bias (out,), None where it has none; a single weight
            (in,) is one row.
        activation: between two layers.
    """

    layers: tuple[tuple[str, str | None], ...]
    activation: str = "identity"

    def forward(self, params: Params, x: Tensor) -> Trace:
        """The outputs at x (R, n, d), and what their derivatives need."""
        inputs, slopes, h = [x], [], x
        for k, (weight, bias) in enumerate(self.layers, start=1):
            h = linear(h, _matrix(params[weight]))
            if bias is not None:
                h = h + params[bias].unsqueeze(-2)
            if k < len(self.layers):
                if self.activation == "relu":
                    slopes.append(h > 0)
                    h = h.clamp_min(0)
                inputs.append(h)
        return Trace(h, inputs, slopes)

    def to_inputs(self, params: Params, trace: Trace, slope: Tensor) -> Tensor:
        """``sum_c slope_c grad_x f_c`` (R, n, d) for slope (R, n, C)."""
        for k in reversed(range(len(self.layers))):
            slope = self._before(k, params, trace, slope)
        return slope

    def _before(self, k: int, params: Params, trace: Trace, slope: Tensor) -> Tensor:
        """What the slope (R, n, out) at the outputs of layer k is at those of the layer before, or at the inputs."""
        slope = product(slope, _matrix(params[self.layers[k][0]]))
        return slope * trace.slopes[k - 1] if k and trace.slopes else slope

    def to_params(self, params: Params, trace: Trace, slope: Tensor) -> Params:
        """``sum_{i, c} slope_ic grad_theta f_c(x_i)``, of every run, for slope (R, n, C)."""
        found: Params = {}
        for k in reversed(range(len(self.layers))):
            weight, bias = self.layers[k]
            found[weight] = product(slope.mT, trace.inputs[k]).reshape(params[weight].shape)
            if bias is not None:
                found[bias] = slope.sum(-2)
            if k:
                slope = self._before(k, params, trace, slope)
        return found

    def numbers(self, params: Params) -> int:
        """How many numbers one point makes on its way through; ``params`` without a run axis."""
        count = 0
        for k, (weight, bias) in enumerate(self.layers, start=1):
            out = params[weight].shape[0] if params[weight].ndim > 1 else 1
            count += out * (1 + (bias is not None) + (k < len(self.layers) and self.activation != "identity"))
        return count

    def predictor(self, params: Params) -> Tensor:
        """The weights (R, C, d) of a stack without activation and biases."""
        last = _matrix(params[self.layers[-1][0]])
        classes = last.shape[-2]
        eye = torch.eye(classes, dtype=last.dtype, device=last.device).expand(*last.shape[:-2], classes, classes)
        return self.to_inputs(params, Trace(eye, [], []), eye)


@dataclass(frozen=True)
class Trace:
    """Of one forward pass.

    Args:
        outputs: (R, n, C).
        inputs: of every layer, (R, n, in).
        slopes: of every hidden layer's activation, (R, n, out); none for the identity.
    """

    outputs: Tensor
    inputs: list[Tensor]
    slopes: list[Tensor]


def _matrix(weight: Tensor) -> Tensor:
    """(R, out, in), of a single row (R, in) too."""
    return weight.unsqueeze(-2) if weight.ndim == 2 else weight
