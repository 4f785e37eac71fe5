"""The run axis: R runs of one recipe, trained together.

Every function of :mod:`robust_erm.training.step` is mapped over the leading axis of R runs. Random numbers
are drawn outside the map, from one generator per run, so that no run depends on its neighbours;
a run that has ended is frozen at once and leaves the computation at the next call of ``advance``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from robust_erm.attacks.attack import Attack
from robust_erm.core.errors import first_line
from robust_erm.core.fields import substituted
from robust_erm.core.memory import keep_freed
from robust_erm.core.streams import torch_stream
from robust_erm.optimizers.optimizer import first_state
from robust_erm.training import kernels, stacked
from robust_erm.training.attacked import attacked_outputs, noise_of, pieces
from robust_erm.training.graphs import Graph, Inputs, Step
from robust_erm.training.kernels import plan as kernel_plan
from robust_erm.training.mapped import Group, loss_and_grad_of, parts, pooled, summed
from robust_erm.training.order import Order
from robust_erm.training.points import Batches, Points
from robust_erm.training.status import DIVERGED, MAX_STEPS, RUNNING, judge
from robust_erm.training.step import Batch, Recipe, predictor
from robust_erm.training.stepper import Carry, Stepper

log = logging.getLogger("robust_erm")

Shapes = tuple[torch.Size, ...]

AHEAD = 2**26  # bytes of random numbers that a device is sent at once


@dataclass
class Runs:
    """State of R runs that are all at step t.

    Args:
        recipe: their common code.
        train: training points.
        eps: (R,) radii.
        numbers: (R,) each; fields of the optimizer that differ between the runs, by dotted path.
        theta: (R, P) parameters.
        seeds: of every run, for its noise.
        target: (R,) log loss at which a run has converged; -inf for never.
        steps: the last step.
        order: of the training points, for mini-batches; None where every step sees all.
        graphs: take a step as one CUDA graph, where one can be made of it.
        most: points at once in a step, where all need too much memory; rounding differs, nothing else.
        compiled: use a compiled kernel, or :mod:`robust_erm.training.stacked`, where there is one for the recipe; else
            everything is mapped.
    """

    recipe: Recipe
    train: Points
    eps: Tensor
    theta: Tensor
    seeds: list[int]
    target: Tensor
    steps: int
    numbers: dict[str, Tensor] = field(default_factory=dict)
    compiled: bool = True
    graphs: bool = False
    most: int | None = None
    order: Order | None = None
    t: int = 0
    bound: Tensor = field(init=False)
    state: dict[str, Any] = field(init=False)
    best_theta: Tensor = field(init=False)
    best_log_loss: Tensor = field(init=False)
    status: Tensor = field(init=False)
    stopped_at: Tensor = field(init=False)
    generators: list[torch.Generator] = field(init=False)
    drawn: list[Tensor] = field(init=False)  # states of the generators at step t
    draws: bool = field(init=False)
    kernel: Any = field(init=False)
    net: Any = field(init=False)
    made: tuple[list[int], dict[Shapes, Graph]] = field(init=False)  # graphs: of which runs, on which inputs

    def __post_init__(self) -> None:
        keep_freed()

        def init(theta: Tensor, numbers: dict[str, Tensor]) -> dict[str, Any]:
            optimizer = substituted(self.recipe.optimizer, numbers)
            state = first_state(optimizer, theta, self.recipe.layout)
            return {"optimizer": state, "schedule": optimizer.schedule.init(theta)}

        fresh = vmap(init)(self.theta, self.numbers)
        self.state = pytree.tree_map(lambda a: a.clone(memory_format=torch.contiguous_format), fresh)
        compiled = self.compiled and self.theta.device.type == "cpu"
        whole = compiled and self.order is None
        self.kernel = kernels.whole_steps(self.recipe, self.train.x, self.train.y) if whole else None
        self.net = kernels.for_net(self.recipe, self.recipe.attack, self.theta.dtype) if compiled else None
        self.accumulate = kernels.for_moments(self.recipe.optimizer, self.theta.dtype) if compiled else None
        if self.kernel is not None:
            self.state["kernel"] = self.kernel.init(self.theta, self.train.of_run.tolist())
        self.bound, self.made = self.train.bound, ([], {})
        self.best_theta = self.theta.clone()
        self.best_log_loss = torch.full_like(self.eps, torch.inf, dtype=torch.float64)
        self.status = torch.full_like(self.eps, RUNNING, dtype=torch.int8)
        self.stopped_at = torch.full_like(self.eps, -1, dtype=torch.int64)
        self.generators = self.generators_of("attack")
        self.drawn = [generator.get_state() for generator in self.generators]
        self.draws = bool(self.recipe.attack.draw(1, self.train.x.shape[-1], torch.Generator()).numel())

    @property
    def running(self) -> Tensor:
        """Indices of the runs that have not ended."""
        return (self.status == RUNNING).nonzero().squeeze(-1)

    def _batch(self, rows: Tensor, points: tuple[Tensor, Tensor] | None = None) -> Batch:
        """What the rows train on: ``points``, or the whole training set."""
        numbers = {path: value[rows] for path, value in self.numbers.items()}
        x, y = points or self.train.of(rows)
        return Batch(x, y, self.eps[rows], self.bound[rows], numbers)

    def _points(self, rows: Tensor) -> Callable[[int], tuple[Tensor, Tensor]]:
        """What gives the points of step t, x (len(rows), b, d) and y."""
        order = self.order
        if order is None:
            whole = self.train.of(rows)
            return lambda _: whole
        sets, seeds = self.train.of_run[rows], [self.seeds[i] for i in rows.tolist()]
        if len(set(zip(sets.tolist(), seeds, strict=True))) > 1:
            return Batches(self.train, order, sets, seeds).at
        one = Batches(self.train, order, sets[:1], seeds[:1])  # a view, not a copy, where they share all

        def shared(t: int) -> tuple[Tensor, Tensor]:
            x, y = one.at(t)
            return x.expand(len(sets), *x.shape[1:]), y.expand(len(sets), *y.shape[1:])

        return shared

    def groups(self, rows: Tensor, batch: Batch | None = None) -> list[Group]:
        """The rows by the attack that they need, on ``batch`` or the whole set; one for all where that is one."""
        recipe, batch = self.recipe, batch or self._batch(rows)
        whole = [(slice(None), recipe.attack)]
        needed = whole if self.net is not None else parts(recipe.attack, self.eps[rows])
        return [
            Group(at, batch.of(at) if len(needed) > 1 else batch, replace(recipe, attack=attack), self.compiled)
            for at, attack in needed
        ]

    def noise(self, attack: Attack, rows: list[int], n: int, generators: list[torch.Generator]) -> Tensor:
        """(len(rows), k, n, d): drawn on the CPU from every run's own generator."""
        return self._drawn(attack, rows, n, generators).to(self.theta)

    def _drawn(self, attack: Attack, rows: list[int], n: int, generators: list[torch.Generator]) -> Tensor:
        d = self.train.x.shape[-1]
        return torch.stack([attack.draw(n, d, generators[i]) for i in rows])

    def _noises(self, rows: list[int], sizes: list[int]) -> Iterator[Tensor]:
        """:meth:`noise` of step after step, of batches of these sizes; a device is sent that of many at once."""
        attack, given = self.recipe.attack, self.generators
        if not self.draws:  # what draws nothing once draws nothing again
            nothing = {n: self.noise(attack, rows, n, given) for n in set(sizes)}
            yield from (nothing[n] for n in sizes)
            return
        if self.theta.device.type == "cpu":
            yield from (self.noise(attack, rows, n, given) for n in sizes)
            return
        ahead = max(1, AHEAD // (len(rows) * self._drawn(attack, [0], max(sizes), [torch.Generator()]).nbytes))
        for k in range(0, len(sizes), ahead):
            some = [self._drawn(attack, rows, n, given).to(self.theta.dtype) for n in sizes[k : k + ahead]]
            flat = torch.cat([noise.flatten() for noise in some])
            flat = flat.pin_memory() if self.theta.is_cuda else flat
            there = torch.split(flat.to(self.theta.device, non_blocking=True), [noise.numel() for noise in some])
            yield from (part.view(noise.shape) for part, noise in zip(there, some, strict=True))

    def advance(self, n: int) -> None:
        """Take n steps, or fewer where ``steps`` comes first; runs that end are frozen on the way.

        With mini-batches a run ends in :meth:`look` only, or where a number is not finite.
        """
        rows = self.running
        if not len(rows):
            return
        n = min(n, self.steps - self.t)
        if self.kernel is not None:
            self._advance_compiled(rows, n)
            return
        taken = [self._advance(some, n) for some in self._portions(rows)]
        for commit in taken:  # all at once: whoever is interrupted before has taken none of these steps
            commit()
        self.t += n
        self.drawn = [generator.get_state() for generator in self.generators] if self.draws else self.drawn
        if self.t == self.steps:
            self.look()

    def _portions(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The rows, as many at once as a CPU's cache holds parameters of: they know nothing of one another."""
        by_products = self.net is not None or (self.compiled and stacked.fits(self.recipe, self.recipe.attack))
        if self.theta.device.type != "cpu" or not by_products:
            return (rows,)
        return torch.split(rows, max(1, stacked.CACHE // (self.theta.shape[1] * self.theta.element_size())))

    def _advance(self, rows: Tensor, n: int) -> Callable[[], None]:
        """Take n steps of some runs; what is given back writes where they came to."""
        points_at = self._points(rows)
        now, stepper = self.begun(rows, points_at(self.t))
        end, order = self.t + n, self.order
        steps = range(self.t, end + (end == self.steps and order is None))
        index, whole = rows.tolist(), self.train.x.shape[-2]
        noises = self._noises(index, [whole if order is None else order.many(t) for t in steps])
        given = ((next(noises), *(() if order is None else points_at(t))) for t in range(self.t, end))
        now = self._stepped(stepper, index, now, given)
        theta, status, stopped_at = now.theta, now.status, now.stopped_at
        if end == self.steps and order is None:
            log_loss, grad = stepper.loss_and_grad(theta, next(noises))
            status, stopped_at = judge(log_loss, grad, stepper.target, now.t, status, stopped_at)
            stopped_at = torch.where(status == RUNNING, end, stopped_at)
            status = torch.where(status == RUNNING, MAX_STEPS, status)
        theta = torch.where((status == DIVERGED).unsqueeze(-1), now.best, theta)

        def commit() -> None:
            self.theta[rows], self.best_theta[rows], self.best_log_loss[rows] = theta, now.best, now.best_loss.double()
            self.status[rows], self.stopped_at[rows] = status.to(torch.int8), stopped_at
            pytree.tree_map(lambda whole, part: whole.index_copy_(0, rows, part), self.state, now.state)

        return commit

    def begun(self, rows: Tensor, points: tuple[Tensor, Tensor]) -> tuple[Carry, Stepper]:
        """Where steps of some runs on these points start from, and what takes them."""
        batch, target = self._batch(rows, points), self.target[rows]
        if self.order is not None:
            target = torch.full_like(target, -math.inf)  # of the whole set's loss, not of a batch's
        now = Carry(
            torch.full((), self.t, dtype=torch.int64, device=self.theta.device),
            self.theta[rows],
            self.best_theta[rows],
            self.best_log_loss[rows],
            pytree.tree_map(lambda a: a[rows], self.state),
            self.status[rows],
            self.stopped_at[rows],
        )
        groups = self.groups(rows, batch)
        return now, Stepper(self.recipe, self.net, batch, groups, target, self.most, self.accumulate)

    def _stepped(self, stepper: Stepper, index: list[int], now: Carry, given: Iterable[Inputs]) -> Carry:
        """A step for each of what is given; by graphs where that is asked for and they can be made."""

        def step(now: Carry, noise: Tensor, *points: Tensor) -> Carry:
            if not points:
                return stepper.step(now, noise)
            return stepper.on(*points).step(now, noise, self._of_all(points[1].shape[-1]))

        for _, some in groupby(given, _shapes):
            now = self._of_one_size(step, index, now, some)
        return now

    def _of_one_size(self, step: Step, index: list[int], now: Carry, given: Iterator[Inputs]) -> Carry:
        first = next(given)
        graph, given = self._graph(step, index, now, first) if self.graphs else None, chain([first], given)
        return reduce(lambda at, inputs: step(at, *inputs), given, now) if graph is None else graph.run(now, given)

    def _graph(self, step: Step, index: list[int], now: Carry, first: Inputs) -> Graph | None:
        """That of steps of these runs on such inputs, made where there is none yet; None where it cannot be."""
        if self.made[0] != index:
            self.made = index, {}
        known, shapes = self.made[1], _shapes(first)
        try:
            known[shapes] = known.get(shapes) or Graph(step, now, first)
            return known[shapes]
        except RuntimeError as error:
            self.graphs, self.made = False, ([], {})  # the memory of the others is free
            log.warning("a step of this pack cannot be a CUDA graph, and is taken eagerly: %s", first_line(error))
            return None

    def _of_all(self, b: int) -> float:
        """Log of what makes the loss of b points an estimate of that of all: for a sum, n / b."""
        assert self.order is not None
        return math.log(self.order.n / b) if summed(self.recipe) else 0.0

    @property
    def looks(self) -> int | None:
        """Every so many steps :meth:`look` must be called: at the ends of epochs, where a loss may end a run."""
        return None if self.order is None or not bool((self.target > -math.inf).any()) else self.order.steps

    def look(self) -> None:
        """With mini-batches: judge the running runs by their loss on the whole training set, and keep the best."""
        rows = self.running
        if self.order is None or not len(rows):
            return
        log_loss, theta = self.log_losses(rows), self.theta[rows]
        before = self.status[rows], self.stopped_at[rows]
        status, stopped_at = judge(log_loss, theta, self.target[rows], self.t, *before)
        if self.t == self.steps:
            stopped_at = torch.where(status == RUNNING, self.t, stopped_at)
            status = torch.where(status == RUNNING, MAX_STEPS, status)
        better = log_loss.double() < self.best_log_loss[rows]
        self.best_log_loss[rows] = torch.where(better, log_loss.double(), self.best_log_loss[rows])
        best = torch.where(better.unsqueeze(-1), theta, self.best_theta[rows])
        self.best_theta[rows] = best
        self.theta[rows] = torch.where((status == DIVERGED).unsqueeze(-1), best, theta)
        self.status[rows], self.stopped_at[rows] = status.to(torch.int8), stopped_at

    def _advance_compiled(self, rows: Tensor, n: int) -> None:
        plan, last = self.kernel.plan, self.t + n == self.steps
        eps = self.eps[rows] if plan.adversarial else torch.zeros_like(self.eps[rows])
        numbers = {path: value[rows] for path, value in self.numbers.items()}
        steps = plan.step_numbers(numbers, self.eps[rows], self.bound[rows])
        state = {name: value[rows] for name, value in self.state["kernel"].items()}
        scalars = (eps, self.target[rows], steps, self.best_log_loss[rows])
        of_run = self.train.of_run[rows].tolist()
        given = kernel_plan.Rows.of(self.theta[rows], self.best_theta[rows], scalars, state, of_run)
        self.kernel.run(given, self.t, n, last)
        self.t += n
        status, stopped_at = given.info[:, kernel_plan.STATUS], given.info[:, kernel_plan.ENDED]
        if last:
            stopped_at = torch.where(status == RUNNING, self.t, stopped_at)
            status = torch.where(status == RUNNING, MAX_STEPS, status)
        self.theta[rows] = torch.where((status == DIVERGED).unsqueeze(-1), given.best, given.theta)
        self.best_theta[rows], self.best_log_loss[rows] = given.best, given.num[:, kernel_plan.BEST]
        self.status[rows], self.stopped_at[rows] = status.to(torch.int8), stopped_at
        for name, value in state.items():
            self.state["kernel"][name][rows] = value

    def log_losses(self, rows: Tensor) -> Tensor:
        """Worst-case training log losses (len(rows),), with noise from the stream "eval"."""
        if self.order is not None:  # by pieces: the whole set may need more memory than a batch
            f = attacked_outputs(self, self.recipe.attack, self.train, self.eps, rows)
            found: Tensor = vmap(self.recipe.objective.log_loss)(f, self.train.of(rows)[1])
            return found
        return self.losses_and_gradients(rows)[0]

    def losses_and_gradients(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same and their (sub)gradients (len(rows), P)."""
        index, generators, theta = rows.tolist(), self.generators_of("eval"), self.theta[rows]
        (x, y), attack = self.train.of(rows), self.recipe.attack
        whole = self.order is None or attack.closed_form  # whose subgradient adds up from no pieces
        some = [(x, y)] if whole else pieces(self, attack, x, y)
        groups, found = self.groups(rows, self._batch(rows, some[0])), []
        for piece in some:
            n = piece[0].shape[-2]
            drawn = (attack, index, n, generators)
            noise = self.noise(*drawn) if whole else noise_of(self, *drawn)
            log_loss, grad = loss_and_grad_of(theta, [group.on(*piece) for group in groups], noise, self.most)
            share = 0.0 if summed(self.recipe) else math.log(n / x.shape[-2])
            found.append((log_loss + share, grad))
        return pooled(found)

    def generators_of(self, stream: str) -> list[torch.Generator]:
        """One generator for every run, at the start of that stream."""
        return [torch_stream(seed, stream) for seed in self.seeds]

    def predictors(self, rows: Tensor) -> Tensor | None:
        """The weights (len(rows), d) or (len(rows), C, d) of models linear in their input, else None."""
        if not hasattr(self.recipe.model, "weight"):
            return None
        weights: Tensor = vmap(lambda theta: predictor(self.recipe, theta))(self.theta[rows])  # type: ignore[assignment]
        return weights


def _shapes(inputs: Inputs) -> Shapes:
    return tuple(a.shape for a in inputs)
