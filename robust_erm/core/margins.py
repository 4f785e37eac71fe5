"""Margins of one model on one batch, named by the norm that divides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robust_erm.core.linalg import own_class
from robust_erm.core.norms import Norm
from robust_erm.core.params import Params

DIVISORS: dict[str, Norm] = {"l1": Norm(1.0), "l2": Norm(2.0), "linf": Norm(math.inf)}


def divisors(r: float | None) -> dict[str, Norm]:
    """The norms l_1, l_2, l_inf, and l_r by the name that columns give it (``l1_5``)."""
    return DIVISORS if r is None or Norm(r) in DIVISORS.values() else {**DIVISORS, name_of(r): Norm(r)}


def name_of(r: float) -> str:
    """``l1``, ``linf``, ``l1_5``: as columns are named, in which a dot would separate keys."""
    return f"l{r:g}".replace(".", "_")


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


def normalised(
    least: Tensor, vector: Tensor, degree: int, prefix: str, norms: dict[str, Norm] = DIVISORS
) -> dict[str, Tensor]:
    """``min_i margin_i / ||vector||^degree`` for each of ``norms``.

    Args:
        least: () the smallest margin over the samples.
        vector: (P,) parameters, or the predictor (d,).
        degree: L; 1 for the predictor.
        prefix: of the names.
        norms: by name, see :func:`divisors`.

    Returns:
        ``{prefix_l1, prefix_l2, prefix_linf}``; nan for the zero vector.
    """
    return {f"{prefix}_{name}": over_power(least, norm.value(vector), degree) for name, norm in norms.items()}


def over_power(least: Tensor, size: Tensor, degree: int) -> Tensor:
    """``least / size^degree``, one factor after the other: the power alone may leave the range of numbers."""
    for _ in range(degree):
        least = least / size
    return least


def layer_norms(params: Params) -> dict[str, Tensor]:
    """Frobenius norm of every parameter tensor."""
    return {name: torch.linalg.vector_norm(p) for name, p in params.items()}


def spectral(params: Params) -> Tensor:
    """``max_l ||W_l||_spectral``, the norm of :class:`robust_erm.optimizers.spectral.Spectral`'s geometry.

    Vectors count as one column, convolutions as (out, in * height * width).
    """
    matrices = [p.reshape(p.shape[0], -1) if p.ndim > 1 else p.unsqueeze(-1) for p in params.values()]
    return torch.stack([torch.linalg.matrix_norm(m, 2) for m in matrices]).amax(0)


def by_layers(least: Tensor, params: Params) -> Tensor:
    """``min_i margin_i / prod_l ||W_l||_F``, for nets homogeneous in every layer (lyu2022 eq. 4)."""
    for size in layer_norms(params).values():
        least = least / size
    return least
