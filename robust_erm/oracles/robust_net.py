"""A robust network without training: one unit for each point, which no other point can turn on."""

from __future__ import annotations

import math

import torch
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
