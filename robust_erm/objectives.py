"""Losses in the log domain: a loss of 1e-300 or 1e+300 is an ordinary number.

Every objective is a function of *scores*: ``s_i = -margin_i`` for one-logit models, and
``s_i = log sum_{c != y_i} exp(f_c - f_{y_i})`` for several logits, so that the exponential loss
is ``exp(s)`` and both logistic loss and cross entropy are ``log(1 + exp(s))``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_erm.core.errors import ConfigError, one_of
from robust_erm.core.linalg import own_class
from robust_erm.core.margins import require_outputs


def scores(f: Tensor, y: Tensor) -> Tensor:
    """Scores ``s`` (n,) of outputs: f (n,) with y (n,) in {-1, +1}, or f (n, C) with classes y."""
    require_outputs(f, y)
    if f.ndim == 1:
        return -y * f
    own = own_class(f.shape[-1], y)
    true = torch.where(own, f, torch.zeros_like(f)).sum(-1)
    return torch.where(own, torch.full_like(f, -math.inf), f).logsumexp(-1) - true


def log_softplus(s: Tensor) -> Tensor:
    """``log log(1 + exp(s))``, exact in both tails (-> s as s -> -inf, -> log s as s -> inf)."""
    low = s < -15.0
    tail = torch.where(low, s, torch.zeros_like(s))
    body = torch.where(low, torch.zeros_like(s), s)
    # log(1 + t) = t (1 - t/2 + t^2/3 - ...) with t = exp(s) < 4e-7: two terms reach 1e-13
    t = tail.exp()
    return torch.where(low, tail + torch.log1p(-t / 2 + t * t / 3), F.softplus(body, threshold=40.0).log())


@dataclass(frozen=True)
class Objective:
    """``log L``, with ``L = sum_i l(s_i)`` or its mean.

    Args:
        loss: exponential ``exp(s)``, logistic ``log(1 + exp(s))`` (one logit), or cross_entropy
            ``log(1 + exp(s))`` (any number of logits; with two logits the same as logistic of
            their difference).
        reduction: sum (tsilivis2024 eq. 8, vardi2022 eq. 1) or mean (lyu2022, frei2023).
    """

    loss: str = "exponential"
    reduction: str = "sum"

    def __post_init__(self) -> None:
        one_of("loss", self.loss, ("exponential", "logistic", "cross_entropy"))
        one_of("reduction", self.reduction, ("sum", "mean"))

    def check_outputs(self, outputs: int) -> None:
        """Refuse a binary objective on a model with several logits."""
        if outputs > 1 and self.loss != "cross_entropy":
            raise ConfigError(
                "loss", self.loss, f"is a two-class loss, the data has {outputs} classes; use objective=cross_entropy"
            )

    def of_scores(self, s: Tensor) -> Tensor:
        """``log L`` (scalar) of scores (n,)."""
        each = s if self.loss == "exponential" else log_softplus(s)
        total = each.logsumexp(-1)
        return total if self.reduction == "sum" else total - math.log(s.shape[-1])

    def log_loss(self, f: Tensor, y: Tensor) -> Tensor:
        """``log L`` (scalar) of outputs f, (n,) or (n, C), and labels y (n,)."""
        return self.of_scores(scores(f, y))
