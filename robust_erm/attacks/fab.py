"""FAB: the nearest point across the decision boundary, by projections onto linearised boundaries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_erm.attacks.attack import Deterministic, Victim, against, into_box, rivals, weaker
from robust_erm.core.errors import at_most, require
from robust_erm.core.norms import Norm

_OVERSHOOT, _BIAS, _BACK = 1.05, 0.1, 0.9  # eta, alpha_max, beta of the paper


@dataclass(frozen=True)
class FAB(Deterministic):
    """Minimal-norm search: step onto the linearised boundary, biased towards the projection of x itself.

    A point across the boundary is kept where it is the nearest yet, and the search goes on from 9/10 of its way.
    Points farther than eps are no answer; such samples keep the clean x.

    Args:
        p: exponent of the threat's norm: inf, 2 or 1.
        steps: iterations.
        targets: with several classes, the nearest so many are tried in turn.
        box: keep x' in the data's domain, where it has one ([0, 1] for images).

    Reference:
        Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
        Alg. 1, with the targets of AutoAttack's FAB-T.
    """

    samplewise: ClassVar[bool] = True
    p: float = math.inf
    steps: int = 100
    targets: int = 9
    box: bool = True

    def __post_init__(self) -> None:
        require(self.p in (1, 2, math.inf), "p", self.p, "FAB knows p = 1, 2 and inf")
        at_most("steps", self.steps, 10**6)
        require(self.targets >= 1, "targets", self.targets, "must be 1 or more")

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d)."""
        nearest = rivals(victim.outputs(victim.x), victim.y, self.targets)
        return weaker(victim, (self.search(victim, eps, rival) for rival in nearest))

    def search(self, victim: Victim, eps: Tensor, rival: Tensor | None, start: Tensor | None = None) -> Tensor:
        """X' (n, d) for one rival class, from ``start`` (n, d) instead of x itself where given."""
        norm, box = Norm(self.p), victim.domain if self.box else None
        x0 = x = best = victim.x
        x = x if start is None else start
        size = torch.where(victim.margin(x0) > 0, math.inf, 0.0).to(x0)
        for _ in range(self.steps):
            value, w = linearised(victim, rival, x)
            at_x0 = value + (w * (x0 - x)).sum(-1)
            near, far = nearest_zero(norm, w, value, x, box), nearest_zero(norm, w, at_x0, x0, box)
            to_x, to_x0 = norm.value(near), norm.value(far)
            both = to_x + to_x0
            share = torch.where(both > 0, to_x / torch.where(both > 0, both, torch.ones_like(both)), _BIAS)
            share = share.clamp(0, _BIAS).unsqueeze(-1)
            x = into_box((1 - share) * (x + _OVERSHOOT * near) + share * (x0 + _OVERSHOOT * far), box)
            across = victim.margin(x) <= 0
            length = norm.value(x - x0)
            better = across & (length < size)
            size = torch.where(better, length, size)
            best = torch.where(better.unsqueeze(-1), x, best)
            x = torch.where(across.unsqueeze(-1), x0 + _BACK * (x - x0), x)
        return torch.where((size <= eps.reshape(-1) * (1 + 1e-12)).unsqueeze(-1), best, x0)


def linearised(victim: Victim, rival: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """The function whose sign is the label, near x (n, d): its values (n,) and slopes (n, d).

    The largest slope of each row is 1: the same boundary, whatever the logits' scale.
    """
    value, w = victim.gradient(lambda f: against(f, victim.y, rival), x)
    largest = w.abs().amax(-1)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return value / largest, w / largest.unsqueeze(-1)


def nearest_zero(norm: Norm, w: Tensor, value: Tensor, x: Tensor, box: tuple[float, float] | None) -> Tensor:
    """The least delta (n, d), in l_1, l_2 or l_inf, with ``<w, delta> = -value`` and x + delta in the box.

    Coordinates all move by the same amount (p = inf), in proportion to ``|w_j|`` (p = 2), or the largest ``|w_j|``
    first (p = 1), each until the box stops it; where not even all together suffice, all go as far as they can. Without
    a box it is a step against the steepest direction.

    Args:
        norm: p = 1, 2 or inf.
        w: (n, d), the largest ``|w_j|`` of each row about 1: products of two must not leave the range of numbers.
        value: (n,).
        x: (n, d).
        box: or None.
    """
    if box is None:
        slope = norm.dual.value(w)
        return (-value / torch.where(slope > 0, slope, 1.0)).unsqueeze(-1) * norm.steepest(w)
    size, need = w.abs(), value.abs().unsqueeze(-1)
    down = (value.unsqueeze(-1) * w) > 0  # the coordinate falls
    room = torch.where(down, x - box[0], box[1] - x).clamp_min(0)
    room = torch.where(size > 0, room, torch.zeros_like(room))
    if norm.p == 1:
        sorted_size, order = size.sort(-1, descending=True)
        space = room.gather(-1, order)
        gain = sorted_size * space
        left = (need - (gain.cumsum(-1) - gain)).clamp_min(0)
        moved = torch.minimum(space, left / sorted_size.clamp_min(torch.finfo(x.dtype).tiny))
        length = torch.zeros_like(x).scatter(-1, order, moved)
    else:
        pace = torch.where(size > 0, torch.ones_like(size) if norm.p == math.inf else size, torch.ones_like(size))
        when, order = (room / pace).sort(-1)  # the multiplier at which each meets the box
        gain, rate = (size * room).gather(-1, order), (size * pace).gather(-1, order)
        full, slope = gain.cumsum(-1), rate.sum(-1, keepdim=True) - rate.cumsum(-1)
        enough = full + when * slope >= need
        first = torch.where(enough.any(-1, keepdim=True), enough.to(x.dtype).argmax(-1, keepdim=True), x.shape[-1] - 1)
        before, pull = (full - gain).gather(-1, first), (slope + rate).gather(-1, first)
        multiplier = (need - before).clamp_min(0) / pull.clamp_min(torch.finfo(x.dtype).tiny)
        length = torch.minimum(room, multiplier * pace)
    return torch.where(down, -length, length) * (size > 0)
