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
        """Theta (P,), or (R, P) of parameters that have a run axis."""
        lead = [params[name].shape[: params[name].ndim - len(shape)] for name, shape in self.shapes]
        return torch.cat([params[name].reshape(*lead[0], -1) for name, _ in self.shapes], dim=-1)

    def unflatten(self, theta: Tensor) -> Params:
        """Views of theta (P,), or (R, P), under the names and shapes of the layout."""
        pieces = torch.split(theta, [math.prod(shape) for _, shape in self.shapes], dim=-1)
        lead = theta.shape[:-1]
        return {name: piece.reshape(*lead, *shape) for (name, shape), piece in zip(self.shapes, pieces, strict=True)}
