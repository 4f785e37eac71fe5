"""f(x; w) = <w, x>."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.fields import per_run
from robust_erm.core.linalg import linear, matvec
from robust_erm.core.params import Params
from robust_erm.core.stack import Stack


@dataclass(frozen=True)
class Linear:
    """Linear predictor without bias, ``f(x; w) = <w, x>`` (or W x, for C > 2 classes).

    Args:
        init_scale: standard deviation of the Gaussian start; 0 starts at w = 0 (tsilivis2024).
    """

    init_scale: float = per_run(0.0)

    def __post_init__(self) -> None:
        require(0 <= self.init_scale < math.inf, "init_scale", self.init_scale, "must be 0 or more, and finite")

    @property
    def degree(self) -> int | None:
        """1."""
        return 1

    @property
    def stack(self) -> Stack:
        """The only layer, for :mod:`robust_erm.core.stack`."""
        return Stack((("w", None),))

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """W (d,), or (C, d)."""
        shape = (d,) if outputs == 1 else (outputs, d)
        return {"w": self.init_scale * torch.randn(shape, generator=generator, dtype=torch.float64)}

    def weight(self, params: Params) -> Tensor:
        """W itself."""
        return params["w"]

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """X (n, d) -> (n,) or (n, C)."""
        w = params["w"]
        return linear(x, w) if w.ndim == 2 else matvec(x, w)
