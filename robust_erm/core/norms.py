"""l_p norms: everything that optimizers, attacks, margins and oracles need to know of a norm.

All functions act on the last axis, so ``x`` may be one vector ``(d,)`` or many ``(n, d)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.devices import readable
from robust_erm.core.errors import require


def power(x: Tensor, exponent: float) -> Tensor:
    """``x^exponent`` for x >= 0, with the same bits wherever a number lies in a tensor, as torch's pow has not."""
    return x if exponent == 1 else (exponent * x.log()).exp()


def project_simplex(v: Tensor, total: Tensor | float = 1.0) -> Tensor:
    """Euclidean projection onto ``{z >= 0, sum z = total}`` along the last axis.

    Entries of ``-inf`` are kept at zero, so a face of the simplex can be chosen by masking.

    Args:
        v: (..., d).
        total: positive; 1 is the probability simplex.

    Returns:
        (..., d), non-negative, summing to ``total``.

    Reference:
        Duchi et al. 2008, "Efficient projections onto the l1-ball", Fig. 1.
    """
    v = v - v.amax(-1, keepdim=True)  # the projection does not depend on it, its rounding does
    u = v.sort(dim=-1, descending=True).values
    valid = torch.isfinite(u)
    u = torch.where(valid, u, torch.zeros_like(u))
    rank = torch.arange(1, v.shape[-1] + 1, dtype=v.dtype, device=v.device)
    threshold = (u.cumsum(-1) - total) / rank
    support = (u > threshold) & valid
    last = (support.sum(-1, keepdim=True) - 1).clamp_min(0)
    tau = threshold.gather(-1, last)
    return torch.where(torch.isfinite(v), (v - tau).clamp_min(0), torch.zeros_like(v))


Box = tuple[float, float] | None
"""The interval that every coordinate must stay in, where there is one."""


