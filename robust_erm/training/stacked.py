"""Fully connected models without vmap and autograd: what :mod:`robust_erm.training.step` defines, over the run axis.

Runs are a batch of matrix products (:mod:`robust_erm.core.stack`), and their samples one batch for the attack: it sees
R n inputs, each with the radius of its run. The mapped form is the reference; a test holds both together.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.attack import Attack, Victim
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.victims import StackVictim
from robust_erm.core.devices import readable
from robust_erm.core.fields import takes_runs, unchanged
from robust_erm.core.linalg import linear, matvec, product
from robust_erm.core.margins import squeeze_logit
from robust_erm.core.norms import Box, Norm
from robust_erm.core.params import Params
from robust_erm.core.stack import Stack, Trace
from robust_erm.objectives import score_slopes
from robust_erm.training import kernels
from robust_erm.training.step import Batch, Recipe

CACHE = 2**21  # bytes of one layer's numbers: with its inputs, slopes and gradients, what stays near a core

SMALL = 2**19  # bytes of one run's parameters, or of a layer's numbers, up to which runs are computed one by one


def fits(recipe: Recipe, attack: Attack) -> bool:
    """Whether this form knows the model, the objective and the attack."""
    known = attack.closed_form or unchanged(attack, NoAttack) or getattr(attack, "samplewise", False)
    differentiable = callable(getattr(recipe.objective, "shares", None))
    return known and differentiable and recipe.stack is not None


def loss_and_grad(recipe: Recipe, theta: Tensor, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Worst-case log losses (R,) and (sub)gradients (R, P) of theta (R, P), as the function of one run defines them."""
    if some := _blocks(recipe, theta, batch, noise):
        losses, grads = zip(*(loss_and_grad(recipe, *one) for one in some), strict=True)
        return torch.cat(losses), torch.cat(grads)
    attack = recipe.attack
    small = None if attack.closed_form else _small(recipe, theta, batch.x)
    if small is not None:
        x = _perturbed(recipe, attack, theta, batch, noise, small)
        found: tuple[Tensor, Tensor] = small.loss_and_grad(x, batch.y)
        return found
    params = recipe.layout.unflatten(theta)
    if _exact(recipe, attack, params):
        return _closed_form(recipe, params, theta, batch)
    trace = _stack(recipe).forward(params, _perturbed(recipe, attack, theta, batch, noise, None))
    log_loss, slopes = _loss_slopes(recipe, trace.outputs, batch.y)
    return log_loss, _gradient(recipe, params, theta, trace, slopes)


def outputs(recipe: Recipe, attack: Attack, theta: Tensor, batch: Batch, noise: Tensor) -> Tensor:
    """Outputs (R, n) or (R, n, C) after ``attack``; in closed form where there is one."""
    if some := _blocks(recipe, theta, batch, noise):
        return torch.cat([outputs(recipe, attack, *one) for one in some])
    params = recipe.layout.unflatten(theta)
    if _exact(recipe, attack, params):
        w = _stack(recipe).predictor(params).squeeze(-2)
        push = (batch.eps * Norm(attack.p).dual.value(w)).unsqueeze(-1)
        return batch.y * (batch.y * matvec(batch.x, w) - push)
    x = _perturbed(recipe, attack, theta, batch, noise, _small(recipe, theta, batch.x))
    f = _stack(recipe).forward(params, x).outputs
    return squeeze_logit(f)


def perturbed(recipe: Recipe, attack: Attack, theta: Tensor, batch: Batch, noise: Tensor) -> Tensor:
    """X' (R, n, d) after ``attack``."""
    if some := _blocks(recipe, theta, batch, noise):
        return torch.cat([perturbed(recipe, attack, *one) for one in some])
    return _perturbed(recipe, attack, theta, batch, noise, _small(recipe, theta, batch.x))


