"""A linear model behind a staircase: gradients by its input are zero almost everywhere. Masked, on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.params import Params
from robust_erm.models.linear import Linear


@dataclass(frozen=True)
class Staircase:
    """``f(x) = <w, round(8 x) / 8>``."""

    @property
    def degree(self) -> int | None:
        return 1

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        return Linear().init(d, outputs, generator)

    def apply(self, params: Params, x: Tensor) -> Tensor:
        return Linear().apply(params, (8 * x).round() / 8)
