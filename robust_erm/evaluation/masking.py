"""Signs that attacks by gradients see less than there is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.apgd import APGD
from robust_erm.attacks.square import Square
from robust_erm.core.margins import margin
from robust_erm.evaluation.strong import Found
from robust_erm.training import stacked
from robust_erm.training.attacked import attacked, attacked_among
from robust_erm.training.points import Points
from robust_erm.training.runs import Runs

CHECKED = 200  # points that the signs of masked gradients are looked for at
_MUCH = 0.01  # share of points from which a difference is worth a warning


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
    weak = attacked(runs, APGD(p, steps=100, box=box), few, eps, rows)
    again = torch.minimum(
        least, attacked_among(runs, APGD(p, steps=400, restarts=2, box=box), few, eps, rows, least > 0)
    )
    domain = runs.recipe.domain if box else None
    x, y = few.of(rows)
    size = x.abs().amax() if domain is None else x.new_tensor(domain[1] - domain[0])
    reach = size * (1 if p == math.inf else x.shape[-1] ** (1 / p)) * (1 if domain is not None else 100)
    wide = attacked(runs, APGD(p, steps=100, box=box), few, torch.full_like(eps, float(reach)), rows)
    numbers = {
        "flat": _flat(runs, rows, x, y).double().mean(-1),
        "more_steps": left - (again > 0).double().mean(-1),
        "one_start": (weak > 0).double().mean(-1) - left,
        "any_input": (wide > 0).double().mean(-1),
    }
    if p == math.inf:
        blind = attacked(runs, Square(queries=500, box=box), few, eps, rows)
        numbers["blind_beats_gradients"] = ((blind <= 0) & (weak > 0)).double().mean(-1)
    said = {
        "flat": "of the points have no gradient at all: attacks by gradients cannot move them",
        "more_steps": "of the points break only with four times the steps: the attacks have not converged",
        "one_start": "of the points are saved from one start of APGD, and not from the whole ensemble",
        "any_input": "of the points survive a radius that allows any input: attacks do not see where to go, or the "
        "answer is constant",
        "blind_beats_gradients": "of the points are broken without gradients and not by APGD: gradients are masked",
    }
    answers, shares = [], {name: value.tolist() for name, value in numbers.items()}
    for k in range(len(rows)):
        own = {name: share[k] for name, share in shares.items()}
        # one start in many is what an ensemble is for: only much of it is a sign
        bars = {"one_start": 10 * _MUCH}
        answers.append(Masking(own, [f"{100 * v:.1f} % {said[n]}" for n, v in own.items() if v > bars.get(n, _MUCH)]))
    return answers


def _flat(runs: Runs, rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Which points (len(rows), n) have a margin without gradient."""
    if runs.compiled and runs.recipe.stack is not None:
        seen = stacked.victim(runs.recipe, runs.theta[rows], x, y, None)
        return (seen.margin_gradient(seen.x) == 0).all(-1).reshape(y.shape)

    def one(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        params = runs.recipe.layout.unflatten(theta)
        gradient: Tensor = torch.func.grad(lambda z: margin(runs.recipe.model.apply(params, z), y).sum())(x)
        return (gradient == 0).all(-1)

    flat: Tensor = vmap(one)(runs.theta[rows], x, y)
    return flat