def victim(recipe: Recipe, theta: Tensor, x: Tensor, y: Tensor, box: Box) -> StackVictim:
    """The models at theta (R, P) on x (R, n, d), as an attack that keeps to ``box`` sees them: R n samples."""
    nothing = torch.zeros_like(theta[:, 0])
    return _Victim(replace(recipe, domain=box), theta, Batch(x, y, nothing, nothing, {}), _small(recipe, theta, x))


def _gradient(recipe: Recipe, params: Params, theta: Tensor, trace: Trace, slopes: Tensor) -> Tensor:
    """``sum_{i, c} slope_ic grad_theta f_c(x_i)`` (R, P); on a CPU each product is written where it belongs."""
    stack, layout = _stack(recipe), recipe.layout
    if not readable(theta):  # graphs know no such writes
        return layout.flatten(stack.to_params(params, trace, slopes))
    grad = theta.new_empty(theta.shape)
    stack.to_params(params, trace, slopes, layout.unflatten(grad))
    return grad


def _loss_slopes(recipe: Recipe, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Log losses (R,) of outputs f (R, n, C) and labels y (R, n), and their derivatives in f."""
    compiled = kernels.for_scores(recipe.objective, f.dtype) if readable(f) else None
    if compiled is not None:
        found: tuple[Tensor, Tensor] = compiled.slopes(f, y)
        return found
    s, slopes = score_slopes(f, y)
    log_loss, share = recipe.objective.shares(s)
    return log_loss, share.unsqueeze(-1) * slopes


def _shares(recipe: Recipe, s: Tensor) -> tuple[Tensor, Tensor]:
    """Log losses (R,) of scores s (R, n), and their derivatives in them."""
    compiled = kernels.for_scores(recipe.objective, s.dtype) if readable(s) else None
    found: tuple[Tensor, Tensor] = (compiled or recipe.objective).shares(s)
    return found


def _blocks(recipe: Recipe, theta: Tensor, batch: Batch, noise: Tensor) -> list[tuple[Tensor, Batch, Tensor]]:
    """The runs, as many at once as a CPU's cache holds; nothing where that is all of them."""
    each = batch.x.shape[-2] * max(recipe.widest, batch.x.shape[-1]) * theta.element_size()
    count = max(1, CACHE // each)
    if theta.device.type != "cpu" or count >= len(theta):
        return []
    parts = [slice(k, k + count) for k in range(0, len(theta), count)]
    return [(theta[at], batch.of(at), noise[at]) for at in parts]


def _stack(recipe: Recipe) -> Stack:
    assert recipe.stack is not None, "asked for before"
    return recipe.stack


def _exact(recipe: Recipe, attack: Attack, params: Params) -> bool:
    """Whether the worst case is a formula in the one predictor."""
    return attack.closed_form and _stack(recipe).weight(-1, params).shape[-2] == 1


def _closed_form(recipe: Recipe, params: Params, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    stack, dual, eps = _stack(recipe), Norm(recipe.attack.p).dual, batch.eps.unsqueeze(-1)
    w = stack.predictor(params).squeeze(-2)
    s = eps * dual.value(w).unsqueeze(-1) - batch.y * matvec(batch.x, w)
    log_loss, share = _shares(recipe, s)
    top = share.amax(-1, keepdim=True)
    top = torch.where(top > 0, top, torch.ones_like(top))
    # equal shares are 1 in the product: sums of points that cancel are 0, and their sign is not rounding's
    grad_w = -product((batch.y * (share / top)).unsqueeze(-2), batch.x).squeeze(-2) * top
    grad_w = dual.least_sum(w, grad_w, share.sum(-1, keepdim=True) * eps)
    # <g, w(theta)> is the output at x = g, and its gradient in theta is what g is pulled back to
    trace = stack.forward(params, grad_w.unsqueeze(-2))
    return log_loss, _gradient(recipe, params, theta, trace, torch.ones_like(trace.outputs))


def _small(recipe: Recipe, theta: Tensor, x: Tensor) -> Any:
    """What computes runs of small nets one after another, where theta (R, P) and x (R, n, d) are such."""
    _, n, d = x.shape
    if max(theta.shape[1], n * max(recipe.widest, d)) * theta.element_size() > SMALL or not readable(theta):
        return None
    nets = kernels.for_stack(_stack(recipe), recipe.layout, recipe.objective, theta.dtype)
    return None if nets is None else nets.at(theta, n)


def _perturbed(recipe: Recipe, attack: Attack, theta: Tensor, batch: Batch, noise: Tensor, small: Any) -> Tensor:
    """X' (R, n, d)."""
    if unchanged(attack, NoAttack):
        return batch.x
    if attack.closed_form:
        return _worst(recipe, attack, theta, batch, noise)
    runs, n, d = batch.x.shape
    seen = _Victim(recipe, theta, batch, small)
    eps = batch.eps.unsqueeze(-1).expand(runs, n).reshape(-1, 1)
    return attack.perturb(seen, eps, noise.transpose(0, 1).flatten(1, 2)).reshape(runs, n, d)


def _worst(recipe: Recipe, attack: Attack, theta: Tensor, batch: Batch, noise: Tensor) -> Tensor:
    """X' (R, n, d) by a formula, from the predictors; of attacks that know no runs one after another."""
    weight = _stack(recipe).predictor(recipe.layout.unflatten(theta))
    weight = weight.squeeze(-2) if weight.shape[-2] == 1 else weight

    def one(w: Tensor, x: Tensor, y: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
        def f(z: Tensor) -> Tensor:
            return linear(z, w) if w.ndim == z.ndim else matvec(z, w)

        return attack.perturb(Victim(f, x, y, recipe.domain, w), eps, noise)

    of = one if takes_runs(attack) else vmap(one)
    found: Tensor = of(weight, batch.x, batch.y, batch.eps, noise)
    return found


class _Victim(StackVictim):
    """With compiled steps, and small nets in compiled loops."""

    def __init__(self, recipe: Recipe, theta: Tensor, batch: Batch, small: Any) -> None:
        super().__init__(_stack(recipe), partial(recipe.layout.unflatten, theta), batch.x, batch.y, recipe.domain)
        self.small = small

    def margin_slopes(self, f: Tensor, y: Tensor) -> Tensor:
        compiled = kernels.for_attacks(f.dtype) if readable(f) else None
        return super().margin_slopes(f, y) if compiled is None else compiled.margin_slopes(f, y)

    def step(self, norm: Norm, gradient: Tensor, x: Tensor, length: Tensor, box: Box) -> Tensor:
        compiled = _steps(norm, x)
        if compiled is None:
            return super().step(norm, gradient, x, length, box)
        found: Tensor = compiled.step(norm.p, gradient, x, length, None)
        return found

    def step_within(
        self, norm: Norm, gradient: Tensor, x: Tensor, length: Tensor, box: Box, radius: Tensor | None = None
    ) -> Tensor:
        compiled = _steps(norm, x)
        if compiled is None:
            return super().step_within(norm, gradient, x, length, box, radius)
        found: Tensor = compiled.step(norm.p, gradient, x, length, box, None if radius is None else (self.x, radius))
        return found

    def descend(
        self,
        norm: Norm,
        length: Tensor,
        box: Box,
        radius: Tensor | None = None,
        steps: int = 1,
        start: Tensor | None = None,
    ) -> Tensor:
        if self.small is None or norm.p not in (2, math.inf) or steps < 1:
            return super().descend(norm, length, box, radius, steps, start)
        x, y = self.of_runs, self.labels  # of runs on one data set x is read once
        lengths, radii = (None if a is None else a.expand(y.numel(), 1).reshape(y.shape) for a in (length, radius))
        ball = None if radii is None else (x, radii)
        begin = x if start is None else start.reshape(x.shape)
        found: Tensor = self.small.descend(norm.p, y, begin, lengths, box, ball, steps)
        return found.flatten(0, 1)


def _steps(norm: Norm, x: Tensor) -> Any:
    """What takes steps of attacks in one pass, where there is such."""
    return kernels.for_attacks(x.dtype) if norm.p in (2, math.inf) and readable(x) else None
