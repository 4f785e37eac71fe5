"""How a run stands: running, or how it has ended."""

from __future__ import annotations

import torch
from torch import Tensor

RUNNING, CONVERGED, MAX_STEPS, DIVERGED = range(4)
STATUS = ("running", "converged", "max_steps", "diverged")


def judge(
    log_loss: Tensor, grad: Tensor, target: Tensor, t: int, status: Tensor, stopped_at: Tensor
) -> tuple[Tensor, Tensor]:
    """Which of the running runs end at step t: on a non-finite number, or at the target."""
    alive = status == RUNNING
    finite = log_loss.isfinite() & grad.sum(-1).isfinite()  # one pass over the gradient
    ended = alive & (~finite | (log_loss <= target))
    new = torch.where(ended, torch.where(finite, CONVERGED, DIVERGED), status)
    return new, torch.where(ended, t, stopped_at)
