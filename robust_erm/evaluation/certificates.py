"""Lower bounds on the margins of trained runs, and the exact answer where they leave points open."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.core.linalg import matvec, own_class
from robust_erm.core.margins import margin
from robust_erm.core.marked import taken
from robust_erm.core.params import Params
from robust_erm.core.stack import alternating
from robust_erm.evaluation.strong import Tick
from robust_erm.models.mlp import one_hidden_relu
from robust_erm.oracles.certified import STEPS, Hidden, Region, certified_margin
from robust_erm.oracles.milp import exact
from robust_erm.training.step import Recipe, predictor

_ROUNDINGS = 100  # of a number's precision: what sums of so many terms may lose


def certifiable(recipe: Recipe) -> bool:
    """Whether there are lower bounds: models linear in their input, and nets with one hidden ReLU layer."""
    model = recipe.model
    return hasattr(model, "weight") or one_hidden_relu(model)


def certified(
    recipe: Recipe,
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    box: tuple[float, float] | None,
    steps: int = STEPS,
) -> tuple[Tensor, Tensor]:
    """Lower bounds (n,) on the worst-case margins of x (n, d), and the size (n,) that rounding is in proportion to.

    One radius for all points, or one (n,) for each. In float64, less 100 times its rounding. Exact for models linear
    in their input where p = inf or there is no box; for nets by ``steps`` of alpha-CROWN where CROWN does not do. All
    of it may have a leading axis of runs, theta (R, P) and eps (R, n): a device takes them at once, a CPU one by one,
    so that a run's bits do not depend on its pack.
    """
    if theta.ndim == 2 and theta.device.type == "cpu":
        radii = [eps] * len(theta) if isinstance(eps, float) else eps
        each = [certified(recipe, *own, box, steps) for own in zip(theta, x, y, radii, strict=True)]
        return torch.stack([low for low, _ in each]), torch.stack([size for _, size in each])
    theta, x, y = theta.double(), x.double(), y.double()
    region = Region(x, eps, recipe.attack.p, box)
    w = predictors(recipe, theta)
    if w is None:
        net = hidden(recipe.layout.unflatten(theta), y)
        bound, size = certified_margin(net, region, steps), net.size(x)
    else:
        bound, size = affine(w, torch.zeros_like(w[..., 0]), region, y)
    return bound - rounding(size), size


def predictors(recipe: Recipe, theta: Tensor) -> Tensor | None:
    """The weights (..., C, d), C = 1 for one logit, of models linear in their input at theta (..., P); else None."""
    if not hasattr(recipe.model, "weight"):
        return None
    of: Callable[[Tensor], Any] = partial(predictor, recipe)
    w: Tensor = of(theta) if theta.ndim == 1 else vmap(of)(theta)
    return w.unsqueeze(-2) if w.ndim == theta.ndim else w


def affine(w: Tensor, b: Tensor, region: Region, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least margins (..., n) of ``W x' + b`` in ``region``, and the sums of their terms in absolute value (..., n).

    ``w`` is (..., 1, d) with ``b`` (..., 1) for one logit, (..., C, d) with (..., C) for several.
    """
    found = [_affine(w, b, region.some(points), y[..., points]) for points in region.pieces()]
    bound, size = (torch.cat(part, dim=-1) for part in zip(*found, strict=True))
    return bound, size


def _affine(w: Tensor, b: Tensor, region: Region, y: Tensor) -> tuple[Tensor, Tensor]:
    x, classes = region.x, w.shape[-2]
    if classes == 1:
        return region.least(y.unsqueeze(-1) * w) + y * b, matvec(x.abs(), w[..., 0, :].abs()) + b.abs()
    slopes, shifts = differences(w, y), taken(b, y.long()).unsqueeze(-1) - b.unsqueeze(-2)
    bound = (region.least(slopes) + shifts).masked_fill(own_class(classes, y), torch.inf).amin(-1)
    return bound, ((slopes.abs() * x.abs().unsqueeze(-2)).sum(-1) + shifts.abs()).amax(-1)


def differences(w: Tensor, y: Tensor) -> Tensor:
    """``w_y - w_c`` (..., n, C, d) of weights w (..., C, d), for labels y (..., n)."""
    return taken(w, y.long()).unsqueeze(-2) - w.unsqueeze(-3)


def rounding(size: Tensor) -> Tensor:
    """What a margin may lose whose terms add up to ``size`` in absolute value."""
    return _ROUNDINGS * torch.finfo(size.dtype).eps * size


