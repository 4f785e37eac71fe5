"""f(x; u) = <u_+^L - u_-^L, x>."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.errors import ConfigError, at_most, positive
from robust_erm.core.fields import per_run
from robust_erm.core.linalg import matvec
from robust_erm.core.params import Params


@dataclass(frozen=True)
class Diagonal:
    """Diagonal linear network, ``w = u_+^L - u_-^L`` entrywise.

    Args:
        depth: L, at least 1; tsilivis2024 uses 2.
        alpha: initialisation scale; every entry starts at ``alpha / sqrt(2 d)``
            (tsilivis2024 App. F.1: alpha = 1e-3 promotes feature learning).

    Reference:
        tsilivis2024 Sec. 4.2; Woodworth et al. 2020.
    """

    depth: int = 2
    alpha: float = per_run(1e-3)

    def __post_init__(self) -> None:
        at_most("depth", self.depth, 1000)
        positive("alpha", self.alpha, "must be positive and finite: zero is a stationary point")

    @property
    def degree(self) -> int | None:
        """L."""
        return self.depth

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """u_+ and u_-, both (d,); not random."""
        if outputs != 1:
            raise ConfigError("", "diagonal", f"has one logit, the data has {outputs} classes; use model=linear")
        start = torch.full((d,), self.alpha / math.sqrt(2 * d), dtype=torch.float64)
        return {"u_plus": start, "u_minus": start.clone()}

    def weight(self, params: Params) -> Tensor:
        """W (d,) = u_+^L - u_-^L."""
        return params["u_plus"] ** self.depth - params["u_minus"] ** self.depth

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """X (n, d) -> (n,)."""
        return matvec(x, self.weight(params))
