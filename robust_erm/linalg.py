"""Matrix products whose rounding does not depend on how many runs are computed together.

Under vmap over R runs a product becomes one batched matrix product. Libraries take another kernel
for a batch of one when the right factor is a single column, and none when the left factor is a
single row (measured with MKL: 0 against 1e-16 relative). Trainings with kinks amplify any such
difference, so products with one column are written as products with one row.
"""

from __future__ import annotations

import torch
from torch import Tensor


def matvec(x: Tensor, w: Tensor) -> Tensor:
    """``<x_i, w>``: x (n, d), w (d,) -> (n,)."""
    return (w.unsqueeze(0) @ x.mT).squeeze(0)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x W'``: x (n, d), W (k, d) -> (n, k)."""
    return (weight @ x.mT).mT if weight.shape[0] == 1 else x @ weight.mT


def own_class(f: Tensor, y: Tensor) -> Tensor:
    """Mask (n, C) of each sample's own class: f (n, C) outputs, y (n,) classes."""
    return y.unsqueeze(-1) == torch.arange(f.shape[-1], dtype=y.dtype, device=y.device)
