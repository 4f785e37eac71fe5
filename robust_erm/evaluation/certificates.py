"""Lower bounds on the margins of trained runs, and the exact answer where they leave points open."""

from __future__ import annotations

import torch
from torch import Tensor

from robust_erm.core.linalg import own_class
from robust_erm.core.margins import margin
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
    in their input where p = inf or there is no box; for nets by ``steps`` of alpha-CROWN where CROWN does not do.
    """
    theta, x, y = theta.double(), x.double(), y.double()
    region = Region(x, eps, recipe.attack.p, box)
    w = predictor(recipe, theta)
    if w is None:
        net = hidden(recipe.layout.unflatten(theta), y)
        bound, size = certified_margin(net, region, steps), net.size(x)
    else:
        w = w.unsqueeze(0) if w.ndim == 1 else w
        bound, size = affine(w, torch.zeros_like(w[:, 0]), region, y)
    return bound - rounding(size), size


def affine(w: Tensor, b: Tensor, region: Region, y: Tensor) -> tuple[Tensor, Tensor]:
    """Least margins (n,) of ``W x' + b`` in ``region``, and the sums of their terms in absolute value (n,).

    ``w`` is (1, d) with ``b`` (1,) for one logit, (C, d) with (C,) for several.
    """
    x = region.x
    if len(w) == 1:
        return region.least(y.unsqueeze(-1) * w) + y * b, x.abs() @ w[0].abs() + b.abs()
    slopes, shifts = w[y.long()].unsqueeze(1) - w, b[y.long()].unsqueeze(1) - b  # (n, C, d): w_y - w_c
    bound = (region.least(slopes) + shifts).masked_fill(own_class(len(w), y), torch.inf).amin(-1)
    return bound, ((slopes.abs() * x.abs().unsqueeze(1)).sum(-1) + shifts.abs()).amax(-1)


def rounding(size: Tensor) -> Tensor:
    """What a margin may lose whose terms add up to ``size`` in absolute value."""
    return _ROUNDINGS * torch.finfo(size.dtype).eps * size


def contradictions(low: Tensor, high: Tensor, size: Tensor) -> Tensor:
    """Points (n,) certified and broken, by more than the rounding of ``high``'s numbers: a fault of ours."""
    return (low > 0) & (high < -rounding(size.to(high)))


def hidden(params: Params, y: Tensor) -> Hidden:
    """The margins of labels y (n,) as :mod:`robust_erm.oracles.certified` takes them."""
    w1 = params["W1"]
    w2 = params["W2"] if "W2" in params else alternating(w1)
    b1, b2 = params.get("b1", w1.new_zeros(len(w1))), params.get("b2", w2.new_zeros(len(w2)))
    if len(w2) == 1:
        return Hidden(w1, b1, y.view(-1, 1, 1) * w2, y.view(-1, 1) * b2)
    rivals = (~own_class(len(w2), y)).nonzero()[:, 1].view(len(y), -1)
    own = y.long()
    return Hidden(w1, b1, w2[own].unsqueeze(1) - w2[rivals], b2[own].unsqueeze(1) - b2[rivals])


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
