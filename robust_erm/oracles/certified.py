"""Lower bounds on the worst-case margin of networks with one hidden ReLU layer, and the exact answer.

``m(x') = a . relu(W x' + b) + c`` over ``{x': ||x' - x||_p <= eps}``, in the box where there is one; for one logit
``a = y v``, for several there is one a for every rival class, ``v_y - v_rival``. All of it may have leading axes, of
runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robust_erm.core.marked import replaced, taken
from robust_erm.core.norms import Box, Norm

Array = npt.NDArray[np.float64]

STEPS = 50  # of alpha-CROWN


@dataclass(frozen=True)
class Hidden:
    """The net of several margins: W (..., h, d), b (..., h), a (..., n, K, h), c (..., n, K): K rivals of n points."""

    w: Tensor
    b: Tensor
    a: Tensor
    c: Tensor

    def some(self, points: slice) -> Hidden:
        """Of some points."""
        return Hidden(self.w, self.b, self.a[..., points, :, :], self.c[..., points, :])

    def at(self, order: Tensor) -> Hidden:
        """Of the points ``order`` (..., k)."""
        return Hidden(self.w, self.b, taken(self.a, order), taken(self.c, order))

    def size(self, x: Tensor) -> Tensor:
        """``max_k sum_j |a_j| (|W| |x| + |b|)_j + |c|``: what rounding errors of margins are in proportion to."""
        inside = x.abs() @ self.w.abs().mT + self.b.abs().unsqueeze(-2)
        return ((self.a.abs() * inside.unsqueeze(-2)).sum(-1) + self.c.abs()).amax(-1)

    def margins(self, x: Tensor) -> Tensor:
        """The least of the K margins at x (..., n, d): (..., n)."""
        inside = (x @ self.w.mT + self.b.unsqueeze(-2)).relu()
        return ((self.a * inside.unsqueeze(-2)).sum(-1) + self.c).amin(-1)


@dataclass(frozen=True)
class Region:
    """Threats around n points: every coordinate within centre +- radius, and all in the l_p ball around x.

    Args:
        x: (..., n, d).
        eps: radius of the ball, or (..., n) radii.
        p: exponent.
        box: that x' must stay in, or None.
    """

    x: Tensor
    eps: float | Tensor
    p: float
    box: Box

    def some(self, points: slice) -> Region:
        """Around some points."""
        eps = self.eps[..., points] if isinstance(self.eps, Tensor) else self.eps
        return replace(self, x=self.x[..., points, :], eps=eps)

    def at(self, order: Tensor) -> Region:
        """Around the points ``order`` (..., k)."""
        eps = taken(self.eps, order) if isinstance(self.eps, Tensor) else self.eps
        return replace(self, x=taken(self.x, order), eps=eps)

    def pieces(self, chunk: int | None = None) -> Iterator[slice]:
        """The points, ``chunk`` at a time: 64 on a CPU, for its cache; 4,096 of all runs together on a device."""
        *runs, n, _ = self.x.shape
        chunk = chunk or (64 if self.x.device.type == "cpu" else max(1, 4096 // math.prod(runs)))
        return (slice(k, k + chunk) for k in range(0, n, chunk))

    def radius(self, extra: int = 1) -> float | Tensor:
        """``eps``, beside tensors (..., n, ...) of ``extra`` more dimensions."""
        return self.eps.reshape(*self.eps.shape, *(1,) * extra) if isinstance(self.eps, Tensor) else self.eps

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """Centre and radius (..., n, d) of the smallest box around ball and box together."""
        low, high = self.x - self.radius(), self.x + self.radius()
        if self.box is not None:
            low, high = low.clamp_min(self.box[0]), high.clamp_max(self.box[1])
        return (low + high) / 2, (high - low) / 2

    def least(self, q: Tensor) -> Tensor:
        """A lower bound, exact for p = inf and where there is no box, on ``min <q, x'>`` over the last axis of q.

        (..., n, d), or (..., n, K, d) and so on; the axes up to n are those of x.
        """
        centre, radius = self.interval
        extra = q.ndim - self.x.ndim
        shape = (*self.x.shape[:-1], *(1,) * extra, self.x.shape[-1])
        in_box = (q * centre.reshape(shape)).sum(-1) - (q.abs() * radius.reshape(shape)).sum(-1)
        if self.p == math.inf:
            return in_box
        at_x = (q * self.x.reshape(shape)).sum(-1)
        return torch.maximum(in_box, at_x - self.radius(extra) * Norm(self.p).dual.value(q))


def pre_activations(net: Hidden, region: Region) -> tuple[Tensor, Tensor]:
    """Bounds (l, u), (..., n, h) each, on ``W x' + b``."""
    centre, radius = region.interval
    middle, spread = centre @ net.w.mT, radius @ net.w.abs().mT
    low, high = middle - spread, middle + spread
    if region.p != math.inf:
        at_x, reach = region.x @ net.w.mT, region.radius() * Norm(region.p).dual.value(net.w).unsqueeze(-2)
        low, high = torch.maximum(low, at_x - reach), torch.minimum(high, at_x + reach)
    bias = net.b.unsqueeze(-2)
    return low + bias, high + bias


