"""Projected gradient descent on the margin, in l_inf, l_2 and l_1 balls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_erm.attacks.attack import Iterative, Victim, into_box, uniform_in_ball, weaker
from robust_erm.core.errors import at_most, positive, require
from robust_erm.core.norms import Norm


@dataclass(frozen=True)
class PGD(Iterative):
    """``x' <- P(x' - step eps argmax_{||u||_p <= 1} <u, grad margin(x')>)``, repeated.

    P is the Euclidean projection onto the l_p ball of radius eps around x, then the box. In l_1
    a step moves the steepest coordinate, and the next ones where the box stops it.

    Args:
        p: exponent of the threat's norm: inf, 2 or 1.
        steps: iterations.
        relative_step: step size in units of eps (tsilivis2024 App. F.2: 10 steps of eps / 5).
        random_start: begin at a uniform random point of the ball instead of x.
        restarts: independent random starts; each sample keeps its smallest margin.
        box: keep x' in the data's domain, where it has one ([0, 1] for images).

    Reference:
        Madry et al. 2018; tsilivis2024 App. F.2.
    """

    samplewise: ClassVar[bool] = True
    p: float = math.inf
    steps: int = 10
    relative_step: float = 0.2
    random_start: bool = False
    restarts: int = 1
    box: bool = True

    def __post_init__(self) -> None:
        require(self.p in (1, 2, math.inf), "p", self.p, "PGD knows p = 1, 2 and inf")
        at_most("steps", self.steps, 10**6)
        positive("relative_step", self.relative_step)
        at_most("restarts", self.restarts, 1000)
        require(
            self.random_start or self.restarts == 1,
            "restarts",
            self.restarts,
            "restarts from the same point are the same attack: set random_start=true",
        )

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """Uniform points (restarts, n, d) of the unit ball; none without random start."""
        return uniform_in_ball(self.p, (self.restarts if self.random_start else 0, n, d), generator)

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d)."""
        if not self.random_start:
            return self._descend(victim, eps)
        box = victim.domain if self.box else None
        return weaker(victim, (self._descend(victim, eps, into_box(victim.x + eps * u, box)) for u in noise))

    def _descend(self, victim: Victim, eps: Tensor, start: Tensor | None = None) -> Tensor:
        box = victim.domain if self.box else None
        return victim.descend(Norm(self.p), self.relative_step * eps, box, eps, self.steps, start)