@dataclass(frozen=True)
class Norm:
    """The norm ``||x||_p``, 1 <= p <= inf.

    Args:
        p: exponent, in [1, inf].

    Raises:
        ConfigError: p < 1 or not a number.
    """

    p: float

    def __post_init__(self) -> None:
        require(self.p >= 1, "p", self.p, "an l_p norm needs 1 <= p <= inf")

    @property
    def dual(self) -> Norm:
        """The norm l_q with 1/p + 1/q = 1."""
        if self.p == 1:
            return Norm(math.inf)
        if self.p == math.inf:
            return Norm(1.0)
        return Norm(self.p / (self.p - 1))

    def value(self, x: Tensor) -> Tensor:
        """``||x||_p`` along the last axis: (..., d) -> (...). No overflow for finite results."""
        if self.p == 1:
            return x.abs().sum(-1)
        top = x.abs().amax(-1)
        if self.p == math.inf:
            return top
        scale = torch.where(top > 0, top, torch.ones_like(top))
        unit = x / scale.unsqueeze(-1)
        length: Tensor
        if self.p == 2:
            length = torch.linalg.vector_norm(unit, dim=-1)
        else:
            length = power(power(unit.abs(), self.p).sum(-1), 1 / self.p)
        return scale * length

    def steepest(self, g: Tensor) -> Tensor:
        """``argmax_{||u||_p <= 1} <u, g>`` along the last axis; zero where ``g`` is zero.

        The value reached is the dual norm of ``g``. Steepest *descent* moves along minus this.
        p = 1: one signed coordinate, the first of the largest; p = 2: ``g / ||g||_2``;
        p = inf: ``sign(g)``; else ``sign(g) (|g| / ||g||_q)^(q-1)`` with q the dual exponent.

        Args:
            g: (..., d).

        Returns:
            (..., d).
        """
        if self.p == math.inf:
            return g.sign()
        if self.p == 1:
            j = g.abs().argmax(-1, keepdim=True)
            return torch.zeros_like(g).scatter(-1, j, g.gather(-1, j).sign())
        top = g.abs().amax(-1, keepdim=True)
        h = g / torch.where(top > 0, top, torch.ones_like(top))
        q = self.dual.p
        size = torch.linalg.vector_norm(h, dim=-1, keepdim=True) if q == 2 else self.dual.value(h).unsqueeze(-1)
        size = torch.where(top > 0, size, torch.ones_like(size))
        if q == 2:
            return h / size
        return h.sign() * power(h.abs() / size, q - 1)

    def project(self, x: Tensor, radius: Tensor | float) -> Tensor:
        """Euclidean projection of ``x`` onto ``{z: ||z||_p <= radius}``, row by row.

        p = inf clips, p = 2 scales, p = 1 soft-thresholds (never radial scaling), any other p
        solves ``z + lam p z^(p-1) = |x|`` by nested bisection to machine precision.

        Args:
            x: (..., d).
            radius: non-negative, a number, a tensor without axes, or (..., 1).

        Returns:
            (..., d).
        """
        r = radius.to(x) if isinstance(radius, Tensor) else x.new_full((), radius)
        if self.p == math.inf:
            return torch.maximum(torch.minimum(x, r), -r)
        size = self.value(x).unsqueeze(-1)
        safe = torch.where(size > 0, size, torch.ones_like(size))
        if self.p == 2:
            return x * torch.minimum(r / safe, torch.ones_like(size))
        inside = size <= r
        if self.p == 1:
            outer = x.sign() * project_simplex(x.abs(), r)
        else:
            outer = x.sign() * self._shrink(x.abs() / safe, r / safe) * safe
        return torch.where(inside, x, outer)

    def _shrink(self, a: Tensor, r: Tensor) -> Tensor:
        """Z in [0, a] with z + lam p z^(p-1) = a and ||z||_p = r; a >= 0 scaled to ||a||_p = 1."""
        p = self.p
        low = torch.full_like(r.expand(*a.shape[:-1], 1), -80.0)  # log lam
        high = torch.full_like(low, 80 + 750 * (p - 1))  # z falls like lam^(-1/(p-1)), to 1e-308 at the most
        z = a
        for _ in range(90):
            mid = (low + high) / 2
            lo, hi = torch.zeros_like(a), a
            for _ in range(60):
                z = (lo + hi) / 2
                over = z + (mid + math.log(p) + (p - 1) * z.log()).exp() > a
                lo, hi = torch.where(over, lo, z), torch.where(over, z, hi)
            outside = self.value(z).unsqueeze(-1) > r
            low, high = torch.where(outside, mid, low), torch.where(outside, high, mid)
        return z * (r > 0)

    def least_sum(self, w: Tensor, g: Tensor, c: Tensor) -> Tensor:
        """``g + c s`` with s of :meth:`min_subgradient`; zeros are exact, for what takes their sign.

        Args:
            w: (d,).
            g: (d,).
            c: non-negative, without axes.
        """
        if self.p != 1:
            return g + c * self.min_subgradient(w, g, c)
        return torch.where(w == 0, g.sign() * (g.abs() - c).clamp_min(0), g + c * w.sign())

    def min_subgradient(self, w: Tensor, g: Tensor, c: Tensor) -> Tensor:
        """The ``s`` in the subdifferential of ``||w||_p`` for which ``||g + c s||_2`` is least.

        Steepest flow on ``F(w) + c ||w||_p``, with g the gradient of F, is driven by the element
        of least *dual* norm of the optimizer (tsilivis2024, Lemma C.3): for p = 1, and for p = inf,
        this one serves every l_r; for p = 2 at w = 0 it is the one of gradient descent. p = 1: ``sign(w_j)``, and where
        ``w_j = 0`` the value in [-1, 1] that soft-thresholds ``g_j`` by c. p = inf: a convex
        combination over the tied largest entries. At ``w = 0`` the subdifferential is the whole
        dual ball; there p in (1, inf) other than 2 takes s = 0, a valid choice, not the least.

        Args:
            w: (d,).
            g: (d,).
            c: non-negative, without axes.

        Returns:
            (d,).
        """
        top = w.abs().amax(-1, keepdim=True)
        if self.p not in (1, math.inf):
            gradient = self.dual.steepest(w)
            if self.p != 2 or (w.ndim > 1 and readable(w) and bool((top > 0).all())):
                return gradient
        target = -g / torch.where(c > 0, c, torch.ones_like(c))
        if self.p == 1:
            return torch.where(w == 0, target.clamp(-1, 1), w.sign())
        if self.p == 2:
            return torch.where(top > 0, gradient, Norm(2.0).project(target, 1.0))
        tied = w.abs() == top
        weights = project_simplex(torch.where(tied, target * w.sign(), -math.inf))
        return torch.where(top > 0, weights * w.sign(), Norm(1.0).project(target, 1.0))
