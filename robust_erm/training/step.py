"""One run, one step: attack, gradient, update. Pure functions of tensors, for one model on one dataset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robust_erm.attacks.attack import Attack, Victim
from robust_erm.core.fields import parts, substituted, takes_runs, unchanged
from robust_erm.core.linalg import matvec
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout
from robust_erm.core.stack import Stack
from robust_erm.models.linear import Linear
from robust_erm.models.model import Model
from robust_erm.objectives import Objective
from robust_erm.optimizers.optimizer import Optimizer
from robust_erm.schedules.schedule import Along, Layered, Point


class Batch(NamedTuple):
    """Inputs x (n, d), labels y (n,), radius eps (), bound B () = max_i ||x_i||_inf over the training set.

    ``numbers``, each without axes, stand for the optimizer's fields of the same dotted path.
    """

    x: Tensor
    y: Tensor
    eps: Tensor
    bound: Tensor
    numbers: dict[str, Tensor]

    def of(self, rows: Any) -> Batch:
        """Of a batch with a run axis, those of some runs."""
        x, y, eps, bound = (part[rows] for part in self[:4])
        return Batch(x, y, eps, bound, {path: value[rows] for path, value in self.numbers.items()})


@dataclass(frozen=True)
class Recipe:
    """The code of a run: everything that is not a tensor. Runs of one pack share it."""

    model: Model
    layout: Layout
    objective: Objective
    optimizer: Optimizer
    attack: Attack
    domain: tuple[float, float] | None
    sparse: bool = False  # whether inputs are mostly zeros

    @cached_property
    def stack(self) -> Stack | None:
        """The layers of a fully connected model; None where a parameter stands in none of them, or twice."""
        found = getattr(self.model, "stack", None)
        if not isinstance(found, Stack):
            return None
        held = sorted(name for layer in found.layers for name in layer if name)
        return found if held == sorted(name for name, _ in self.layout.shapes) else None

    @cached_property
    def widest(self) -> int:
        """The most rows of a parameter."""
        return max(shape[0] for _, shape in self.layout.shapes)

    @cached_property
    def kinked(self) -> bool:
        """Whether the parameters themselves are the w of ``eps ||w||_1`` in the closed-form loss."""
        l1 = self.attack.closed_form and Norm(self.attack.p).dual.p == 1
        return l1 and unchanged(self.model, Linear, "init") and len(self.layout.shapes[0][1]) == 1


def outputs(recipe: Recipe, theta: Tensor, x: Tensor) -> Tensor:
    """f(x; theta): theta (P,), x (n, d) -> (n,) or (n, C)."""
    return recipe.model.apply(recipe.layout.unflatten(theta), x)


def predictor(recipe: Recipe, theta: Tensor) -> Tensor | None:
    """The weight (d,) or (C, d) of a model linear in its input, else None."""
    weight: Any = getattr(recipe.model, "weight", None)
    return None if weight is None else weight(recipe.layout.unflatten(theta))


def perturbed(recipe: Recipe, attack: Attack, theta: Tensor, batch: Batch, noise: Tensor) -> Tensor:
    """X' (n, d) of ``attack`` against the model at theta (P,)."""
    params = recipe.layout.unflatten(theta)
    victim = Victim(
        outputs=lambda x: recipe.model.apply(params, x),
        x=batch.x,
        y=batch.y,
        domain=recipe.domain,
        weight=predictor(recipe, theta),
    )
    return attack.perturb(victim, batch.eps, noise)


def attacked_outputs(recipe: Recipe, attack: Attack, theta: Tensor, batch: Batch, noise: Tensor) -> Tensor:
    """Outputs (n,) or (n, C) after ``attack``; in closed form where there is one."""
    w = predictor(recipe, theta)
    if attack.closed_form and w is not None and w.ndim == 1:
        return batch.y * _exact_margin(attack, w, batch)
    return outputs(recipe, theta, perturbed(recipe, attack, theta, batch, noise))


def _exact_margin(attack: Attack, w: Tensor, batch: Batch) -> Tensor:
    """``y_i <w, x_i> - eps ||w||_{p*}`` (n,)."""
    return batch.y * matvec(batch.x, w) - batch.eps * Norm(attack.p).dual.value(w)


