"""Every component is held against what it states, on a few points, before anything is trained.

What this package brings is tested against the same contracts; what users bring is met here for the first time. A
component that gives something else than it must is refused in one line: which, what it gives, what it must give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from robust_erm.attacks.attack import Victim
from robust_erm.core.errors import ConfigError, hint, in_one_line, require
from robust_erm.core.fields import takes_runs
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout, Params
from robust_erm.core.stack import Stack
from robust_erm.objectives import score_slopes
from robust_erm.optimizers.optimizer import first_state
from robust_erm.schedules.schedule import Point
from robust_erm.store.config import METRIC, Run
from robust_erm.store.fits import attacks_of
from robust_erm.store.identity import target_of
from robust_erm.training import resources
from robust_erm.training.measure import Evaluation, log_spaced, measure
from robust_erm.training.points import Points
from robust_erm.training.problem import draw
from robust_erm.training.runs import Runs
from robust_erm.training.step import Recipe, native

N = 3  # points
_HELD = 2**30  # bytes that a measure may hold at once
_SNAPSHOTS = 2**28  # bytes that one run may keep
_CLOSE = 1e-6  # relative: what two ways to the same number may differ by
_MANY = 20  # points that do not have one label by chance


def ours(component: Any) -> bool:
    """Whether a component comes with this package."""
    return type(component).__module__.partition(".")[0] == "robust_erm"


def check(run: Run) -> None:
    """Hold the components of ``run`` against their contracts, but for its data: see :func:`check_data`.

    Raises:
        ConfigError: naming the component, what it gives and what it must give.
    """
    d, outputs = run.data.dimension, run.outputs
    resources.require_room(run.data)
    _model(run.model, d, outputs, run.torch_dtype)
    _objective(run.objective, outputs, run.torch_dtype)
    _optimizer(run.optimizer, run.model, d, outputs, run.torch_dtype)
    for key, attack in attacks_of(run).items():
        if not ours(attack):
            _attack(key, attack, run.model, d, outputs, run.torch_dtype)
    points = getattr(run.data, "m", None)
    for name, one in run.measure.items():
        if hasattr(one, "holds") and points is not None:
            needs = one.holds(points, resources.parameters(run), run.outputs)
            says = f"would hold {needs / 2**30:,.1f} GiB at once, {_HELD >> 30} at most: take fewer points"
            require(needs <= _HELD, f"measure.{name}", target_of(one), says)
    if run.measure:
        _measures(run)
    if run.snapshots:
        times = len(log_spaced(run.steps, run.measure_per_decade, run.measure_every))
        needs = times * resources.parameters(run) * run.torch_dtype.itemsize
        says = (
            f"would keep {needs / 2**20:,.0f} MiB of parameters, {_SNAPSHOTS / 2**20:,.0f} at most: measure less often"
        )
        require(needs <= _SNAPSHOTS, "snapshots", "true", says)


def _shape(key: str, component: Any, what: str, value: Any, expected: tuple[int, ...], dtype: torch.dtype) -> None:
    """``value`` must be a finite tensor of this shape and type."""
    name = target_of(component)
    require(isinstance(value, Tensor), key, name, f"{what} gives {type(value).__name__}, must give a tensor")
    found = tuple(value.shape)
    require(found == expected, key, name, f"{what} gives shape {found}, must give {expected}")
    require(value.dtype == dtype, key, name, f"{what} gives {value.dtype}, must give {dtype}, the run's own type")
    require(bool(value.isfinite().all()), key, name, f"{what} gives numbers that are not finite, must give finite ones")


def _equal(key: str, component: Any, one: Tensor, other: Tensor, says: str, dtype: torch.dtype) -> None:
    loose = 1.0 if dtype == torch.float64 else 1e3
    size = float(torch.maximum(one.abs().max(), other.abs().max()))
    far = float((one - other).abs().max())
    require(far <= _CLOSE * loose * size, key, target_of(component), says.format(far=f"{far / (size or 1.0):.2g}"))


def _points(d: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand((N, d), generator=generator, dtype=torch.float64).to(dtype)
    y = torch.tensor([1.0, -1.0, 1.0]) if outputs == 1 else torch.arange(N) % outputs
    return x, y.to(dtype)


def check_data(data: Any, seed: int) -> None:
    """Hold one draw against its contract, test points and all; every other is looked at when it is made.

    Raises:
        ConfigError: naming what it gives and what it must give.
    """
    with in_one_line("data", target_of(data), "draw"):
        found = draw(data, seed)
        y, many = found.y_train, len(found.y_test)
    some = sorted(set(y.tolist()))
    says = f"all {len(y)} training points have the label {some[0]:g}; {data.n_classes} classes need points of each"
    require(len(some) > 1 or len(y) < _MANY, "data", target_of(data), says)
    require(many >= 1, "data", target_of(data), "gives no test points, must give one at least")


@lru_cache(maxsize=64)
def _params(model: Any, d: int, outputs: int, dtype: torch.dtype) -> Params:
    """Parameters near the model's own start, none of them exactly there."""
    generator = torch.Generator().manual_seed(1)
    found: Params = {}
    for name, p in model.init(d, outputs, torch.Generator().manual_seed(0)).items():
        size = float(p.double().abs().mean()) or 1.0
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        found[name] = (p.double() + 0.1 * size * noise).to(dtype)
    return found


