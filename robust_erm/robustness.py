"""How robust trained runs are: strong attacks one after another, certificates, and signs of masked gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.apgd import APGD
from robust_erm.attacks.attack import Attack
from robust_erm.attacks.square import Square
from robust_erm.margins import margin
from robust_erm.models.mlp import MLP
from robust_erm.oracles.certified import Hidden, Region, certified_margin, exact
from robust_erm.params import Params
from robust_erm.runs import Points, Runs
from robust_erm.step import Recipe, predictor

Tick = Callable[[str], None]

CHECKED = 200  # points that the signs of masked gradients are looked for at
_ROUNDINGS = 100  # of a number's precision: what sums of so many terms may lose
_MUCH = 0.01  # share of points from which a difference is worth a warning


@dataclass(frozen=True)
class Found:
    """What the attacks left of n points.

    Args:
        least: (n,) the least margin that any attack reached; the point is robust, as far as we know, where positive.
        after: accuracy after each attack, all before it included, by name; ``clean`` first.
    """

    least: Tensor
    after: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Share of points that no attack has pushed to a margin of 0 or less."""
        return float((self.least > 0).double().mean())


def attacked(
    runs: Runs, attacks: dict[str, Attack], points: Points, eps: Tensor, rows: Tensor, tick: Tick = lambda _: None
) -> list[Found]:
    """The attacks in turn, each on the points that those before it have left; one answer a run."""
    least = runs.clean(points, rows)
    after = {"clean": least}
    for name, attack in attacks.items():
        tick(name)
        least = torch.minimum(least, runs.attacked_among(attack, points, eps, rows, least > 0))
        after[name] = least
    shares = {name: (value > 0).double().mean(-1).tolist() for name, value in after.items()}
    return [Found(least[k], {name: share[k] for name, share in shares.items()}) for k in range(len(rows))]


def certifiable(recipe: Recipe) -> bool:
    """Whether there are lower bounds: models linear in their input, and nets with one hidden ReLU layer."""
    return hasattr(recipe.model, "weight") or (isinstance(recipe.model, MLP) and recipe.model.depth == 2)


