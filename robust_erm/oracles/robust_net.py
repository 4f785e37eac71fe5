"""Robust networks without training: one unit for each point, or cluster, which no other can turn on."""

from __future__ import annotations

import math

import torch
from scipy import special
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.params import Params

_ROWS = 2048  # of the inner products held at once


def robust_net(x: Tensor, y: Tensor) -> tuple[Params, float]:
    """The explicit network for points on ``sqrt(d) S^{d-1}``, and the l_2 distance up to which its labels stand.

    With ``c = max_{i != j} |<x_i, x_j>| / d < 1``: ``v_j = y_j``, ``w_j = 2 x_j / (d (1 - c))``, ``b_j = -(1 + c) /
    (1 - c)``. All margins are 1, and no label changes within ``(1 - c) sqrt(d) / 4``.

    Args:
        x: (m, d), of length sqrt(d) each.
        y: (m,), in {-1, +1}.

    Returns:
        Parameters of ``MLP(width=m, bias="first")``, and the distance.

    Raises:
        ConfigError: points of another length, or two on one line.

    Reference:
        vardi2022 Thm 3.1.
    """
    d = x.shape[1]
    lengths = x.norm(dim=1) / math.sqrt(d)
    far = float((lengths - 1).abs().max())
    require(far < 1e-6, "x", f"lengths off by {far:.2g}", "the explicit network is for points of length sqrt(d)")
    c = 0.0
    for start in range(0, len(x), _ROWS):
        inner = (x[start : start + _ROWS] @ x.T).abs()
        inner.diagonal(start).zero_()
        c = max(c, float(inner.max()) / d)
    require(c < 1 - 1e-12, "x", f"|<x_i, x_j>| = {c:.6g} d", "two points on one line have no network of this kind")
    weight = 2 * x / (d * (1 - c))
    bias = torch.full((len(x),), -(1 + c) / (1 - c), dtype=x.dtype, device=x.device)
    return {"W1": weight, "b1": bias, "W2": y.unsqueeze(0).to(x)}, (1 - c) * math.sqrt(d) / 4


def cluster_net(means: Tensor, labels: Tensor, width: int | None = None) -> tuple[Params, float]:
    """The explicit network for clusters, and the l_2 distance ``sqrt(d) / 8`` up to which labels stand w.h.p.

    ``w_q = 4 mu_q / d``, ``b_q = -2``, ``v_q = y_q``: a point of cluster q turns on its own unit only. In a wider net
    the units have copies, as equal in number as possible, which share v_q evenly: the function is the same. At the
    means themselves the distance is certain; :func:`cluster_certificate` says it of any point.

    Args:
        means: (k, d), of length sqrt(d) each, with ``<mu_i, mu_j> <= 3 d / 8``.
        labels: (k,), in {-1, +1}.
        width: r >= k; None: k.

    Returns:
        Parameters of ``MLP(width=r, bias="first")``, and the distance.

    Raises:
        ConfigError: other means, labels or widths.

    Reference:
        frei2023 Thm 4.1.
    """
    k, d = means.shape
    known = labels.shape == (k,) and bool((labels.abs() == 1).all())
    require(known, "labels", tuple(labels.shape), f"must be ({k},) labels in {{-1, +1}}, one of each cluster")
    width = k if width is None else width
    require(width >= k, "width", width, f"must be k = {k} or more: each cluster needs a unit")
    far = float((means.norm(dim=1) / math.sqrt(d) - 1).abs().max())
    require(far < 1e-6, "means", f"lengths off by {far:.2g}", "the explicit network is for means of length sqrt(d)")
    inner = float((means @ means.T).fill_diagonal_(-math.inf).max()) / d
    near = "at more than 3 d / 8 the explicit network has no distance sqrt(d) / 8 even at the means"
    require(inner <= 3 / 8 + 1e-12, "means", f"<mu_i, mu_j> = {inner:.6g} d", near)
    unit = torch.arange(width, device=means.device) % k
    v = labels.to(means) / torch.bincount(unit, minlength=k)
    bias = torch.full((width,), -2.0, dtype=means.dtype, device=means.device)
    return {"W1": 4 * means[unit] / d, "b1": bias, "W2": v[unit].unsqueeze(0)}, math.sqrt(d) / 8


def cluster_certificate(means: Tensor, x: Tensor, q: Tensor) -> Tensor:
    """l_2 distances (n,) within which :func:`cluster_net` gives each point the label of its cluster.

    ``min(h_q, min_{r != q} -h_r) sqrt(d) / 4``, ``h = 4 <mu, x> / d - 2``: so far the own unit stays on and all others
    off. 0 where they are not so at the point itself.

    Args:
        means: (k, d), of length sqrt(d) each.
        x: (n, d).
        q: (n,), the cluster of each point.
    """
    d = means.shape[1]
    h = 4 / d * (x @ means.T) - 2
    own = torch.arange(len(means), device=x.device) == q.unsqueeze(1)
    return torch.where(own, h, -h).amin(1).clamp(min=0.0) * math.sqrt(d) / 4


def cluster_failure(d: int, k: int, sigma: float, inner: float = 0.0) -> float:
    """A bound on P[another unit is on, or ``y f(x) < 1``] of :func:`cluster_net` at a fresh point, by a union.

    ``Phi(-sqrt(d) / (4 sigma)) + (k - 1) Phi(-(sqrt(d) / 2 - p / sqrt(d)) / sigma)``, ``p = max <mu_i, mu_j>``. For
    Gaussian clusters with ``sigma > 0``; exact up to the union of k events.

    Reference:
        frei2023 Thm 4.1 states ``d^{-omega(1)}``.
    """
    others = (math.sqrt(d) / 2 - inner / math.sqrt(d)) / sigma
    return float(special.ndtr(-math.sqrt(d) / (4 * sigma)) + (k - 1) * special.ndtr(-others))
