"""How a run stands: running, or how it has ended."""

from __future__ import annotations

from math import isfinite

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
    if readable(total) and not _any_ends(total.tolist(), log_loss.tolist(), target.tolist()):
        return status, stopped_at
    finite = total - total == 0
    ended = (~finite | (log_loss <= target)) & (status == RUNNING)
    new = torch.where(ended, torch.where(finite, CONVERGED, DIVERGED), status)
    return new, torch.where(ended, t, stopped_at)


def _any_ends(total: list[float], log_loss: list[float], target: list[float]) -> bool:
    """The same of a few numbers, which Python compares in less time than calls of torch take."""
    return not all(isfinite(sum_) and loss > low for sum_, loss, low in zip(total, log_loss, target, strict=True))