@lru_cache(maxsize=256)
def _model(model: Any, d: int, outputs: int, dtype: torch.dtype) -> None:
    key, name = "model", target_of(model)
    try:
        with in_one_line("", name, "init"), resources.Bounded():
            model.init(d, outputs, torch.Generator())
    except ConfigError as error:
        raise error.under("model") from None
    with in_one_line(key, target_of(model), "init"):
        first, again = (model.init(d, outputs, torch.Generator().manual_seed(0)) for _ in range(2))
        fits = isinstance(first, dict) and bool(first) and all(isinstance(p, Tensor) for p in first.values())
        require(fits, key, name, "init gives no tensors by name, must give a dict of them")
        for part, p in first.items():
            require(p.is_floating_point(), key, name, f"init gives {part} in {p.dtype}, must give floating point")
            require(bool(p.isfinite().all()), key, name, f"init gives {part} with numbers that are not finite")
            same = p.shape == again[part].shape and bool((p == again[part]).all())
            require(same, key, name, f"init gives another {part} for the same generator; draw from the generator only")
    x, _ = _points(d, outputs, dtype)
    params = _params(model, d, outputs, dtype)
    expected = (N,) if outputs == 1 else (N, outputs)
    with in_one_line(key, target_of(model), "apply"):
        f = model.apply(params, x)
        _shape(key, model, f"apply, for {N} points and {outputs} logit{'s' * (outputs > 1)},", f, expected, dtype)
        alone = torch.cat([model.apply(params, x[i : i + 1]) for i in range(N)])
        coupled = "apply gives a point other outputs beside other points (by {far} of them); it must look at each alone"
        _equal(key, model, f, alone, coupled, dtype)
        _degree(model, params, x, f, dtype)
        if hasattr(model, "weight"):
            w = model.weight(params)
            _shape(key, model, "weight", w, (d,) if outputs == 1 else (outputs, d), dtype)
            differs = "weight is not that of apply, <weight, x> = apply(x): they differ by {far} of it"
            _equal(key, model, x @ w.mT if w.ndim == 2 else x @ w, f, differs, dtype)
        if isinstance(stack := getattr(model, "stack", None), Stack):
            layered = stack.forward({part: p.unsqueeze(0) for part, p in params.items()}, x.unsqueeze(0)).outputs
            says = "stack is not the model of apply: they differ by {far} of it; stack = None has apply alone used"
            _equal(key, model, layered.reshape(f.shape), f, says, dtype)
    if ours(model):  # the rest imports what its training may have no use for
        return
    with in_one_line(key, target_of(model), "apply, mapped over runs (torch.func.vmap) with gradients,"):
        stacked = {part: torch.stack([p, p]) for part, p in params.items()}
        total: Callable[..., Any] = lambda p, z: model.apply(p, z).sum()  # noqa: E731
        mapped = vmap(model.apply)(stacked, torch.stack([x, x]))
        _equal(key, model, mapped[1], f, "apply gives other outputs under torch.func.vmap, by {far} of them", dtype)
        vmap(grad(total, argnums=(0, 1)))(stacked, torch.stack([x, x]))


