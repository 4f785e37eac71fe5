"""Auto-PGD: projected gradient ascent with momentum that halves its own step where it stalls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from robust_erm.attacks.attack import (
    Iterative,
    Victim,
    against,
    into_box,
    rivals,
    uniform_in_ball,
    weaker,
)
from robust_erm.core.errors import at_most, one_of, require
from robust_erm.core.margins import margin
from robust_erm.core.norms import Norm

_MOMENTUM, _ENOUGH = 0.75, 0.75


@dataclass(frozen=True)
class APGD(Iterative):
    """``z = P(x' + eta s), x' <- P(x' + 3/4 (z - x') + 1/4 (x' - x'_before))``, s the steepest direction.

    eta begins at 2 eps and is halved, each sample for itself, at checkpoints 0.22, 0.41, 0.57, ... of the way
    where at most 3/4 of the steps raised the loss or nothing has improved since the last one; the search
    then goes on from the best point. P is the projection onto the ball, then the box.

    Args:
        p: exponent of the threat's norm: inf, 2 or 1.
        steps: iterations.
        loss: margin, minus ``y f`` or the difference of two logits; or dlr, that over ``z_(1) - z_(3)``
            (targeted: ``z_(1) - (z_(3) + z_(4)) / 2``), which needs three (four) logits.
        targets: attack towards each of so many nearest classes in turn; 0: towards whichever is nearest.
        restarts: independent random starts; each sample keeps its smallest margin.
        box: keep x' in the data's domain, where it has one ([0, 1] for images).

    Reference:
        Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", Alg. 1, eqs. (6) and (7). Theirs begins with cross entropy, whose gradient
        vanishes where logits are large; the margin's does not.
    """

    samplewise: ClassVar[bool] = True
    p: float = math.inf
    steps: int = 100
    loss: str = "margin"
    targets: int = 0
    restarts: int = 1
    box: bool = True

    def __post_init__(self) -> None:
        require(self.p in (1, 2, math.inf), "p", self.p, "APGD knows p = 1, 2 and inf")
        at_most("steps", self.steps, 10**6)
        require(self.targets >= 0, "targets", self.targets, "must be 0 (untargeted) or more")
        at_most("restarts", self.restarts, 1000)
        one_of("loss", self.loss, ("margin", "dlr"))

    def check_fits(self, outputs: int) -> None:
        """The DLR loss needs three logits, or four; targets need several."""
        least = 1 if self.loss == "margin" and not self.targets else 4 if self.loss == "dlr" and self.targets else 3
        what = f"with targets = {self.targets} needs {least} logits or more, there is {outputs}: use loss=margin"
        require(outputs >= least, "loss", self.loss, f"{what} and targets=0")

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """Uniform points (restarts, n, d) of the unit ball."""
        return uniform_in_ball(self.p, (self.restarts, n, d), generator)

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d)."""
        return weaker(victim, self._tries(victim, eps, noise))

    def _tries(self, victim: Victim, eps: Tensor, noise: Tensor) -> Iterator[Tensor]:
        losses: list[Callable[[Tensor], Tensor]] = [partial(self._untargeted, y=victim.y)]
        if self.targets:
            nearest = rivals(victim.outputs(victim.x), victim.y, self.targets)
            losses = [partial(self._targeted, y=victim.y, rival=rival) for rival in nearest]
        for u in noise:
            for loss in losses:
                yield self._ascend(victim, eps, self._inside(victim, victim.x + eps * u, eps), loss)

    def _untargeted(self, f: Tensor, y: Tensor) -> Tensor:
        if self.loss == "margin":
            return -margin(f, y)
        f = _in_own_units(f)
        top = f.sort(-1, descending=True).values
        return -margin(f, y) / (top[..., 0] - top[..., 2] + 1e-12)

    def _targeted(self, f: Tensor, y: Tensor, rival: Tensor | None) -> Tensor:
        if self.loss == "margin":
            return -against(f, y, rival)
        f = _in_own_units(f)
        top = f.sort(-1, descending=True).values
        return -against(f, y, rival) / (top[..., 0] - (top[..., 2] + top[..., 3]) / 2 + 1e-12)

    def _inside(self, victim: Victim, x: Tensor, eps: Tensor) -> Tensor:
        box = victim.domain if self.box else None
        return into_box(victim.x + Norm(self.p).project(x - victim.x, eps), box)

    def _ascend(self, victim: Victim, eps: Tensor, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        norm, box = Norm(self.p), victim.domain if self.box else None
        value, gradient = victim.gradient(loss, x)
        best, best_x, best_gradient = value, x, gradient
        before, step = x, (2 * eps).reshape(-1).expand_as(value)
        rises, halved, best_then = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.bool), best
        checks = checkpoints(self.steps)
        last = 0
        for k in range(1, self.steps + 1):
            z = self._inside(victim, victim.step(norm, -gradient, x, step.unsqueeze(-1), box), eps)
            share = 1.0 if k == 1 else _MOMENTUM
            after = self._inside(victim, x + share * (z - x) + (1 - share) * (x - before), eps)
            before, x = x, after
            previous = value
            value, gradient = victim.gradient(loss, x)
            rises = rises + (value > previous)
            better = value > best
            best = torch.where(better, value, best)
            best_x = torch.where(better.unsqueeze(-1), x, best_x)
            best_gradient = torch.where(better.unsqueeze(-1), gradient, best_gradient)
            if k in checks:
                stalls = (rises <= _ENOUGH * (k - last)) | (~halved & (best <= best_then))
                step = torch.where(stalls, step / 2, step)
                x = torch.where(stalls.unsqueeze(-1), best_x, x)
                value = torch.where(stalls, best, value)
                gradient = torch.where(stalls.unsqueeze(-1), best_gradient, gradient)
                rises, halved, best_then, last = torch.zeros_like(value), stalls, best, k
        return best_x


def _in_own_units(f: Tensor) -> Tensor:
    """Logits (n, C) over the largest of each sample: a ratio of them is the same, and in range."""
    size = f.detach().abs().amax(-1, keepdim=True)
    return f / torch.where(size > 0, size, torch.ones_like(size))


def checkpoints(steps: int) -> set[int]:
    """The steps at which the step size is judged: after 0.22 of all, then 0.03 less each time, 0.06 at least."""
    interval, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = set(), interval
    while at <= steps:
        found.add(at)
        interval = max(interval - less, least)
        at += interval
    return found
