"""Lower bounds on the worst-case margin of networks with one hidden ReLU layer, and the exact answer.

``m(x') = a . relu(W x' + b) + c`` over ``{x': ||x' - x||_p <= eps}``, in the box where there is one; for one logit
``a = y v``, for several there is one a for every rival class, ``v_y - v_rival``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robust_erm.core.norms import Norm

Box = tuple[float, float] | None
Array = npt.NDArray[np.float64]

STEPS = 50  # of alpha-CROWN


@dataclass(frozen=True)
class Hidden:
    """The net of several margins: W (h, d), b (h,), a (n, K, h), c (n, K): K rivals of each of n points."""

    w: Tensor
    b: Tensor
    a: Tensor
    c: Tensor

    def size(self, x: Tensor) -> Tensor:
        """``max_k sum_j |a_j| (|W| |x| + |b|)_j + |c|`` (n,): what rounding errors of margins are in proportion to."""
        inside = x.abs() @ self.w.abs().mT + self.b.abs()
        return ((self.a.abs() * inside.unsqueeze(-2)).sum(-1) + self.c.abs()).amax(-1)

    def margins(self, x: Tensor) -> Tensor:
        """The least of the K margins at x (n, d): (n,)."""
        return ((self.a * (x @ self.w.mT + self.b).relu().unsqueeze(-2)).sum(-1) + self.c).amin(-1)


@dataclass(frozen=True)
class Region:
    """Threats around n points: every coordinate within centre +- radius, and all in the l_p ball around x.

    Args:
        x: (n, d).
        eps: radius of the ball, or (n,) radii.
        p: exponent.
        box: that x' must stay in, or None.
    """

    x: Tensor
    eps: float | Tensor
    p: float
    box: Box

    def some(self, rows: slice | Tensor) -> Region:
        """Around the points ``rows`` alone."""
        eps = self.eps[rows] if isinstance(self.eps, Tensor) else self.eps
        return Region(self.x[rows], eps, self.p, self.box)

    def radius(self, extra: int = 1) -> float | Tensor:
        """``eps``, beside tensors (n, ...) of ``extra`` more dimensions."""
        return self.eps.view(-1, *(1,) * extra) if isinstance(self.eps, Tensor) else self.eps

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """Centre and radius (n, d) of the smallest box around ball and box together."""
        low, high = self.x - self.radius(), self.x + self.radius()
        if self.box is not None:
            low, high = low.clamp_min(self.box[0]), high.clamp_max(self.box[1])
        return (low + high) / 2, (high - low) / 2

    def least(self, q: Tensor) -> Tensor:
        """A lower bound, exact for p = inf and where there is no box, on ``min <q, x'>``: q (n, ..., d) -> (n, ...)."""
        centre, radius = self.interval
        extra = (1,) * (q.ndim - 2)
        shape = (len(self.x), *extra, self.x.shape[-1])
        in_box = (q * centre.view(shape)).sum(-1) - (q.abs() * radius.view(shape)).sum(-1)
        if self.p == math.inf:
            return in_box
        return torch.maximum(
            in_box, (q * self.x.view(shape)).sum(-1) - self.radius(q.ndim - 2) * Norm(self.p).dual.value(q)
        )


def pre_activations(net: Hidden, region: Region) -> tuple[Tensor, Tensor]:
    """Bounds (l, u), (n, h) each, on ``W x' + b``."""
    centre, radius = region.interval
    middle, spread = centre @ net.w.mT, radius @ net.w.abs().mT
    low, high = middle - spread, middle + spread
    if region.p != math.inf:
        at_x, reach = region.x @ net.w.mT, region.radius() * Norm(region.p).dual.value(net.w)
        low, high = torch.maximum(low, at_x - reach), torch.minimum(high, at_x + reach)
    return low + net.b, high + net.b


def interval_bound(net: Hidden, region: Region) -> Tensor:
    """``min_k sum_j min(a_j relu(l_j), a_j relu(u_j)) + c`` (n,): every unit at its own worst."""
    low, high = (z.relu().unsqueeze(-2) for z in pre_activations(net, region))
    return (torch.where(net.a > 0, net.a * low, net.a * high).sum(-1) + net.c).amin(-1)


def crown_bound(net: Hidden, region: Region, steps: int = 0) -> Tensor:
    """The least value (n,) of a linear function below the margins: CROWN, and alpha-CROWN with ``steps > 0``.

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
        return region.least(slope @ net.w) + slope @ net.b + constant

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
    """The best of the bounds (n,), ``chunk`` points at a time (64 on a CPU); robust where positive."""
    found, chunk = [], chunk or (64 if region.x.device.type == "cpu" else 4096)
    for k in range(0, len(region.x), chunk):
        rows = slice(k, k + chunk)
        part, there = Hidden(net.w, net.b, net.a[rows], net.c[rows]), region.some(rows)
        best = torch.maximum(interval_bound(part, there), crown_bound(part, there))
        unsure = best <= 0  # only there is it worth while
        if steps and bool(unsure.any()):
            few = Hidden(net.w, net.b, part.a[unsure], part.c[unsure])
            best[unsure] = torch.maximum(best[unsure], crown_bound(few, there.some(unsure), steps))
        found.append(best)
    return torch.cat(found)
