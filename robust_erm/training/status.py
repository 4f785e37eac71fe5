"""How a run stands: running, or how it has ended."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_erm.core.devices import readable

RUNNING, CONVERGED, MAX_STEPS, DIVERGED = range(4)
STATUS = ("running", "converged", "max_steps", "diverged")


def judge(
    log_loss: Tensor, grad: Tensor, target: Tensor, t: Tensor | int, status: Tensor, stopped_at: Tensor
) -> tuple[Tensor, Tensor]:
    """Which of the running runs end at step t: on a non-finite number, or at the target."""
    total = log_loss + grad.sum(-1)  # one pass over the gradient
    finite = total - total == 0
    ended = ~finite | (log_loss <= target)
    if readable(ended) and not bool(ended.any()):
        return status, stopped_at
    ended = ended & (status == RUNNING)
    new = torch.where(ended, torch.where(finite, CONVERGED, DIVERGED), status)
    return new, torch.where(ended, t, stopped_at)
