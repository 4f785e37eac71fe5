"""Steepest descent with respect to the largest spectral norm of all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.core.linalg import polar
from robust_erm.core.params import Layout
from robust_erm.optimizers.optimizer import Normalizable, State


@dataclass(frozen=True)
class Spectral(Normalizable):
    """Steepest descent for ``max_l ||W_l||_spectral``, Muon's geometry with exact polar factors.

    For ``grad_{W_l} = U S V'`` the direction is ``U V'`` over the non-zero singular values; the
    dual norm is the sum of the nuclear norms. Vectors count as one column (their spectral norm is
    l_2), convolutions as (out, in * height * width).

    Args:
        normalized: leave out the factor ``sum_l ||grad_{W_l}||_nuclear``.
        schedule: step sizes.
    """

    schedule: Any
    normalized: bool = False

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.optimizers.optimizer.Optimizer`."""
        direction, nuclear = {}, torch.zeros_like(log_loss)
        for name, g in layout.unflatten(grad).items():
            matrix = g.reshape(g.shape[0], -1) if g.ndim > 1 else g.unsqueeze(-1)
            factor, own = polar(matrix)
            direction[name] = factor.reshape(g.shape)
            nuclear = nuclear + own
        flat = layout.flatten(direction)
        return (flat, torch.zeros_like(log_loss), state) if self.normalized else (nuclear * flat, log_loss, state)
