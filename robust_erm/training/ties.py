"""First steps that rounding decides: along the sign of sums that cancel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.attack import without_rounding
from robust_erm.core.fields import substituted
from robust_erm.training.mapped import loss_and_grad_of
from robust_erm.training.runs import Runs


def undecided(runs: Runs) -> Tensor:
    """How many parameters (R,) a step from here moves along a sign that rounding decides.

    That is where the update changes with the sign of an entry of the gradient within 64 roundings of the largest:
    sign descent where sums of points cancel, as those of pixels of few values do at theta = 0.
    """
    rows = torch.arange(len(runs.eps), device=runs.eps.device)
    noise = runs.noise(runs.recipe.attack, rows.tolist(), runs.train.x.shape[-2], runs.generators_of("eval"))
    log_loss, grad = loss_and_grad_of(runs.theta, runs.groups(rows), noise)
    tied = (grad != 0) & (without_rounding(grad) == 0)

    def moved(grad: Tensor, log_loss: Tensor, state: dict[str, Any], numbers: dict[str, Tensor]) -> Tensor:
        optimizer = substituted(runs.recipe.optimizer, numbers)
        direction: Tensor = optimizer.update(grad, log_loss, state, runs.recipe.layout)[0]
        return direction

    one, other = (
        vmap(moved)(g, log_loss, runs.state["optimizer"], runs.numbers) for g in (grad, torch.where(tied, -grad, grad))
    )
    return ((one - other).abs() > 1e-6 * one.abs().amax(-1, keepdim=True)).sum(-1)