def contradictions(low: Tensor, high: Tensor, size: Tensor) -> Tensor:
    """Points (n,) certified and broken, by more than the rounding of ``high``'s numbers: a fault of ours."""
    return (low > 0) & (high < -rounding(size.to(high)))


def hidden(params: Params, y: Tensor) -> Hidden:
    """The margins of labels y (..., n) as :mod:`robust_erm.oracles.certified` takes them."""
    w1 = params["W1"]
    w2 = params["W2"] if "W2" in params else alternating(w1)
    b1, b2 = params.get("b1", w1.new_zeros(w1.shape[:-1])), params.get("b2", w2.new_zeros(w2.shape[:-1]))
    classes = w2.shape[-2]
    if classes == 1:
        return Hidden(w1, b1, y[..., None, None] * w2.unsqueeze(-3), y.unsqueeze(-1) * b2.unsqueeze(-2))
    others, own = torch.arange(classes - 1, device=y.device), y.long()
    rivals = others + (others >= own.unsqueeze(-1))  # (..., n, C - 1): all classes but its own

    def less_rivals(of: Tensor) -> Tensor:
        theirs = taken(of, rivals.flatten(-2))
        return taken(of, own).unsqueeze(y.ndim) - theirs.reshape(*rivals.shape, *theirs.shape[y.ndim :])

    return Hidden(w1, b1, less_rivals(w2), less_rivals(b2))


def bounds(
    recipe: Recipe,
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    eps: Tensor,
    box: tuple[float, float] | None,
    attacked: Tensor,
    seconds: float,
    tick: Tick = lambda _: None,
) -> dict[str, Tensor]:
    """``certified`` and ``attacked`` margins (R, n) of R runs: the one positive is never with the other below 0.

    Args:
        recipe: certifiable.
        theta: (R, P).
        x: (R, n, d).
        y: (R, n).
        eps: radii (R,).
        box: or None.
        attacked: the least margins (R, n) that attacks have found.
        seconds: for the exact answer of each point that both leave open (:func:`settle`), where there is one; 0: none.
        tick: told how far it is.

    Raises:
        ArithmeticError: a certified point has been broken.
    """
    high = attacked
    low, size = certified(recipe, theta, x, y, eps.double().unsqueeze(-1).expand_as(y), box)
    if seconds and recipe.attack.p == math.inf and one_hidden_relu(recipe.model):
        settled = [
            settle(recipe, theta[i], x[i], y[i], radius, box, (low[i], high[i]), seconds, tick)
            for i, radius in enumerate(eps.tolist())
        ]
        low, high = (torch.stack(part) for part in zip(*settled, strict=True))
    if bool(contradictions(low, high, size).any()):
        raise ArithmeticError("a certified point has been broken: a certificate or an attack is wrong")
    return {"certified": torch.where(high > 0, low, low.clamp_max(0)), "attacked": high}  # broken by rounding alone


def settle(
    recipe: Recipe,
    theta: Tensor,
    x: Tensor,
    y: Tensor,
    eps: float,
    box: tuple[float, float] | None,
    bounds: tuple[Tensor, Tensor],
    seconds: float,
    tick: Tick = lambda _: None,
) -> tuple[Tensor, Tensor]:
    """Both bounds again, after a mixed-integer program for each point that they leave open (p = inf).

    Args:
        recipe: of a net with one hidden ReLU layer.
        theta: (P,).
        x: (n, d).
        y: (n,).
        eps: radius.
        box: or None.
        bounds: certified and attacked margins (n,).
        seconds: for each program at most.
        tick: told how far it is.

    Returns:
        As ``bounds``; 0 stands for a certified margin above 0 that is not known better.
    """
    low, high = (bound.clone() for bound in bounds)
    net, region = hidden(recipe.layout.unflatten(theta), y), Region(x, eps, recipe.attack.p, box)
    left = ((low <= 0) & (high > 0)).nonzero().squeeze(-1).tolist()
    for k, i in enumerate(left):
        tick(f"exact {k + 1}/{len(left)}")
        answer = exact(net, region, i, seconds)
        if answer.verdict == "robust":
            low[i] = torch.finfo(low.dtype).tiny
        elif answer.x is not None:  # by hand: rounding in the run's own precision may not see it
            found = margin(recipe.model.apply(recipe.layout.unflatten(theta), answer.x.unsqueeze(0)), y[i : i + 1])
            high[i] = torch.minimum(high[i], found[0]).clamp_max(0)
    return low, high
