"""The run axis: R runs of one recipe, trained together. The only module that knows R.

Every function of :mod:`robust_erm.step` is mapped over the leading axis of R runs. Random numbers
are drawn outside the map, from one generator per run, so that no run depends on its neighbours;
a run that has ended is frozen at once and leaves the computation at the next call of ``advance``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from robust_erm import kernels
from robust_erm.attacks.attack import Attack
from robust_erm.attacks.none import NoAttack
from robust_erm.fields import substituted
from robust_erm.kernels import plan as kernel_plan
from robust_erm.margins import margin
from robust_erm.schedules.schedule import Point
from robust_erm.step import Batch, Recipe, attacked_margin, loss_and_grad, move, outputs, predictor
from robust_erm.streams import torch_stream

RUNNING, CONVERGED, MAX_STEPS, DIVERGED = range(4)
STATUS = ("running", "converged", "max_steps", "diverged")

CHUNK = 1024  # points evaluated at once; fixed, so that noise does not depend on the number of runs
FEW = 256  # the same for strong attacks, some of which need many random numbers for each point


@dataclass
class Points:
    """Labelled points: D sets x (D, n, d), y (D, n), and the set of every run, (R,)."""

    x: Tensor
    y: Tensor
    of_run: Tensor

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """X (len(rows), n, d) and y of some runs; a view, not a copy, where they share one set."""
        which = self.of_run[rows]
        if len(which) and bool((which == which[0]).all()):
            x, y = self.x[which[0]], self.y[which[0]]
            return x.expand(len(rows), *x.shape), y.expand(len(rows), *y.shape)
        return self.x[which], self.y[which]

    @property
    def bound(self) -> Tensor:
        """B (R,): the largest l_inf norm of a point of each run's set."""
        return self.x.abs().amax((-2, -1))[self.of_run]


