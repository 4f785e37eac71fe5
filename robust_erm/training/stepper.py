"""One step of R runs: a pure function of tensors, which a graph can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.core.devices import readable
from robust_erm.schedules.schedule import Layered, Point
from robust_erm.training.mapped import Group, loss_and_grad_of
from robust_erm.training.status import RUNNING, judge
from robust_erm.training.step import Batch, Recipe, move, native


class Carry(NamedTuple):
    """What a step changes: its number t (), and of R runs what :class:`robust_erm.training.runs.Runs` says."""

    t: Tensor
    theta: Tensor
    best: Tensor
    best_loss: Tensor
    state: Any
    status: Tensor
    stopped_at: Tensor


@dataclass(frozen=True)
class Stepper:
    """All that a step of some runs looks at and does not change.

    Args:
        recipe: their common code.
        net: a kernel that gives losses and gradients, or None.
        batch: the points of all runs.
        groups: the runs by the attack that they need.
        target: (R,) log loss at which a run has converged.
        most: points at once.
        accumulate: a kernel that accumulates gradients, or None.
    """

    recipe: Recipe
    net: Any
    batch: Batch
    groups: list[Group]
    target: Tensor
    most: int | None = None
    accumulate: Any = None

    def on(self, x: Tensor, y: Tensor) -> Stepper:
        """The same on other points, x (R, n, d) and y (R, n)."""
        return replace(self, groups=[group.on(x, y) for group in self.groups])

    def loss_and_grad(self, theta: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Worst-case log losses (R,) and (sub)gradients (R, P) of theta (R, P)."""
        if self.net is not None:
            found: tuple[Tensor, Tensor] = self.net.loss_and_grad(theta, self.groups[0].batch)
            return found
        return loss_and_grad_of(theta, self.groups, noise, self.most)

    def step(self, now: Carry, noise: Tensor, more: float | None = None) -> Carry:
        """One step; on a CPU, work that changes nothing is left out.

        Args:
            now: before it.
            noise: of the attack, (R, k, n, d).
            more: of a mini-batch, added to its log loss, which ends no run; None: the loss is that of all points.
        """
        found = Point(now.theta, *self.loss_and_grad(now.theta, noise))
        if more is not None:
            found = found._replace(log_loss=found.log_loss + more)
        point, after, state = self._moved(now.t.to(now.theta.dtype), found, now.state, self.batch)
        status, stopped_at = judge(point.log_loss, point.grad, self.target, now.t, now.status, now.stopped_at)
        best, best_loss = now.best, now.best_loss
        if more is None:
            better = (point.log_loss < best_loss) & (now.status == RUNNING)
            best, best_loss = _chosen(better, (point.theta, point.log_loss), (best, best_loss))
        # a step is undone only to a point that had not converged: theta is point.theta where a run ends
        (theta,) = _chosen(status == RUNNING, (after,), (now.theta,))
        return Carry(now.t + 1, theta, best, best_loss, state, status, stopped_at)

    @cached_property
    def _moved(self) -> Moved:
        return _moved_by(self.recipe, self.accumulate)


Moved = Callable[[Tensor, Point, Any, Batch], tuple[Point, Tensor, Any]]


def _moved_by(recipe: Recipe, accumulate: Any) -> Moved:
    """:func:`robust_erm.training.step.move` of R runs; of one without vmap, which takes longer than its sums."""
    if native(recipe.optimizer):
        slow, fast = partial(move, recipe), partial(move, recipe, accumulate=accumulate)
        return slow if accumulate is None else lambda *given: (fast if readable(given[0]) else slow)(*given)

    products = isinstance(recipe.optimizer.schedule, Layered)  # whose rounding is that of a batch only in one

    def moved(t: Tensor, found: Point, state: Any, batch: Batch) -> tuple[Point, Tensor, Any]:
        if len(found.theta) > 1 or products:
            mapped: tuple[Point, Tensor, Any] = vmap(lambda *rest: move(recipe, t, *rest))(found, state, batch)
            return mapped
        numbers = {path: value[0] for path, value in batch.numbers.items()}
        only = Batch(batch.x, batch.y, batch.eps[0], batch.bound[0], numbers)
        point, after, state = move(recipe, t, Point(*(a[0] for a in found)), _each(state, lambda a: a[0]), only)
        return Point(*(a.unsqueeze(0) for a in point)), after.unsqueeze(0), _each(state, lambda a: a.unsqueeze(0))

    return moved


def _each(state: Any, of: Callable[[Tensor], Tensor]) -> Any:
    """``of`` every tensor of a state: a tensor, or a dict of states."""
    return {name: _each(part, of) for name, part in state.items()} if isinstance(state, dict) else of(state)


def _chosen(rows: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """``new`` (R, ...) in the rows that are true, else ``old``; on a CPU without a copy where all agree."""
    if readable(rows):
        count = sum(rows.tolist())
        if count in (0, len(rows)):
            return new if count else old
    return tuple(torch.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))
