"""Square Attack: random search without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_erm.attacks.attack import Iterative, Victim, into_box
from robust_erm.core.errors import at_most, require

_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


@dataclass(frozen=True)
class Square(Iterative):
    """From vertical stripes of +-eps, sets random squares to +-eps where that lowers the margin; l_inf only.

    It sees outputs only: an attack by gradients that finds less than this one is masked. Inputs of a square number
    of coordinates are images; of others, squares are intervals.

    Args:
        p: exponent of the threat's norm: inf.
        queries: outputs asked for, for every sample.
        share: of the image that the first square covers; halved nine times on the way.
        box: keep x' in the data's domain, where it has one ([0, 1] for images).

    Reference:
        Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random
        search", Algs. 1 and 2; the share 0.8 is AutoAttack's.
    """

    samplewise: ClassVar[bool] = True
    p: float = math.inf
    queries: int = 5000
    share: float = 0.8
    box: bool = True

    def __post_init__(self) -> None:
        require(self.p == math.inf, "p", self.p, "Square knows p = inf")
        at_most("queries", self.queries, 10**6)
        require(0 < self.share <= 1, "share", self.share, "must be above 0 and at most 1")

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers (columns + queries, n, 3): signs of the stripes, then row, column and sign of squares."""
        return torch.rand((_shape(d)[1] + self.queries, n, 3), generator=generator, dtype=torch.float64)

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d)."""
        n, d = victim.x.shape
        height, width = _shape(d)
        box = victim.domain if self.box else None
        stripes = (2 * (noise[:width, :, 0] < 0.5).to(victim.x) - 1).mT  # (n, width)
        x = into_box(victim.x + eps * stripes.unsqueeze(1).expand(n, height, width).reshape(n, d), box)
        least = victim.margin(x)
        rows, columns = (torch.arange(k, device=x.device) for k in (height, width))
        for k, u in enumerate(noise[width:]):
            tall, wide = self._window(k, height, width)
            top, left = (u[:, 0] * (height - tall + 1)).floor(), (u[:, 1] * (width - wide + 1)).floor()
            in_rows = (rows >= top.unsqueeze(-1)) & (rows < top.unsqueeze(-1) + tall)
            in_columns = (columns >= left.unsqueeze(-1)) & (columns < left.unsqueeze(-1) + wide)
            inside = (in_rows.unsqueeze(-1) & in_columns.unsqueeze(-2)).reshape(n, d)
            sign = (2 * (u[:, 2:] < 0.5).to(x) - 1).expand(n, d)
            tried = into_box(torch.where(inside, victim.x + eps * sign, x), box)
            margin = victim.margin(tried)
            better = margin < least
            x = torch.where(better.unsqueeze(-1), tried, x)
            least = torch.where(better, margin, least)
        return x

    def _window(self, k: int, height: int, width: int) -> tuple[int, int]:
        share = self.share / 2 ** sum(k * 10_000 > at * self.queries for at in _HALVED_AT)
        side = round(math.sqrt(share * height * width)) if height > 1 else round(share * width)
        return max(1, min(side, height)), max(1, min(side, width))


def _shape(d: int) -> tuple[int, int]:
    side = math.isqrt(d)
    return (side, side) if side * side == d else (1, d)
