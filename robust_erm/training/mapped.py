"""The functions of one run, mapped over the run axis: the reference for every faster form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.attack import Attack
from robust_erm.attacks.none import NoAttack
from robust_erm.core.fields import unchanged
from robust_erm.training import stacked
from robust_erm.training.step import Batch, Recipe, loss_and_grad


@dataclass(frozen=True)
class Group:
    """Some of the running runs, at these places among them, and the recipe that gives their loss."""

    at: Tensor | slice
    batch: Batch
    recipe: Recipe
    stacked: bool = False  # by stacked.py, where it knows the recipe

    def on(self, x: Tensor, y: Tensor) -> Group:
        """The same on other points, x (R, n, d) and y (R, n) of all running runs."""
        return replace(self, batch=self.batch._replace(x=x[self.at], y=y[self.at]))

    def some(self, at: slice) -> Group:
        """The same on some of the points."""
        return replace(self, batch=self.batch._replace(x=self.batch.x[:, at], y=self.batch.y[:, at]))

    @cached_property
    def fast(self) -> bool:
        """Whether :mod:`robust_erm.training.stacked` computes it."""
        return self.stacked and stacked.fits(self.recipe, self.recipe.attack)

    def loss_and_grad(self, theta: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Log losses (R',) and gradients (R', P)."""
        if self.fast:
            return stacked.loss_and_grad(self.recipe, theta, self.batch, noise)
        if theta.device.type != "cpu" and getattr(self.recipe.model, "fills_device", False):
            each = [loss_and_grad(self.recipe, theta[i], self.batch.of(i), noise[i]) for i in range(len(theta))]
            return torch.stack([one[0] for one in each]), torch.stack([one[1] for one in each])
        found: tuple[Tensor, Tensor] = vmap(lambda *a: loss_and_grad(self.recipe, *a))(theta, self.batch, noise)
        return found


def parts(attack: Attack, eps: Tensor) -> list[tuple[Tensor | slice, Attack]]:
    """Places in eps (R,), and the attack there: a radius of 0 needs none."""
    zero = eps == 0
    if attack.closed_form or unchanged(attack, NoAttack) or not bool(zero.any()):
        return [(slice(None), attack)]
    calm = NoAttack(attack.p)
    if bool(zero.all()):
        return [(slice(None), calm)]
    return [(zero.nonzero().squeeze(-1), calm), ((~zero).nonzero().squeeze(-1), attack)]


def loss_and_grad_of(
    theta: Tensor, groups: list[Group], noise: Tensor, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Log losses (R,) and gradients (R, P) of theta (R, P); from ``most`` points at once, where that is given.

    Not where the attack has a closed form: that makes no other points, and its subgradient of least norm adds up from
    no pieces.
    """
    n = groups[0].batch.x.shape[-2]
    if most is not None and most < n and not groups[0].recipe.attack.closed_form:
        parts = [slice(k, min(k + most, n)) for k in range(0, n, most)]
        found = [loss_and_grad_of(theta, [group.some(at) for group in groups], noise[:, :, at]) for at in parts]
        shares = [0.0 if summed(groups[0].recipe) else math.log((at.stop - at.start) / n) for at in parts]
        return pooled([(log_loss + share, grad) for (log_loss, grad), share in zip(found, shares, strict=True)])
    if len(groups) == 1:
        return groups[0].loss_and_grad(theta, noise)
    log_loss, grad = torch.empty_like(theta[:, 0]), torch.empty_like(theta)
    for group in groups:
        log_loss[group.at], grad[group.at] = group.loss_and_grad(theta[group.at], noise[group.at])
    return log_loss, grad


def summed(recipe: Recipe) -> bool:
    """Whether the loss is a sum over points, and not their mean."""
    return getattr(recipe.objective, "reduction", "mean") == "sum"


def pooled(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Log losses (R,) and gradients of them (R, P) of a sum over points, from those of its pieces."""
    if len(pieces) == 1:
        return pieces[0]
    losses, grads = (torch.stack(part) for part in zip(*pieces, strict=True))
    total = losses.logsumexp(0)
    return total, (grads * (losses - total).exp().unsqueeze(-1)).sum(0)