def _degree(model: Any, params: Params, x: Tensor, f: Tensor, dtype: torch.dtype) -> None:
    degree = model.degree
    whole = degree is None or (isinstance(degree, int) and degree >= 0)
    require(whole, "model.degree", degree, "must be a whole number, or None for a model that is not homogeneous")
    if degree is None:
        return
    doubled = model.apply({part: 2 * p for part, p in params.items()}, x)
    expected = f * 2.0**degree if degree < 500 else f
    if not bool(doubled.isfinite().all() & expected.isfinite().all()) or not bool(f.any()):
        return
    says = f"is not the degree of {target_of(model)}: f(x; 2 theta) is not 2^{degree} f(x; theta), by {{far}} of it"
    loose = 1.0 if dtype == torch.float64 else 1e3
    far = float((doubled - expected).abs().max() / expected.abs().max())
    require(
        far <= _CLOSE * loose, "model.degree", degree, f"{says.format(far=f'{far:.2g}')}; None says that there is none"
    )


@lru_cache(maxsize=64)
def _objective(objective: Any, outputs: int, dtype: torch.dtype) -> None:
    _, y = _points(1, outputs, dtype)
    f = torch.linspace(-1, 1, N * outputs, dtype=dtype).reshape((N,) if outputs == 1 else (N, outputs))
    with in_one_line("objective", target_of(objective), "log_loss"):
        _shape("objective", objective, "log_loss", objective.log_loss(f, y), (), dtype)
        if ours(objective):
            return
        slope = grad(lambda z: objective.log_loss(z, y))(f)
        _shape("objective", objective, "the gradient of log_loss", slope, tuple(f.shape), dtype)
    if callable(getattr(objective, "shares", None)):
        with in_one_line("objective", target_of(objective), "shares"):
            s, slopes = score_slopes(f.reshape(N, -1), y)
            value, share = objective.shares(s)
            says = "shares is not the derivative of log_loss: {far} of it differs; shares = None has autograd used"
            _equal("objective", objective, (share.unsqueeze(-1) * slopes).reshape(f.shape), slope, says, dtype)
            _equal("objective", objective, value.reshape(1), objective.log_loss(f, y).reshape(1), says, dtype)


