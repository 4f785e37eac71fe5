"""The least perturbation of each point: the distance to another label, attacked from above, certified from below.

Robust accuracy at every radius follows from it (:func:`curve`), so one answer serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.fab import FAB
from robust_erm.core.linalg import own_class
from robust_erm.core.marked import replaced, taken
from robust_erm.core.norms import Box, Norm
from robust_erm.evaluation import certificates
from robust_erm.evaluation.strong import Tick
from robust_erm.oracles.boundary import across, lengths, nearest, shortest
from robust_erm.oracles.certified import STEPS
from robust_erm.training import stacked
from robust_erm.training.attacked import filling
from robust_erm.training.points import FEW, Points
from robust_erm.training.step import Recipe

Array = npt.NDArray[np.float64]
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
    certified: Array | None = None

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
    points: Points,
    train: Points,
    rows: Tensor,
    search: FAB,
    box: Box,
    certify: bool,
    tick: Tick = lambda _: None,
) -> list[Distances]:
    """Both distances of ``points``, of the runs ``rows``, in float64. On a device they are searched at once.

    Args:
        recipe: of the runs.
        theta: (R, P), of all runs.
        points: of all runs.
        train: those among which starts of another label are looked for.
        rows: the runs that are asked for.
        search: norm, steps and targets of the search.
        box: that x' must stay in, or None.
        certify: whether to look for lower bounds, where there are any.
        tick: told how far it is.

    Raises:
        ArithmeticError: a certified distance is above an attacked one.
    """
    if theta.device.type == "cpu" and len(rows) > 1:
        each = (distances(recipe, theta, points, train, row, search, box, certify, tick) for row in rows.unsqueeze(-1))
        return [found for (found,) in each]
    theta, norm, certify = theta[rows].double(), Norm(search.p), certify and certificates.certifiable(recipe)
    (xs, ys), (others, labels) = points.of(rows), (z.double() for z in train.of(rows))
    found: list[tuple[Tensor, ...]] = []
    n, step = xs.shape[1], _at_once(recipe, xs, others)
    for k in range(0, n, step):
        tick(f"distances of {k}/{n} points")
        x, y = xs[:, k : k + step].double(), ys[:, k : k + step].double()
        starts = across(x, y, others, labels, norm)
        high = lengths(norm, _nearest(recipe, theta, x, y, search, starts, box))
        found.append((high, certified(recipe, theta, x, y, high, box)) if certify else (high,))
    kept = [torch.cat(part, dim=1).cpu().numpy() for part in zip(*found, strict=True)]
    return [Distances(*(part[i] for part in kept)) for i in range(len(theta))]


def _at_once(recipe: Recipe, x: Tensor, others: Tensor) -> int:
    """Points of all runs that are searched together: few on a CPU, as many as fill a device."""
    if x.device.type == "cpu":
        return FEW
    return max(1, int(filling(recipe, x, 8, 8 * others.shape[1])))


def _nearest(
    recipe: Recipe, theta: Tensor, x: Tensor, y: Tensor, search: FAB, starts: list[Tensor], box: Box
) -> Tensor:
    if stacked.fits(recipe, search):
        own = stacked.victim(recipe, theta, x, y, box)
        step = shortest(own, search.p, search.steps, [start.flatten(0, 1) for start in starts], search.targets)
        return step.reshape(x.shape)

    def one(theta: Tensor, x: Tensor, y: Tensor, *starts: Tensor) -> Tensor:
        outputs = partial(recipe.model.apply, recipe.layout.unflatten(theta))
        return nearest(outputs, x, y, search.p, search.steps, starts, search.targets, box)

    if len(theta) == 1:
        return one(theta[0], x[0], y[0], *(start[0] for start in starts)).unsqueeze(0)
    found: Tensor = vmap(one)(theta, x, y, *starts)
    return found


def certified(recipe: Recipe, theta: Tensor, x: Tensor, y: Tensor, attacked: Tensor, box: Box) -> Tensor:
    """Radii (n,) within which no point has another label; at most ``attacked`` (n,), and 0 where that is 0.

    Exact for models linear in their input without a box. Else the largest radius at which the margins are certified,
    by bisection from ``attacked``: for linear models in the box exact where p = inf, for nets with one hidden ReLU
    layer a lower bound. All of it may have a leading axis of runs.

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
    w = None if box is not None else certificates.predictors(recipe, theta)

    def of_some(order: Tensor) -> Tensor:
        own = taken(x, order), taken(y, order)
        if w is None:
            return _halved(recipe, theta, *own, taken(attacked, order), box)
        return _linear(w, *own, recipe.attack.p)

    low = replaced(torch.zeros_like(attacked), attacked > 0, of_some)
    if bool((low > attacked * (1 + _ROUNDING)).any()):
        raise ArithmeticError("a label changes within its certified distance: a certificate or an attack is wrong")
    return torch.minimum(low, attacked)


def _linear(w: Tensor, x: Tensor, y: Tensor, p: float) -> Tensor:
    """``min_k <w_y - w_k, x> / ||w_y - w_k||_*`` (..., n), or ``y <w, x> / ||w||_*``: w is (..., C, d).

    Margins less 100 times their rounding, as :func:`robust_erm.evaluation.certificates.certified` has them.
    """
    classes = w.shape[-2]
    slopes = (y.unsqueeze(-1) * w).unsqueeze(-2) if classes == 1 else certificates.differences(w, y)
    size = (slopes.abs() * x.abs().unsqueeze(-2)).sum(-1)
    margins = (slopes * x.unsqueeze(-2)).sum(-1) - certificates.rounding(size)
    found = torch.where(margins > 0, margins / Norm(p).dual.value(slopes), 0.0)
    return found.amin(-1) if classes == 1 else found.masked_fill(own_class(classes, y), math.inf).amin(-1)


def _halved(recipe: Recipe, theta: Tensor, x: Tensor, y: Tensor, attacked: Tensor, box: Box) -> Tensor:
    """The largest certified radii (..., n) by bisection; inf where nothing in the box changes a label.

    First a radius just beyond the attacked one is tried; where there is none, one that holds the whole box, or 100
    times the length of x. What is certified there has nothing left to halve. Then CROWN's largest radius is found, and
    alpha-CROWN's, which costs a hundred times as much, where it certifies more by 1/64 of the way to the attacked one.
    """
    p, attained = recipe.attack.p, attacked.isfinite()
    far = Norm(p).value(_FAR * x if box is None else torch.full_like(x, box[1] - box[0]))
    most = torch.where(attained, attacked * (1 + 2 * _ROUNDING), far)

    def bisected(x: Tensor, y: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            sure = certificates.certified(recipe, theta, x, y, middle, box, steps)[0] > 0
            low, high = torch.where(sure, middle, low), torch.where(sure, high, middle)
        return low

    def holds(eps: Tensor) -> Tensor:
        return certificates.certified(recipe, theta, x, y, eps, box)[0] > 0

    beyond = holds(most)
    low = bisected(x, y, torch.zeros_like(most), most, 0)
    more = low + (most - low) / 64

    def raised(some: Tensor) -> Tensor:
        return bisected(taken(x, some), taken(y, some), taken(more, some), taken(most, some), STEPS)

    low = replaced(low, holds(more), raised)
    whole = torch.full_like(most, math.inf) if box is not None else most
    return torch.where(beyond, torch.where(attained, most, whole), low)
