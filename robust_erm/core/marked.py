"""Work on the marked entries of every row alone, where rows are runs: of each, as many as the row with the most has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def replaced(values: Tensor, marks: Tensor, better: Callable[[Tensor], Tensor]) -> Tensor:
    """``values`` (..., n), and where ``marks`` (..., n) those of ``better``.

    It is given indices (..., k) of the marked entries, in order, and gives numbers (..., k): see :func:`taken`. Rows
    with fewer marks than k are filled up with other entries, whose numbers count for nothing. k is read once; where
    it is 0 nothing is computed.
    """
    most = int(marks.sum(-1).max()) if marks.numel() else 0
    if not most:
        return values
    order = first(marks, most)
    new = torch.where(marks.gather(-1, order), better(order), values.gather(-1, order))
    return values.scatter(-1, order, new)


def first(marks: Tensor, most: int) -> Tensor:
    """Indices (..., most) of the marked entries of every row of ``marks`` (..., n), in order, and then of others."""
    return (~marks).to(torch.int8).argsort(dim=-1, stable=True)[..., :most]


def taken(values: Tensor, order: Tensor) -> Tensor:
    """Of values (..., n, *rest) those at ``order`` (..., k): (..., k, *rest)."""
    rest = values.shape[order.ndim :]
    index = order.reshape(*order.shape, *(1,) * len(rest)).expand(*order.shape, *rest)
    return values.gather(order.ndim - 1, index)
