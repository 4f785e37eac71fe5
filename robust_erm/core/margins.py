"""Margins of one model on one batch, named by the norm that divides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robust_erm.core.linalg import own_class
from robust_erm.core.params import Params


def name_of(r: float) -> str:
    """``l1``, ``linf``, ``l1_5``: as columns are named, in which a dot would separate keys."""
    return f"l{r:g}".replace(".", "_")


def squeeze_logit(f: Tensor) -> Tensor:
    """(n, 1) -> (n,); (n, C) unchanged."""
    return f.squeeze(-1) if f.shape[-1] == 1 else f


def require_outputs(f: Tensor, y: Tensor) -> None:
    """Raise unless f is (n,) or (n, C), C > 1, for labels y (n,): (n, 1) would become (n, n) without a word."""
    fits = f.shape[:1] == y.shape and (f.ndim == 1 or (f.ndim == 2 and f.shape[1] > 1))
    if not fits:
        raise ValueError(f"outputs of shape {tuple(f.shape)} for labels of shape {tuple(y.shape)}: (n,) or (n, C) only")


def margin(f: Tensor, y: Tensor) -> Tensor:
    """``y f`` (n,) for f (n,), y in {-1, +1}; true minus best other logit for f (n, C), classes y."""
    require_outputs(f, y)
    if f.ndim == 1:
        return y * f
    own = own_class(f.shape[-1], y)
    true = torch.where(own, f, torch.zeros_like(f)).sum(-1)
    return true - torch.where(own, torch.full_like(f, -math.inf), f).amax(-1)


def normalised(least: Tensor, sizes: dict[str, Tensor], degree: int, prefix: str) -> dict[str, Tensor]:
    """``min_i margin_i / size^degree`` for each of ``sizes``.

    Args:
        least: () the smallest margin over the samples.
        sizes: (), norms of the parameters or of the predictor, by name.
        degree: L; 1 for the predictor.
        prefix: of the names.

    Returns:
        ``prefix_l2`` and so on; nan where the size is 0.
    """
    return {f"{prefix}_{name}": over_power(least, size, degree) for name, size in sizes.items()}


def over_power(least: Tensor, size: Tensor, degree: int) -> Tensor:
    """``least / size^degree``, one factor after the other: the power alone may leave the range of numbers."""
    for _ in range(degree):
        least = least / size
    return least


def layer_norms(params: Params) -> dict[str, Tensor]:
    """Frobenius norm of every parameter tensor."""
    return {name: torch.linalg.vector_norm(p) for name, p in params.items()}


def by_layers(least: Tensor, params: Params) -> Tensor:
    """``min_i margin_i / prod_l ||W_l||_F``, for nets homogeneous in every layer (lyu2022 eq. 4)."""
    for size in layer_norms(params).values():
        least = least / size
    return least