@dataclass(frozen=True)
class _Group:
    """Some of the running runs, at these places among them, and the recipe that gives their loss."""

    at: Tensor | slice
    batch: Batch
    recipe: Recipe

    def loss_and_grad(self, theta: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Log losses (R',) and gradients (R', P)."""
        found: tuple[Tensor, Tensor] = vmap(lambda *a: loss_and_grad(self.recipe, *a))(theta, self.batch, noise)
        return found


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
        compiled: use a compiled kernel where there is one for the recipe.
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
    t: int = 0
    bound: Tensor = field(init=False)
    state: dict[str, Any] = field(init=False)
    best_theta: Tensor = field(init=False)
    best_log_loss: Tensor = field(init=False)
    status: Tensor = field(init=False)
    stopped_at: Tensor = field(init=False)
    generators: list[torch.Generator] = field(init=False)
    kernel: Any = field(init=False)
    net: Any = field(init=False)

    def __post_init__(self) -> None:
        def init(theta: Tensor, numbers: dict[str, Tensor]) -> dict[str, Any]:
            optimizer = substituted(self.recipe.optimizer, numbers)
            return {"optimizer": optimizer.init(theta), "schedule": optimizer.schedule.init(theta)}

        fresh = vmap(init)(self.theta, self.numbers)
        self.state = pytree.tree_map(lambda a: a.clone(memory_format=torch.contiguous_format), fresh)
        compiled = self.compiled and self.theta.device.type == "cpu"
        self.kernel = kernels.whole_steps(self.recipe, self.train.x, self.train.y) if compiled else None
        self.net = kernels.for_net(self.recipe, self.recipe.attack, self.theta.dtype) if compiled else None
        if self.kernel is not None:
            self.state["kernel"] = self.kernel.init(len(self.eps))
        self.bound = self.train.bound
        self.best_theta = self.theta.clone()
        self.best_log_loss = torch.full_like(self.eps, torch.inf, dtype=torch.float64)
        self.status = torch.full_like(self.eps, RUNNING, dtype=torch.int8)
        self.stopped_at = torch.full_like(self.eps, -1, dtype=torch.int64)
        self.generators = [torch_stream(seed, "attack") for seed in self.seeds]

    @property
    def running(self) -> Tensor:
        """Indices of the runs that have not ended."""
        return (self.status == RUNNING).nonzero().squeeze(-1)

    def _batch(self, rows: Tensor) -> Batch:
        numbers = {path: value[rows] for path, value in self.numbers.items()}
        return Batch(*self.train.of(rows), self.eps[rows], self.bound[rows], numbers)

    def _groups(self, rows: Tensor) -> list[_Group]:
        """The rows by the attack that they need; one batch for all where that is one."""
        recipe = self.recipe
        parts = [(slice(None), recipe.attack)] if self.net is not None else _parts(recipe.attack, self.eps[rows])
        return [_Group(at, self._batch(rows[at]), replace(recipe, attack=attack)) for at, attack in parts]

    def _loss_and_grad(self, theta: Tensor, groups: list[_Group], noise: Tensor) -> tuple[Tensor, Tensor]:
        if self.net is not None:
            found: tuple[Tensor, Tensor] = self.net.loss_and_grad(theta, groups[0].batch)
            return found
        return _mapped(theta, groups, noise)

    def _noise(self, attack: Attack, rows: list[int], n: int, generators: list[torch.Generator]) -> Tensor:
        """(len(rows), k, n, d): drawn on the CPU from every run's own generator."""
        d = self.train.x.shape[-1]
        return torch.stack([attack.draw(n, d, generators[i]) for i in rows]).to(self.theta)

    def advance(self, n: int) -> None:
        """Take n steps, or fewer where ``steps`` comes first; runs that end are frozen on the way."""
        rows = self.running
        index = rows.tolist()
        if not index:
            return
        n = min(n, self.steps - self.t)
        if self.kernel is not None:
            self._advance_compiled(rows, n)
            return
        recipe, groups = self.recipe, self._groups(rows)
        batch = groups[0].batch if len(groups) == 1 else self._batch(rows)
        moved = vmap(lambda t, *rest: move(recipe, t, *rest), in_dims=(None, 0, 0, 0))

        theta, best, best_loss = self.theta[rows], self.best_theta[rows], self.best_log_loss[rows]
        state = pytree.tree_map(lambda a: a[rows], self.state)
        status, stopped_at, target = self.status[rows], self.stopped_at[rows], self.target[rows]
        for t in range(self.t, self.t + n):
            noise = self._noise(recipe.attack, index, batch.x.shape[-2], self.generators)
            found = Point(theta, *self._loss_and_grad(theta, groups, noise))
            point, after, state = moved(theta.new_tensor(t), found, state, batch)
            alive = status == RUNNING
            status, stopped_at = _judge(point.log_loss, point.grad, target, t, status, stopped_at)
            better = alive & (point.log_loss < best_loss)
            best = _chosen(better, point.theta, best)
            best_loss = torch.where(better, point.log_loss, best_loss)
            # a step is undone only to a point that had not converged: theta is point.theta where a run ends
            theta = _chosen(status == RUNNING, after, theta)
        self.t += n
        if self.t == self.steps:
            noise = self._noise(recipe.attack, index, batch.x.shape[-2], self.generators)
            log_loss, grad = self._loss_and_grad(theta, groups, noise)
            status, stopped_at = _judge(log_loss, grad, target, self.t, status, stopped_at)
            stopped_at = torch.where(status == RUNNING, self.t, stopped_at)
            status = torch.where(status == RUNNING, MAX_STEPS, status)
        theta = torch.where((status == DIVERGED).unsqueeze(-1), best, theta)

        self.theta[rows], self.best_theta[rows], self.best_log_loss[rows] = theta, best, best_loss.double()
        self.status[rows], self.stopped_at[rows] = status.to(torch.int8), stopped_at
        pytree.tree_map(lambda whole, part: whole.index_copy_(0, rows, part), self.state, state)

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

    def clean(self, points: Points, rows: Tensor) -> Tensor:
        """Clean margins (len(rows), n) of ``points``."""
        recipe, theta = self.recipe, self.theta[rows]
        one = vmap(lambda theta, x, y: margin(outputs(recipe, theta, x), y))
        return torch.cat([one(theta, x, y) for x, y in _chunks(*points.of(rows))], dim=-1)

    def attacked(self, attack: Attack, points: Points, eps: Tensor, rows: Tensor) -> Tensor:
        """Margins (len(rows), n) of ``points`` after ``attack`` of radius eps (R,).

        Its noise is the same at every call: one draw for each run, from its stream "eval".
        """
        index, generators = rows.tolist(), [torch_stream(seed, "eval") for seed in self.seeds]
        kernel = self._net_for(attack)
        pieces = []
        for x, y in _chunks(*points.of(rows)):
            noise = None if kernel else self._noise(attack, index, x.shape[-2], generators)
            pieces.append(self._attacked(attack, kernel, self.theta[rows], eps[rows], x, y, noise))
        return torch.cat(pieces, dim=-1)

    def attacked_among(self, attack: Attack, points: Points, eps: Tensor, rows: Tensor, among: Tensor) -> Tensor:
        """The same for the points that ``among`` (len(rows), n) marks; the others keep inf.

        Every run's noise depends on its own marks only, not on its neighbours.
        """
        kernel, theta, radii = self._net_for(attack), self.theta[rows], eps[rows]
        x, y = points.of(rows)
        found = torch.full_like(y, torch.inf)
        for k in range(0, x.shape[1], FEW):
            marked = among[:, k : k + FEW]
            counts = marked.sum(-1).tolist()
            if not max(counts):
                continue
            order = (~marked).to(torch.int8).argsort(dim=-1, stable=True)[:, : max(counts)] + k
            some_x = x.gather(1, order.unsqueeze(-1).expand(*order.shape, x.shape[-1]))
            noise = None if kernel else self._noise_of_some(attack, rows.tolist(), counts, k)
            margins = self._attacked(attack, kernel, theta, radii, some_x, y.gather(1, order), noise)
            found.scatter_(1, order, margins)
        return torch.where(among, found, torch.inf)

    def _net_for(self, attack: Attack) -> Any:
        return None if self.net is None else kernels.for_net(self.recipe, attack, self.theta.dtype)

    def _noise_of_some(self, attack: Attack, rows: list[int], counts: list[int], first: int) -> Tensor:
        """(len(rows), k, max(counts), ...): as many random numbers as each run needs, then zeros."""
        d = self.train.x.shape[-1]
        drawn = [
            attack.draw(max(n, 1), d, torch_stream(self.seeds[i], f"eval from {first}"))
            for i, n in zip(rows, counts, strict=True)
        ]
        whole = self.theta.new_zeros(len(rows), drawn[0].shape[0], max(counts), *drawn[0].shape[2:])
        for noise, own in zip(whole, drawn, strict=True):
            noise[:, : own.shape[1]] = own.to(noise)
        return whole

    def _attacked(
        self, attack: Attack, kernel: Any, theta: Tensor, eps: Tensor, x: Tensor, y: Tensor, noise: Tensor | None
    ) -> Tensor:
        if kernel:
            found: Tensor = kernel.margins(theta, x, y, eps)
            return found
        assert noise is not None, "drawn where there is no kernel"

        def under(attack: Attack, *some: Any) -> Tensor:
            def one(theta: Tensor, eps: Tensor, x: Tensor, y: Tensor, noise: Any) -> Tensor:
                return attacked_margin(self.recipe, attack, theta, Batch(x, y, eps, eps, {}), noise)

            mapped: Tensor = vmap(one)(*some)
            return mapped

        parts = _parts(attack, eps)
        if len(parts) == 1:
            return under(parts[0][1], theta, eps, x, y, noise)
        margins = torch.empty_like(y, dtype=theta.dtype)
        for at, own in parts:
            margins[at] = under(own, theta[at], eps[at], x[at], y[at], noise[at])
        return margins

    def log_losses(self, rows: Tensor) -> Tensor:
        """Worst-case training log losses (len(rows),), with noise from the stream "eval"."""
        generators = [torch_stream(seed, "eval") for seed in self.seeds]
        noise = self._noise(self.recipe.attack, rows.tolist(), self.train.x.shape[-2], generators)
        return _mapped(self.theta[rows], self._groups(rows), noise)[0]

    def predictors(self, rows: Tensor) -> Tensor | None:
        """The weights (len(rows), d) or (len(rows), C, d) of models linear in their input, else None."""
        if not hasattr(self.recipe.model, "weight"):
            return None
        weights: Tensor = vmap(lambda theta: predictor(self.recipe, theta))(self.theta[rows])  # type: ignore[assignment]
        return weights

    def export(self, i: int) -> dict[str, Any]:
        """Run i as plain tensors and numbers: all that is needed to go on. Ended runs keep less."""
        kept: dict[str, Any] = {
            "t": int(self.stopped_at[i]) if int(self.status[i]) != RUNNING else self.t,
            "status": int(self.status[i]),
            "theta": self.theta[i].cpu().clone(),
            "best_log_loss": self.best_log_loss[i].cpu().clone(),
        }
        if kept["status"] == RUNNING:
            kept["best_theta"] = self.best_theta[i].cpu().clone()
            kept["generator"] = self.generators[i].get_state()
            kept["state"] = pytree.tree_map(lambda a: a[i].cpu().clone(), self.state)
        return kept

    def load(self, i: int, kept: dict[str, Any]) -> None:
        """Put run i back to where :meth:`export` found it."""
        self.theta[i] = kept["theta"].to(self.theta)
        self.best_log_loss[i] = kept["best_log_loss"]
        self.status[i] = kept["status"]
        if kept["status"] == RUNNING:
            self.best_theta[i] = kept["best_theta"].to(self.theta)
            self.generators[i].set_state(kept["generator"])
            pytree.tree_map(lambda whole, part: whole[i].copy_(part), self.state, kept["state"])
        else:
            self.stopped_at[i] = kept["t"]


def _parts(attack: Attack, eps: Tensor) -> list[tuple[Tensor | slice, Attack]]:
    """Places in eps (R,), and the attack there: a radius of 0 needs none."""
    zero = eps == 0
    if attack.closed_form or isinstance(attack, NoAttack) or not bool(zero.any()):
        return [(slice(None), attack)]
    calm = NoAttack(attack.p)
    if bool(zero.all()):
        return [(slice(None), calm)]
    return [(zero.nonzero().squeeze(-1), calm), ((~zero).nonzero().squeeze(-1), attack)]


def _mapped(theta: Tensor, groups: list[_Group], noise: Tensor) -> tuple[Tensor, Tensor]:
    """Log losses (R,) and gradients (R, P) of theta (R, P)."""
    if len(groups) == 1:
        return groups[0].loss_and_grad(theta, noise)
    log_loss, grad = torch.empty_like(theta[:, 0]), torch.empty_like(theta)
    for group in groups:
        log_loss[group.at], grad[group.at] = group.loss_and_grad(theta[group.at], noise[group.at])
    return log_loss, grad


def _chosen(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` (R, P) in the rows that are true, else ``old``; on a CPU without a copy where all agree."""
    if rows.device.type == "cpu" and bool(rows.all()):
        return new
    if rows.device.type == "cpu" and not bool(rows.any()):
        return old
    return torch.where(rows.unsqueeze(-1), new, old)


def _judge(
    log_loss: Tensor, grad: Tensor, target: Tensor, t: int, status: Tensor, stopped_at: Tensor
) -> tuple[Tensor, Tensor]:
    """Which of the running runs end at step t: on a non-finite number, or at the target."""
    alive = status == RUNNING
    finite = log_loss.isfinite() & grad.sum(-1).isfinite()  # one pass over the gradient
    ended = alive & (~finite | (log_loss <= target))
    new = torch.where(ended, torch.where(finite, CONVERGED, DIVERGED), status)
    return new, torch.where(ended, t, stopped_at)


def _chunks(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """X (R, n, d) and y (R, n), CHUNK points at a time."""
    return [(x[:, k : k + CHUNK], y[:, k : k + CHUNK]) for k in range(0, x.shape[1], CHUNK)]
