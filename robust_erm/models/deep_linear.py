"""f(x; W_1..W_L) = W_L ... W_1 x."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.errors import at_most, positive
from robust_erm.core.fields import per_run
from robust_erm.core.linalg import linear
from robust_erm.core.margins import squeeze_logit
from robust_erm.core.params import Params
from robust_erm.core.stack import Stack
from robust_erm.models.model import uniform


@dataclass(frozen=True)
class DeepLinear:
    """Deep linear network without biases, ``f(x) = W_L ... W_1 x`` (lyu2022 Sec. 3.1).

    Args:
        depth: L, the number of matrices.
        width: of every hidden layer.
        init_scale: factor on PyTorch's default uniform initialisation.
    """

    depth: int = 2
    width: int = 64
    init_scale: float = per_run(1.0)

    def __post_init__(self) -> None:
        at_most("depth", self.depth, 1000)
        at_most("width", self.width, 10**9)
        positive("init_scale", self.init_scale, "must be positive and finite: zero is a stationary point")

    @property
    def degree(self) -> int | None:
        """L."""
        return self.depth

    @property
    def stack(self) -> Stack:
        """The layers, for :mod:`robust_erm.core.stack`."""
        return Stack(tuple((f"W{k}", None) for k in range(1, self.depth + 1)))

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """W1 (width, d), ..., WL (outputs, width)."""
        sizes = [d, *[self.width] * (self.depth - 1), outputs]
        return {
            f"W{k + 1}": uniform((sizes[k + 1], sizes[k]), sizes[k], self.init_scale, generator)
            for k in range(self.depth)
        }

    def weight(self, params: Params) -> Tensor:
        """The product W_L ... W_1: (d,), or (C, d)."""
        product = params[f"W{self.depth}"]
        for k in range(self.depth - 1, 0, -1):
            product = product @ params[f"W{k}"]
        return product.squeeze(0) if product.shape[0] == 1 else product

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """X (n, d) -> (n,) or (n, C)."""
        h = x
        for k in range(1, self.depth + 1):
            h = linear(h, params[f"W{k}"])
        return squeeze_logit(h)
