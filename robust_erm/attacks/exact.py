"""The worst case of a model linear in its input, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_erm.attacks.attack import Deterministic, Victim
from robust_erm.core.linalg import linear, own_class
from robust_erm.core.marked import taken
from robust_erm.core.norms import Norm


@dataclass(frozen=True)
class Exact(Deterministic):
    """``min_{||delta||_p <= eps} y <w, x + delta> = y <w, x> - eps ||w||_{p*}`` (tsilivis2024 eq. 8).

    Reached at ``delta = -y eps argmax_{||u||_p <= 1} <u, w>``. With several classes the smallest of
    the pairwise worst margins ``<w_y - w_c, x> - eps ||w_y - w_c||_{p*}`` is taken: exact for the
    margin (not for the cross entropy, whose worst point may be another). The whole ball is the threat: no box.

    Where two classes' weights of a coordinate agree to rounding (64 times the precision, of the largest weight), x'
    does not move there: in l_inf either end of the ball is a worst point, the sign of what rounding leaves would choose
    one, and the gradient at x' would depend on the order of the points. The margin is the same to rounding.

    Args:
        p: exponent of the threat's norm, in [1, inf].
    """

    run_axis: ClassVar[bool] = True
    p: float = math.inf

    def __post_init__(self) -> None:
        Norm(self.p)

    @property
    def closed_form(self) -> bool:
        """Yes."""
        return True

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d); of R runs at once, (R, n, d), where x, y, eps and the weight have that axis."""
        w, x, y = victim.weight, victim.x, victim.y
        assert w is not None, "validated before training: model linear in its input"
        norm, radius = Norm(self.p), eps[..., None, None]
        if w.ndim < x.ndim:
            return x - radius * y.unsqueeze(-1) * norm.steepest(w).unsqueeze(-2)
        classes = w.shape[-2]
        difference = w.unsqueeze(-2) - w.unsqueeze(-3)  # (C, C, d): w_y - w_c
        largest = w.abs().amax((-2, -1))[..., None, None, None]
        ties = difference.abs() <= 64 * torch.finfo(w.dtype).eps * largest
        difference = torch.where(ties, torch.zeros_like(difference), difference)
        logits, own = linear(x, w), own_class(classes, y)
        true = torch.where(own, logits, torch.zeros_like(logits)).sum(-1, keepdim=True)
        worst = true - logits - radius * taken(norm.dual.value(difference), y.long())
        rival = torch.where(own, torch.full_like(worst, math.inf), worst).argmin(-1)
        steps = norm.steepest(difference).flatten(-3, -2)  # (C C, d)
        return x - radius * taken(steps, y.long() * classes + rival)