def certified(
    recipe: Recipe, theta: Tensor, x: Tensor, y: Tensor, eps: float, box: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """Lower bounds (n,) on the worst-case margins of x (n, d), and the size (n,) that rounding is in proportion to.

    In float64, less 100 times its rounding. Exact for models linear in their input where p = inf or there is no box.
    """
    theta, x, y = theta.double(), x.double(), y.double()
    region = Region(x, eps, recipe.attack.p, box)
    w = predictor(recipe, theta)
    if w is None:
        net = hidden(recipe.layout.unflatten(theta), y)
        bound, size = certified_margin(net, region), net.size(x)
    elif w.ndim == 1:
        bound, size = region.least(y.unsqueeze(-1) * w), x.abs() @ w.abs()
    else:
        differences = w[y.long()].unsqueeze(1) - w  # (n, C, d): w_y - w_c
        bound = region.least(differences).masked_fill(_own(len(w), y), torch.inf).amin(-1)
        size = (differences.abs() * x.abs().unsqueeze(1)).sum(-1).amax(-1)
    return bound - _ROUNDINGS * torch.finfo(bound.dtype).eps * size, size


def contradictions(low: Tensor, high: Tensor, size: Tensor) -> Tensor:
    """Points (n,) certified and broken, by more than the rounding of ``high``'s numbers: a fault of ours."""
    return (low > 0) & (high < -_ROUNDINGS * torch.finfo(high.dtype).eps * size.to(high))


def _own(classes: int, y: Tensor) -> Tensor:
    return torch.arange(classes, device=y.device) == y.unsqueeze(-1)


def hidden(params: Params, y: Tensor) -> Hidden:
    """The margins of labels y (n,) as :mod:`robust_erm.oracles.certified` takes them."""
    w1, w2 = params["W1"], params["W2"]
    b1, b2 = params.get("b1", w1.new_zeros(len(w1))), params.get("b2", w2.new_zeros(len(w2)))
    if len(w2) == 1:
        return Hidden(w1, b1, y.view(-1, 1, 1) * w2, y.view(-1, 1) * b2)
    rivals = (~_own(len(w2), y)).nonzero()[:, 1].view(len(y), -1)
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


@dataclass(frozen=True)
class Masking:
    """Signs that attacks by gradients see less than there is.

    Args:
        numbers: what was measured, by name.
        warnings: one line for each sign.
    """

    numbers: dict[str, float]
    warnings: list[str] = field(default_factory=list)


def masking(runs: Runs, points: Points, eps: Tensor, rows: Tensor, box: bool, found: list[Found]) -> list[Masking]:
    """Look for masked gradients at the first points of every run.

    More steps (4 times as many) must not break many more; nor must another random start, nor queries without
    gradients; gradients must not vanish; and a radius that allows any input must leave nothing.

    Args:
        runs: trained.
        points: those that were attacked.
        eps: (R,) radii.
        rows: the runs.
        box: whether attacks keep to the data's domain.
        found: what the attacks left of the points, a run each.
    """
    p = runs.recipe.attack.p
    few = Points(points.x[:, :CHECKED], points.y[:, :CHECKED], points.of_run)
    least = torch.stack([one.least[:CHECKED] for one in found])
    left = (least > 0).double().mean(-1)
    weak = runs.attacked(APGD(p, steps=100, box=box), few, eps, rows)
    again = torch.minimum(
        least, runs.attacked_among(APGD(p, steps=400, restarts=2, box=box), few, eps, rows, least > 0)
    )
    domain = runs.recipe.domain if box else None
    x, y = few.of(rows)
    size = x.abs().amax() if domain is None else x.new_tensor(domain[1] - domain[0])
    reach = size * (1 if p == math.inf else x.shape[-1] ** (1 / p)) * (1 if domain is not None else 100)
    wide = runs.attacked(APGD(p, steps=100, box=box), few, torch.full_like(eps, float(reach)), rows)
    numbers = {
        "flat": _flat(runs, rows, x, y).double().mean(-1),
        "more_steps": left - (again > 0).double().mean(-1),
        "one_start": (weak > 0).double().mean(-1) - left,
        "any_input": (wide > 0).double().mean(-1),
    }
    if p == math.inf:
        blind = runs.attacked(Square(queries=500, box=box), few, eps, rows)
        numbers["blind_beats_gradients"] = ((blind <= 0) & (weak > 0)).double().mean(-1)
    said = {
        "flat": "of the points have no gradient at all: attacks by gradients cannot move them",
        "more_steps": "of the points break only with four times the steps: the attacks have not converged",
        "one_start": "of the points are saved from one start of APGD, and not from the whole ensemble",
        "any_input": "of the points survive a radius that allows any input: attacks do not see where to go, or the "
        "answer is constant",
        "blind_beats_gradients": "of the points are broken without gradients and not by APGD: gradients are masked",
    }
    answers = []
    for k in range(len(rows)):
        own = {name: float(value[k]) for name, value in numbers.items()}
        # one start in many is what an ensemble is for: only much of it is a sign
        bars = {"one_start": 10 * _MUCH}
        answers.append(Masking(own, [f"{100 * v:.1f} % {said[n]}" for n, v in own.items() if v > bars.get(n, _MUCH)]))
    return answers


def _flat(runs: Runs, rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Which points (len(rows), n) have a margin without gradient."""

    def one(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        params = runs.recipe.layout.unflatten(theta)
        gradient: Tensor = torch.func.grad(lambda z: margin(runs.recipe.model.apply(params, z), y).sum())(x)
        return (gradient == 0).all(-1)

    flat: Tensor = vmap(one)(runs.theta[rows], x, y)
    return flat
