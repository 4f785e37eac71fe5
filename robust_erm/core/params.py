"""The parameters of one model as one flat vector, and back.

Optimizers see the concatenated vector ``theta (P,)``: the l_r geometry of a network is that of all
its parameters together (coordinate descent moves one coordinate of the whole network).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Names and shapes, in order, of the tensors that make up ``theta``."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @staticmethod
    def of(params: Params) -> Layout:
        """The layout of ``params``."""
        return Layout(tuple((name, tuple(p.shape)) for name, p in params.items()))

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    def flatten(self, params: Params) -> Tensor:
        """Theta (P,)."""
        return torch.cat([params[name].reshape(-1) for name, _ in self.shapes])

    def unflatten(self, theta: Tensor) -> Params:
        """Views of theta (P,) under the names and shapes of the layout."""
        pieces = torch.split(theta, [math.prod(shape) for _, shape in self.shapes])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes, pieces, strict=True)}
