"""Fully connected ReLU networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.errors import at_most, one_of, positive
from robust_erm.core.fields import per_run
from robust_erm.core.linalg import linear
from robust_erm.core.params import Params
from robust_erm.core.stack import Stack
from robust_erm.models.model import squeeze_logit, uniform


@dataclass(frozen=True)
class MLP:
    """``f(x) = W_L relu(... relu(W_1 x + b_1) ...)``.

    Args:
        depth: L, the number of weight matrices; 2 is the one-hidden-layer net of the papers.
        width: of every hidden layer.
        bias: none; first (b_1 only: vardi2022, frei2023, still homogeneous); or all.
        init_scale: factor on PyTorch's default uniform initialisation of weights and biases
            (tsilivis2024 App. F.2: 1e-2, feature learning).
    """

    depth: int = 2
    width: int = 64
    bias: str = "none"
    init_scale: float = per_run(1.0)

    def __post_init__(self) -> None:
        at_most("depth", self.depth, 1000)
        at_most("width", self.width, 10**9)
        one_of("bias", self.bias, ("none", "first", "all"))
        positive("init_scale", self.init_scale, "must be positive and finite: zero is a stationary point")

    @property
    def degree(self) -> int | None:
        """L without biases or with first-layer biases; a one-layer net is homogeneous with any."""
        return None if self.bias == "all" and self.depth > 1 else self.depth

    def _biased(self, k: int) -> bool:
        return self.bias == "all" or (self.bias == "first" and k == 1)

    @property
    def stack(self) -> Stack:
        """The layers, for :mod:`robust_erm.core.stack`."""
        layers = ((f"W{k}", f"b{k}" if self._biased(k) else None) for k in range(1, self.depth + 1))
        return Stack(tuple(layers), "relu")

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """W1 (width, d), b1 (width,), ..., WL (outputs, width)."""
        sizes = [d, *[self.width] * (self.depth - 1), outputs]
        params: Params = {}
        for k in range(1, self.depth + 1):
            params[f"W{k}"] = uniform((sizes[k], sizes[k - 1]), sizes[k - 1], self.init_scale, generator)
            if self._biased(k):
                params[f"b{k}"] = uniform((sizes[k],), sizes[k - 1], self.init_scale, generator)
        return params

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """X (n, d) -> (n,) or (n, C)."""
        h = x
        for k in range(1, self.depth + 1):
            h = linear(h, params[f"W{k}"])
            if self._biased(k):
                h = h + params[f"b{k}"]
            if k < self.depth:
                h = h.relu()
        return squeeze_logit(h)
