"""Scores, losses and their derivatives of several runs in a few passes: what torch takes some forty calls for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robust_erm.objectives import Objective
from robust_erm.training.kernels import compiled_scores as c


class Scores:
    """What :mod:`robust_erm.objectives` makes of scores and outputs, over the run axis.

    All arrays that the loops are given are contiguous: for others numba would compile anew, in this process.
    """

    def __init__(self, objective: Objective) -> None:
        self.soft, self.mean = objective.loss != "exponential", objective.reduction == "mean"

    def shares(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """``log L`` (R,) of scores s (R, n), and its derivatives in them."""
        log_loss, share = s.new_empty(len(s)), s.new_empty(s.shape)
        c.shares_into(s.contiguous().numpy(), self.soft, self.less(s.shape[1]), log_loss.numpy(), share.numpy())
        return log_loss, share

    def slopes(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``log L`` (R,) of outputs f (R, n, C) and labels y (R, n), and its derivatives in f."""
        runs, n, _ = f.shape
        log_loss, slopes = f.new_empty(runs), f.new_empty(f.shape)
        given = f.contiguous().numpy(), y.contiguous().numpy()
        c.slopes_into(*given, self.soft, self.less(n), log_loss.numpy(), slopes.numpy())
        return log_loss, slopes

    def less(self, n: int) -> float:
        """What a mean over n points takes off the log of their sum."""
        return math.log(n) if self.mean else 0.0


def warm_up(dtype: torch.dtype) -> None:
    """Have everything compiled that :class:`Scores` calls, for numbers of ``dtype``."""
    some = Scores(Objective("cross_entropy"))
    some.slopes(torch.eye(2, dtype=dtype).unsqueeze(0), torch.zeros(1, 2, dtype=dtype))
    some.shares(torch.zeros(1, 2, dtype=dtype))
