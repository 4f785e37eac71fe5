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

from robust_erm.core.devices import readable
from robust_erm.core.errors import ConfigError, one_of
from robust_erm.core.linalg import own_class
from robust_erm.core.margins import require_outputs

_LOW, _HIGH = -15.0, 40.0  # scores beyond which log(1 + exp(s)) is computed by its tails


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
    low, body, t = _parts(s)
    high = body > _HIGH
    softplus = torch.where(high, body, torch.where(high, torch.zeros_like(body), body).exp().log1p())
    # log(1 + t) = t (1 - t/2 + t^2/3 - ...) with t = exp(s) < 4e-7: two terms reach 1e-13
    return torch.where(low, torch.where(low, s, body) + torch.log1p(-t / 2 + t * t / 3), softplus.log())


def _log_softplus_and_slope(s: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and its derivative ``sigmoid(s) / log(1 + exp(s))``."""
    if readable(s) and bool((s.abs() < -_LOW).all()):  # no tails: the same bits in fewer steps
        e = s.exp()
        softplus = e.log1p()
        return softplus.log(), e / ((1 + e) * softplus)
    low, body, t = _parts(s)
    e = body.clamp_max(_HIGH).exp()
    softplus = torch.where(body > _HIGH, body, e.log1p())
    value, slope = softplus.log(), e / ((1 + e) * softplus)
    if readable(s) and not bool(low.any()):
        return value, slope
    value = torch.where(low, s + torch.log1p(-t / 2 + t * t / 3), value)
    # the derivative of s + log(1 - t/2 + t^2/3), t = exp(s)
    return value, torch.where(low, 1 + t * (2 * t / 3 - 0.5) / (1 - t / 2 + t * t / 3), slope)


def _parts(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where s is low; s elsewhere, else 0; exp(s) where it is low.

    Of ``exp``, ``log`` and ``log1p`` alone, which give a number the same bits wherever it lies in a tensor, as torch's
    sigmoid and softplus do not.
    """
    low, zero = s < _LOW, torch.zeros_like(s)
    return low, torch.where(low, zero, s), torch.where(low, s, s.new_full((), -math.inf)).exp()


def score_slopes(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`scores` (..., n) of outputs f (..., n, C) and labels y (..., n), and their derivatives in f."""
    if f.shape[-1] == 1:
        return -y * f.squeeze(-1), -y.unsqueeze(-1)
    own = own_class(f.shape[-1], y)
    true = torch.where(own, f, torch.zeros_like(f)).sum(-1)
    others = f.masked_fill(own, -math.inf)
    top = others.amax(-1, keepdim=True)
    e = (others - top).exp()
    total = e.sum(-1, keepdim=True)
    return (top + total.log()).squeeze(-1) - true, e / total - own.to(f)


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
        return self._reduced(each.logsumexp(-1), s.shape[-1])

    def _reduced(self, total: Tensor, n: int) -> Tensor:
        """Log of the sum, or of the mean, of n losses, from that of their sum."""
        return total if self.reduction == "sum" else total - math.log(n)

    def shares(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """``log L`` (...) of scores (..., n), and its derivatives in them (..., n), each at least 0."""
        each, slope = (s, None) if self.loss == "exponential" else _log_softplus_and_slope(s)
        total = each.logsumexp(-1)
        share = (each - total.unsqueeze(-1)).exp()
        share = share if slope is None else share * slope
        return self._reduced(total, s.shape[-1]), share

    def log_loss(self, f: Tensor, y: Tensor) -> Tensor:
        """``log L`` (scalar) of outputs f, (n,) or (n, C), and labels y (n,)."""
        return self.of_scores(scores(f, y))
