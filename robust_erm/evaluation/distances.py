"""The least perturbation of each point: the distance to another label, attacked from above, certified from below.

Robust accuracy at every radius follows from it (:func:`curve`), so one answer serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robust_erm.attacks.fab import FAB
from robust_erm.core.linalg import own_class
from robust_erm.core.norms import Norm
from robust_erm.evaluation import certificates
from robust_erm.evaluation.strong import Tick
from robust_erm.oracles.boundary import across, lengths, nearest
from robust_erm.oracles.certified import STEPS
from robust_erm.training.attacked import FEW
from robust_erm.training.step import Recipe, predictor

Array = npt.NDArray[np.float64]
Box = tuple[float, float] | None
Labelled = Sequence[Tensor]  # x (n, d) and y (n,)
_HALVINGS = 16  # of the interval from 0 to the attacked distance
_ROUNDING = 1e-6  # by so much of itself an attacked distance may lie below a certified one
_FAR = 100  # times the length of a point: no certificate is looked for beyond
_SHOWN = {"least": 0.0, "5": 0.05, "median": 0.5, "95": 0.95}


@dataclass(frozen=True)
class Distances:
    """Of n points to the nearest of another label, in the threat's norm; a margin of 0 or less is another label.

    Args:
        attacked: (n,) of the nearest that was found; 0 where the label is wrong already, inf where none was found.
        certified: (n,) within which there is none; 0 where none could be certified. None without certificates.
    """

    attacked: Array
    certified: Array | None

    def arrays(self, part: str) -> dict[str, Array]:
        """``<part>_distance`` and, where there are certificates, ``<part>_certified_distance``."""
        return {f"{part}_{name}distance": values for name, values in self._both()}

    def numbers(self, part: str) -> dict[str, float | None]:
        """Least, median, 5th and 95th percentile over the points, ``<part>_distance_median``; None where infinite."""
        return {
            f"{part}_{name}distance_{shown}": quantile(values, share)
            for name, values in self._both()
            for shown, share in _SHOWN.items()
        }

    def _both(self) -> Iterator[tuple[str, Array]]:
        yield "", self.attacked
        if self.certified is not None:
            yield "certified_", self.certified


def curve(distances: npt.ArrayLike, eps: npt.ArrayLike) -> Array:
    """Robust accuracy at every radius: the share (k,) of ``distances`` (n,) above each of ``eps`` (k,).

    Of attacked distances it is an upper bound, what attacks leave, of certified ones a lower bound. ::

        kept = np.load("<run>/evaluations/<name>.npz")
        high, low = (curve(kept[name], eps) for name in ("test_distance", "test_certified_distance"))
    """
    values = np.sort(np.asarray(distances, dtype=float))
    above = len(values) - np.searchsorted(values, np.asarray(eps, dtype=float), side="right")
    return np.asarray(above / len(values))


def quantile(values: Array, share: float) -> float | None:
    """Between the two values next to it, in proportion; None where infinite."""
    low, high = (float(np.quantile(values, share, method=side)) for side in ("lower", "higher"))
    if not math.isfinite(high):
        return low if low == high and math.isfinite(low) else None
    return float(np.quantile(values, share))


def distances(
    recipe: Recipe,
    theta: Tensor,
    points: Labelled,
    train: Labelled,
    search: FAB,
    box: Box,
    certify: bool,
    tick: Tick = lambda _: None,
) -> Distances:
    """Both distances of ``points``, of one run, in float64.

    Args:
        recipe: of the run.
        theta: (P,).
        points: x (n, d) and y (n,).
        train: those among which starts of another label are looked for.
        search: norm, steps and targets of the search.
        box: that x' must stay in, or None.
        certify: whether to look for lower bounds, where there are any.
        tick: told how far it is.

    Raises:
        ArithmeticError: a certified distance is above an attacked one.
    """
    theta, norm = theta.double(), Norm(search.p)
    xs, ys, others, labels = (z.double() for z in (*points, *train))
    outputs, bounded = partial(recipe.model.apply, recipe.layout.unflatten(theta)), certificates.certifiable(recipe)
    found: list[tuple[Tensor, ...]] = []
    for k in range(0, len(xs), FEW):
        tick(f"distances of {k}/{len(xs)} points")
        x, y = xs[k : k + FEW], ys[k : k + FEW]
        starts = across(x, y, others, labels, norm)
        step = nearest(outputs, x, y, search.p, search.steps, starts, search.targets, box)
        high = lengths(norm, step)
        found.append((high, certified(recipe, theta, x, y, high, box)) if certify and bounded else (high,))
    kept = [torch.cat(part).cpu().numpy() for part in zip(*found, strict=True)]
    return Distances(kept[0], kept[1] if len(kept) > 1 else None)


def certified(recipe: Recipe, theta: Tensor, x: Tensor, y: Tensor, attacked: Tensor, box: Box) -> Tensor:
    """Radii (n,) within which no point has another label; at most ``attacked`` (n,), and 0 where that is 0.

    Exact for models linear in their input without a box. Else the largest radius at which the margins are certified,
    by bisection from ``attacked``: for linear models in the box exact where p = inf, for nets with one hidden ReLU
    layer a lower bound.

    Args:
        recipe: certifiable.
        theta: (P,), float64.
        x: (n, d).
        y: (n,).
        attacked: distances at which another label was found, or inf.
        box: that x' must stay in, or None.

    Raises:
        ArithmeticError: more is certified than ``attacked`` allows.
    """
    w, right = predictor(recipe, theta), attacked > 0
    low = torch.zeros_like(attacked)
    if w is not None and box is None:
        low[right] = _linear(w, x[right], y[right], recipe.attack.p)
    elif bool(right.any()):
        low[right] = _halved(recipe, theta, x[right], y[right], attacked[right], box)
    if bool((low > attacked * (1 + _ROUNDING)).any()):
        raise ArithmeticError("a label changes within its certified distance: a certificate or an attack is wrong")
    return torch.minimum(low, attacked)


def _linear(w: Tensor, x: Tensor, y: Tensor, p: float) -> Tensor:
    """``min_k <w_y - w_k, x> / ||w_y - w_k||_*`` (n,), or ``y <w, x> / ||w||_*``: w is (C, d) or (d,).

    Margins less 100 times their rounding, as :func:`robust_erm.evaluation.certificates.certified` has them.
    """
    if w.ndim == 1:
        slopes, own = (y.unsqueeze(-1) * w).unsqueeze(1), torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
    else:
        slopes, own = w[y.long()].unsqueeze(1) - w, own_class(len(w), y)
    size = (slopes.abs() * x.abs().unsqueeze(1)).sum(-1)
    margins = (slopes * x.unsqueeze(1)).sum(-1) - certificates.rounding(size)
    found = torch.where(margins > 0, margins / Norm(p).dual.value(slopes), 0.0)
    return found.masked_fill(own, math.inf).amin(-1)


def _halved(recipe: Recipe, theta: Tensor, x: Tensor, y: Tensor, attacked: Tensor, box: Box) -> Tensor:
    """The largest certified radii (n,) by bisection; inf where nothing in the box changes a label.

    First a radius just beyond the attacked one is tried; where there is none, one that holds the whole box, or 100
    times the length of x. What is certified there has nothing left to halve. Then CROWN's largest radius is found, and
    alpha-CROWN's, which costs a hundred times as much, where it certifies more by 1/64 of the way to the attacked one.
    """
    p, attained = recipe.attack.p, attacked.isfinite()
    far = Norm(p).value(_FAR * x if box is None else torch.full_like(x, box[1] - box[0]))
    most = torch.where(attained, attacked * (1 + 2 * _ROUNDING), far)
    every = torch.arange(len(x), device=x.device)

    def holds(rows: Tensor, eps: Tensor, steps: int) -> Tensor:
        return certificates.certified(recipe, theta, x[rows], y[rows], eps, box, steps)[0] > 0

    def bisected(rows: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            sure = holds(rows, middle, steps)
            low, high = torch.where(sure, middle, low), torch.where(sure, high, middle)
        return low

    beyond = holds(every, most, STEPS)
    low = bisected(every, torch.zeros_like(most), most, 0)
    more = low + (most - low) / 64
    rows = holds(every, more, STEPS).nonzero().squeeze(-1)
    if len(rows):
        low[rows] = bisected(rows, more[rows], most[rows], STEPS)
    whole = torch.full_like(most, math.inf) if box is not None else most
    return torch.where(beyond, torch.where(attained, most, whole), low)