def interval_bound(net: Hidden, region: Region) -> Tensor:
    """``min_k sum_j min(a_j relu(l_j), a_j relu(u_j)) + c`` (..., n): every unit at its own worst."""
    low, high = (z.relu().unsqueeze(-2) for z in pre_activations(net, region))
    return (torch.where(net.a > 0, net.a * low, net.a * high).sum(-1) + net.c).amin(-1)


def crown_bound(net: Hidden, region: Region, steps: int = 0) -> Tensor:
    """The least value (..., n) of a linear function below the margins: CROWN, and alpha-CROWN with ``steps > 0``.

    A unit with l < 0 < u is replaced by ``alpha z`` from below where a_j > 0 (alpha in [0, 1]; 1 where u > -l to
    begin with) and by the chord ``u (z - l) / (u - l)`` from above where a_j < 0. The bound is concave in alpha;
    projected Adam raises it, and the best of all iterates counts. Any alpha gives a true bound.

    Reference:
        Zhang et al. 2018, "Efficient neural network robustness certification with general activation functions";
        Xu et al. 2021, "Fast and complete" (alpha-CROWN).
    """
    low, high = pre_activations(net, region)
    unstable = (low < 0) & (high > 0)
    chord = torch.where(unstable, high / (high - low).clamp_min(1e-300), (low >= 0).to(low))
    shift = torch.where(unstable, -chord * low, torch.zeros_like(low))
    falls = net.a < 0
    fixed = torch.where(falls | ~unstable.unsqueeze(-2), chord.unsqueeze(-2), torch.zeros_like(net.a))
    free = (~falls) & unstable.unsqueeze(-2)
    constant = torch.where(falls, net.a * shift.unsqueeze(-2), torch.zeros_like(net.a)).sum(-1) + net.c

    def bound(alpha: Tensor) -> Tensor:
        slope = net.a * torch.where(free, alpha, fixed)
        flat = slope.flatten(-3, -2)  # points and rivals: one product a run
        at_x = (flat @ net.w).reshape(*slope.shape[:-1], -1)
        shift = (flat @ net.b.unsqueeze(-1)).reshape(slope.shape[:-1])
        return region.least(at_x) + shift + constant

    alpha = (high > -low).to(low).unsqueeze(-2).expand_as(net.a).clone()
    best = bound(alpha)
    if not steps or not bool(free.any()):
        return best.amin(-1)
    reach = (net.a.abs() * torch.maximum(low.abs(), high.abs()).unsqueeze(-2)).amax(-1, keepdim=True)
    reach = torch.where(reach > 0, reach, torch.ones_like(reach))  # of a unit: what gradients are in proportion to
    first, second = torch.zeros_like(alpha), torch.zeros_like(alpha)
    for t in range(1, steps + 1):
        gradient: Tensor = torch.func.grad(lambda z: bound(z).sum())(alpha) / reach
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient.square()
        size = 0.1 * (1 - t / (steps + 1))
        alpha = (alpha + size * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-12)).clamp(0, 1)
        best = torch.maximum(best, bound(alpha))
    return best.amin(-1)


def certified_margin(net: Hidden, region: Region, steps: int = STEPS, chunk: int | None = None) -> Tensor:
    """The best of the bounds (..., n), some points at a time (:meth:`Region.pieces`); robust where positive."""
    found = []
    for points in region.pieces(chunk):
        part, there = net.some(points), region.some(points)
        best = torch.maximum(interval_bound(part, there), crown_bound(part, there))

        def raised(order: Tensor, part: Hidden = part, there: Region = there, best: Tensor = best) -> Tensor:
            return torch.maximum(taken(best, order), crown_bound(part.at(order), there.at(order), steps))

        found.append(replaced(best, best <= 0, raised) if steps else best)  # only there is it worth while
    return torch.cat(found, dim=-1)