@lru_cache(maxsize=256)
def _optimizer(optimizer: Any, model: Any, d: int, outputs: int, dtype: torch.dtype) -> None:
    if getattr(optimizer, "limit", False):
        return
    params = _params(model, d, outputs, dtype)
    layout = Layout.of(params)
    theta = layout.flatten(params)
    p, schedule = tuple(theta.shape), optimizer.schedule
    slope = torch.randn(p, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(dtype)
    loss, eps, bound = (theta.new_tensor(v) for v in (-1.0, 0.1, 1.0))
    geometry = getattr(optimizer, "geometry", None)
    if geometry is not None and not ours(geometry):
        _geometry(geometry, slope, layout)
    with in_one_line("optimizer", target_of(optimizer), "update"):
        state = first_state(optimizer, theta, layout)
        direction, scale, after = optimizer.update(slope, loss, state, layout)
        _shape("optimizer", optimizer, f"update, for {p[0]} parameters, a direction that", direction, p, dtype)
        _shape("optimizer", optimizer, "update a log_scale that", scale, (), dtype)
        if native(optimizer):
            _native(optimizer, theta, slope, loss, state, layout)
        if hasattr(optimizer, "moved"):
            _shape("optimizer", optimizer, "moved", optimizer.moved(theta, 1e-3 * direction), p, dtype)
        same = {k: tuple(v.shape) for k, v in state.items()} == {k: tuple(v.shape) for k, v in after.items()}
        says = "update gives another state than init: other names or shapes"
        require(same, "optimizer", target_of(optimizer), says)
    with in_one_line("optimizer.schedule", target_of(schedule), "log_step"):
        memory = schedule.init(theta)
        point, memory = schedule.accept(Point(theta, loss, slope), memory)
        _shape("optimizer.schedule", schedule, "accept a point whose theta", point.theta, p, dtype)
        step = schedule.log_step(theta.new_tensor(0), point, eps, bound, memory)
        _shape("optimizer.schedule", schedule, "log_step", step, (), dtype)
        if takes_runs(schedule):
            _native_schedule(schedule, Point(theta, loss, slope), eps, bound)


def _geometry(geometry: Any, slope: Tensor, layout: Layout) -> None:
    """Hold a geometry of a user's own to what a norm, its dual and its steepest direction are of one another."""
    key, p, dtype = "optimizer.geometry", tuple(slope.shape), slope.dtype
    with in_one_line(key, target_of(geometry), "one of its methods"):
        name = geometry.name
        require(isinstance(name, str) and name.isidentifier(), key, name, "name must give a word, for columns")
        u, sharp = geometry.steepest(slope, layout), geometry.sharp(slope, layout)
        size, dual = geometry.value(u, layout), geometry.dual_value(slope, layout)
        _shape(key, geometry, "steepest", u, p, dtype)
        _shape(key, geometry, "sharp", sharp, p, dtype)
        _shape(key, geometry, "value", size, (), dtype)
        _shape(key, geometry, "dual_value", dual, (), dtype)
        _equal(key, geometry, size, torch.ones_like(size), "value of steepest(g) must be 1, differs by {far}", dtype)
        _equal(key, geometry, u @ slope, dual, "dual_value(g) must be <g, steepest(g)>, differs by {far} of it", dtype)
        says = "sharp(g) must be dual_value(g) steepest(g), differs by {far} of it"
        _equal(key, geometry, sharp, dual * u, says, dtype)


def _native(optimizer: Any, theta: Tensor, slope: Tensor, loss: Tensor, state: Any, layout: Layout) -> None:
    """Hold what says run_axis to what it does to each run alone."""
    both = torch.stack([slope, -slope.flip(0)])
    losses, states = torch.stack([loss, 2 * loss]), {k: torch.stack([v, v]) for k, v in state.items()}
    directions, scales, _ = optimizer.update(both, losses, states, layout)
    each = [optimizer.update(g, one, state, layout)[:2] for g, one in zip(both, losses, strict=True)]
    says = "update with a run axis (run_axis = True) differs from that of each run alone, by {far} of it"
    for given, alone in zip((directions, scales), zip(*each, strict=True), strict=True):
        expected = torch.stack(alone)
        _shape("optimizer", optimizer, "update of two runs a result that", given, tuple(expected.shape), theta.dtype)
        _equal("optimizer", optimizer, given, expected, says, theta.dtype)


def _native_schedule(schedule: Any, one: Point, eps: Tensor, bound: Tensor) -> None:
    """The same of a schedule."""
    several = [one, Point(2 * one.theta, 3 * one.log_loss, -one.grad.flip(0))]
    t, both = one.theta.new_tensor(3), Point(*(torch.stack(parts) for parts in zip(*several, strict=True)))
    states = [schedule.init(point.theta) for point in several]
    memory = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    point, memory = schedule.accept(both, memory)
    given = schedule.log_step(t, point, eps.expand(2), bound.expand(2), memory)  # one for all, or one each
    alone = []
    for other, state in zip(several, states, strict=True):
        accepted, after = schedule.accept(other, state)
        alone.append(schedule.log_step(t, accepted, eps, bound, after))
    says = "log_step with a run axis (run_axis = True) differs from that of each run alone, by {far} of it"
    _shape("optimizer.schedule", schedule, "log_step of two runs a result that", given.expand(2), (2,), given.dtype)
    _equal("optimizer.schedule", schedule, given.expand(2), torch.stack(alone), says, one.theta.dtype)


def _measures(run: Run) -> None:
    """Take every measure once, of two runs on a few points."""
    d, outputs, dtype = run.data.dimension, run.outputs, run.torch_dtype
    x, y = _points(d, outputs, dtype)
    params = _params(run.model, d, outputs, dtype)
    layout, rows = Layout.of(params), torch.arange(2)
    points = Points(x.unsqueeze(0), y.unsqueeze(0), torch.zeros_like(rows))
    recipe = Recipe(run.model, layout, run.objective, run.optimizer, run.attack, (0.0, 1.0))
    theta, eps = torch.stack([layout.flatten(params)] * 2), x.new_tensor([0.1, 0.0])
    pack = Runs(recipe, points, eps, theta, [0, 0], x.new_full((2,), -math.inf), steps=1, compiled=False)
    evaluation = Evaluation(points, [None, None], dict(run.eval_attacks), eps, run.measure)
    along, end = (measure(pack, evaluation, rows, when)[0] for when in ("along", "end"))
    twice = sorted(along.keys() & end.keys())
    require(not twice, "measure", ", ".join(run.measure), f"two of them give {', '.join(twice)}")
    known = METRIC.fullmatch(run.returns) is not None or run.returns in {**along, **end}
    advice = f"is measured by none of {', '.join(run.measure)}{hint(run.returns, [*along, *end])}"
    require(known, "returns", run.returns, advice)


@lru_cache(maxsize=64)
def _attack(key: str, attack: Any, model: Any, d: int, outputs: int, dtype: torch.dtype) -> None:
    x, y = _points(d, outputs, dtype)
    params = _params(model, d, outputs, dtype)
    weight = model.weight(params) if hasattr(model, "weight") else None
    eps = x.new_tensor(0.1)
    with in_one_line(key, target_of(attack), "perturb"):
        noise = attack.draw(N, d, torch.Generator().manual_seed(0)).to(dtype)
        victim = Victim(lambda z: model.apply(params, z), x, y, (0.0, 1.0), weight)
        moved = attack.perturb(victim, eps, noise)
        _shape(key, attack, "perturb", moved, (N, d), dtype)
        if getattr(attack, "samplewise", False):
            each = attack.perturb(victim, eps.expand(N, 1), noise)
            says = "samplewise, but perturb gives other points for eps (n, 1) than for eps (), by {far} of them"
            _equal(key, attack, each, moved, says, dtype)
            single = [Victim(victim.outputs, x[i : i + 1], y[i : i + 1], victim.domain, weight) for i in range(N)]
            alone = [attack.perturb(one, eps, noise[:, i : i + 1]) for i, one in enumerate(single)]
            says = "samplewise, but perturb moves a point otherwise beside others, by {far} of them"
            _equal(key, attack, torch.cat(alone), moved, says, dtype)
        far = float(Norm(attack.p).value(moved - x).max() / eps) if getattr(attack, "keeps_ball", True) else 0.0
        says = f"perturb leaves the l_{attack.p:g} ball, by {far - 1:.2g} of its radius"
        require(far <= 1 + 1e3 * torch.finfo(dtype).eps, key, target_of(attack), says)
        if attack.closed_form and weight is not None and weight.ndim == 1:
            least = y * (x @ weight) - eps * Norm(attack.p).dual.value(weight)
            says = (
                "closed_form, but perturb is not the worst case of the ball, by {far}; closed_form = False has it used"
            )
            _equal(key, attack, y * (moved @ weight), least, says, dtype)
        if getattr(attack, "box", False):
            inside = bool((moved >= 0).all() & (moved <= 1).all())
            require(inside, key, target_of(attack), "perturb leaves the data's domain, which box=true forbids")
