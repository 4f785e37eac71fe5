"""Fully connected models of many runs: outputs, and derivatives in inputs and parameters, as batched matrix products.

A *stack* is ``f(x) = W_L a(... a(W_1 x + b_1) ...) + b_L``: a linear model has one layer, a deep linear one no
activation. All functions take a leading run axis R, and know no framework of derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.activations import IDENTITY, Activation
from robust_erm.core.linalg import linear, product, product_into
from robust_erm.core.params import Params


@dataclass(frozen=True)
class Stack:
    """What a fully connected model is made of.

    Args:
        layers: names of each layer's weight (out, in) and of its bias (out,), None where it has none; a single weight
            (in,) is one row. A last weight of None is no parameter, but :func:`alternating`.
        activation: between two layers.
    """

    layers: tuple[tuple[str | None, str | None], ...]
    activation: Activation = IDENTITY

    def __post_init__(self) -> None:
        """Lists will do; what is compiled for a stack is looked up by it, and lists have no hash."""
        object.__setattr__(self, "layers", tuple(map(tuple, self.layers)))

    def weight(self, k: int, params: Params) -> Tensor:
        """The weight (R, out, in) of layer k, from 0."""
        name = self.layers[k][0]
        if name is None:
            return alternating(self.weight(k - 1, params))
        return params[name].unsqueeze(-2) if params[name].ndim == 2 else params[name]

    def forward(self, params: Params, x: Tensor) -> Trace:
        """The outputs at x (R, n, d), and what their derivatives need."""
        inputs, kept, h = [x], [], x
        for k, (_, bias) in enumerate(self.layers):
            weight = self.weight(k, params)
            h = linear(h, weight)
            if bias is not None:
                h = h + params[bias].unsqueeze(-2)
            if k + 1 < len(self.layers):
                h, needed = self.activation.forward(h, weight)
                kept.append(needed)
                inputs.append(h)
        return Trace(h, inputs, kept)

    def backward(self, params: Params, trace: Trace, slope: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """From the last layer k to the first: k, and the slopes (R, n, out) after its activation and before it.

        Args:
            params: with a run axis.
            trace: of :meth:`forward`.
            slope: of a function of the outputs, (R, n, C).
        """
        for k in reversed(range(len(self.layers))):
            before = self.activation.back(slope, trace.kept[k]) if k < len(trace.kept) else slope
            yield k, slope, before
            if k:
                slope = product(before, self.weight(k, params))

    def to_inputs(self, params: Params, trace: Trace, slope: Tensor) -> Tensor:
        """``sum_c slope_c grad_x f_c`` (R, n, d) for slope (R, n, C)."""
        for k, _, before in self.backward(params, trace, slope):
            if k == 0:
                slope = product(before, self.weight(0, params))
        return slope

    def to_params(self, params: Params, trace: Trace, slope: Tensor, into: Params | None = None) -> Params:
        """``sum_{i, c} slope_ic grad_theta f_c(x_i)``, of every run, slope (R, n, C); over ``into``, where given."""
        found: Params = {} if into is None else into
        for k, after, before in self.backward(params, trace, slope):
            weight, bias = self.layers[k]
            if weight is not None:
                if into is None:
                    found[weight] = product(before.mT, trace.inputs[k]).reshape(params[weight].shape)
                else:
                    out = into[weight]
                    product_into(out if out.ndim == 3 else out.unsqueeze(-2), before.mT, trace.inputs[k])
                if k + 1 < len(self.layers):
                    more = self.activation.through_weight(params[weight], trace.inputs[k + 1], after)
                    if more is not None:
                        found[weight] += more
            if bias is not None and into is None:
                found[bias] = before.sum(-2)
            elif bias is not None:
                found[bias].copy_(before.sum(-2))
        return found

    def numbers(self, params: Params) -> int:
        """How many numbers one point makes on its way through; ``params`` without a run axis."""
        count = 0
        for k, (weight, bias) in enumerate(self.layers, start=1):
            out = params[weight].shape[0] if weight is not None and params[weight].ndim > 1 else 1
            count += out * (1 + (bias is not None) + (k < len(self.layers)) * self.activation.numbers)
        return count

    def predictor(self, params: Params) -> Tensor:
        """The weights (R, C, d) of a stack without activation and biases."""
        last = self.weight(-1, params)
        classes = last.shape[-2]
        eye = torch.eye(classes, dtype=last.dtype, device=last.device).expand(*last.shape[:-2], classes, classes)
        return self.to_inputs(params, Trace(eye, [], []), eye)


@dataclass(frozen=True)
class Trace:
    """Of one forward pass.

    Args:
        outputs: (R, n, C).
        inputs: of every layer, (R, n, in).
        kept: of every hidden layer's activation, for :meth:`Activation.back`.
    """

    outputs: Tensor
    inputs: list[Tensor]
    kept: list[Tensor | None]


def alternating(weight: Tensor) -> Tensor:
    """A last layer that is not trained, (..., 1, h) over weights (..., h, d): 1/h, -1/h, 1/h, ...

    It has the axes that ``weight`` has, under vmap too: a product with it is then one product a run.
    """
    h = weight.shape[-2]
    signs = 1 - 2 * (torch.arange(h, device=weight.device) % 2)
    return (torch.zeros_like(weight[..., 0]) + signs.to(weight) / h).unsqueeze(-2)
