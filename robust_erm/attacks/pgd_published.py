"""What the published script of tsilivis2024 runs as PGD."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_erm.attacks.attack import Deterministic, Victim, into_box
from robust_erm.core.errors import at_most, positive, require
from robust_erm.core.norms import Norm


@dataclass(frozen=True)
class PGDPublished(Deterministic):
    """PGD in l_inf that clips the *perturbation* to ``[x - eps, x + eps]``, as the published script does.

    ``delta <- min(max(clip(delta - step eps sign(grad margin(x + delta)), -eps, eps), x - eps), x + eps)``, from 0, and
    ``x' = clip(x + delta, 0, 1)`` at the end. Clipping x + delta was meant. So a pixel of at least 2 eps is fixed at
    min(1, 2 x - eps), out of the ball, and a bright stroke is never attacked; one below eps has the whole ball.
    What it leaves is no robust accuracy: it is here to measure what the slip moves. See ``pgd`` for the threat.

    Args:
        p: exponent of the threat's norm: inf.
        steps: iterations.
        relative_step: step size in units of eps.

    Reference:
        tsilivis2024 App. F.2; utils.py of its code.
    """

    samplewise: ClassVar[bool] = True
    keeps_ball: ClassVar[bool] = False
    p: float = math.inf
    steps: int = 10
    relative_step: float = 0.2

    def __post_init__(self) -> None:
        require(self.p == math.inf, "p", self.p, "the published script knows p = inf only")
        at_most("steps", self.steps, 10**6)
        positive("relative_step", self.relative_step)

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d); where eps is 0, x."""
        norm, x, low, high = Norm(math.inf), victim.x, victim.x - eps, victim.x + eps
        delta = torch.zeros_like(x)
        for _ in range(self.steps):
            at = x + delta
            moved = victim.step(norm, victim.margin_gradient(at), at, self.relative_step * eps, None) - x
            delta = torch.minimum(torch.maximum(norm.project(moved, eps), low), high)
        return torch.where(eps > 0, into_box(x + delta, victim.domain), x)