def loss_and_grad(recipe: Recipe, theta: Tensor, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Worst-case log loss () and a (sub)gradient of it (P,) at theta (P,).

    Worst-case to the extent that the attack is. Under an iterative attack the gradient is taken at
    fixed x' (Danskin). Under the exact one, for one logit, the loss is the closed form in
    ``y_i <w, x_i> - eps ||w||_{p*}`` and the gradient its subgradient of least norm (tsilivis2024
    Lemma C.3), pulled back to the parameters.
    """
    w = predictor(recipe, theta)
    if recipe.attack.closed_form and w is not None and w.ndim == 1:
        return _closed_form(recipe, theta, batch)
    x_adv = perturbed(recipe, recipe.attack, theta, batch, noise)

    def worst_case(t: Tensor) -> Tensor:
        return recipe.objective.log_loss(outputs(recipe, t, x_adv), batch.y)

    grad, log_loss = torch.func.grad_and_value(worst_case)(theta)
    return log_loss, grad


def _closed_form(recipe: Recipe, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    weight: Any = recipe.model.weight  # type: ignore[attr-defined]
    w: Tensor
    w, pull = torch.func.vjp(  # type: ignore[misc]
        lambda t: weight(recipe.layout.unflatten(t)), theta
    )
    dual = Norm(recipe.attack.p).dual
    s = -_exact_margin(recipe.attack, w, batch)
    share, log_loss = torch.func.grad_and_value(recipe.objective.of_scores)(s)  # share_i = d log L / d s_i
    top = share.amax()
    top = torch.where(top > 0, top, torch.ones_like(top))
    # equal shares are 1 in the product: sums of points that cancel are 0, and their sign is not rounding's
    grad_w = -((batch.y * (share / top)).unsqueeze(0) @ batch.x).squeeze(0) * top
    push = share.sum() * batch.eps
    grad_w = dual.least_sum(w, grad_w, push)
    (grad,) = pull(grad_w)
    return log_loss, grad


def move(
    recipe: Recipe, t: Tensor, found: Point, state: dict[str, Any], batch: Batch, **faster: Any
) -> tuple[Point, Tensor, dict[str, Any]]:
    """One step from theta_t, given loss and gradient there; of R runs at once where :func:`native` says so.

    A weight that would pass over the kink of ``eps ||w||_1`` at 0 stops there, as the flow does; where the
    subgradient of least norm says so, it goes on in the next step. Otherwise steps of any fixed size go to and
    fro over the kink, and coordinate descent may do nothing else.

    ``faster``: what :meth:`robust_erm.optimizers.optimizer.Composed.update` may be given.

    Returns:
        The point stepped from (theta_t, or where the schedule backed off to), theta_{t+1}, and the
        next state ``{"optimizer": ..., "schedule": ...}``.
    """
    optimizer = substituted(recipe.optimizer, batch.numbers) if batch.numbers else recipe.optimizer
    schedule = optimizer.schedule
    if isinstance(schedule, Layered):
        shared = batch.x.ndim == 3 and batch.x.stride(0) == 0  # all runs are on one data set
        length = Norm(2.0).value(batch.x[:1] if shared else batch.x).amax(-1).expand_as(batch.eps)
        point, schedule_state = schedule.accept_layers(found, recipe.layout, batch.eps, length, state["schedule"])
    else:
        point, schedule_state = schedule.accept(found, state["schedule"])
    direction, log_scale, optimizer_state = optimizer.update(
        point.grad, point.log_loss, state["optimizer"], recipe.layout, **faster
    )
    given = batch.eps, batch.bound, schedule_state
    if isinstance(schedule, Along):
        log_eta = schedule.log_step_along(t, point, direction, log_scale, *given)
    else:
        log_eta = schedule.log_step(t, point, *given)
    size = (log_eta + log_scale).exp().unsqueeze(-1)
    if hasattr(optimizer, "moved"):
        after = optimizer.moved(point.theta, direction * size)
    else:
        after = (direction * -size).add_(point.theta)
    if recipe.kinked:
        crossed = (after * point.theta < 0) & (batch.eps > 0).unsqueeze(-1)
        after = torch.where(crossed, torch.zeros_like(after), after)
    return point, after, {"optimizer": optimizer_state, "schedule": schedule_state}


def native(optimizer: Optimizer) -> bool:
    """Whether optimizer, schedule and other parts take R runs at once: each class says so of itself alone."""
    return takes_runs(optimizer) and all(map(takes_runs, parts(optimizer)))
