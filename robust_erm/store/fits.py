"""Whether the parts of a run fit one another; what each of them computes is held against its contract later."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from robust_erm.core.errors import ConfigError, in_one_line, require
from robust_erm.store.identity import target_of, word

if TYPE_CHECKING:
    from robust_erm.store.config import Run

# what a component of each group states; see the Protocol of that name in its room
MEMBERS = {
    "data": ("dimension", "n_classes", "check", "draw"),
    "model": ("degree", "init", "apply"),
    "objective": ("check_outputs", "of_scores", "log_loss"),
    "optimizer": ("schedule", "scales_with_loss", "init", "update"),
    "optimizer.schedule": ("divides_by_loss", "init", "accept", "log_step"),
    "optimizer.geometry": ("name", "value", "dual_value", "steepest", "sharp"),
    "optimizer.accumulator": ("name", "scales_with_loss", "norm", "init", "update"),
    "measure": ("measure",),
    "attack": ("p", "closed_form", "check_fits", "draw", "perturb"),
}


def check_fits(run: Run) -> None:
    """Raise :class:`ConfigError` where a component lacks what its group states, or does not suit another one."""
    _members(run)
    with _of("objective", run.objective, "check_outputs"):
        run.objective.check_outputs(run.outputs)
    _limit(run)
    _attacks(run)
    check_measures(run, run.measure)
    _schedule(run)
    with _of("data", run.data, "check"):
        run.data.check()


@contextmanager
def _of(key: str, component: Any, what: str) -> Iterator[None]:
    """What a component refuses, under the name of its group."""
    try:
        with in_one_line("", target_of(component), what):
            yield
    except ConfigError as error:
        raise error.under(key) from None


def attacks_of(run: Run) -> dict[str, Any]:
    """All attacks of ``run``, by key."""
    return {"attack": run.attack, **{f"eval_attacks.{name}": attack for name, attack in run.eval_attacks.items()}}


def _members(run: Run) -> None:
    factors = ("schedule", "geometry", "accumulator")  # a user's own optimizer may do without the last two
    inner = {f"optimizer.{name}": getattr(run.optimizer, name) for name in factors if hasattr(run.optimizer, name)}
    for key, value in inner.items():
        advice = f"is a component; write {key.replace('.', '/')}=<name>, with a slash"
        require(dataclasses.is_dataclass(value), key, value, advice)
    parts = {"data": run.data, "model": run.model, "objective": run.objective, "optimizer": run.optimizer}
    parts |= inner | attacks_of(run)
    parts |= {f"measure.{name}": one for name, one in run.measure.items()}
    for key, part in parts.items():
        group = key if key in MEMBERS else key.partition(".")[0]
        needed = MEMBERS["attack" if group == "eval_attacks" else group]
        with _of(key, part, "its properties"):
            missing = [name for name in needed if not hasattr(part, name)]
        says = f"has no {', '.join(missing)}; a component of this group states {', '.join(needed)}"
        require(not missing, key, target_of(part), says)
    for name, least in (("dimension", 1), ("n_classes", 2)):
        value = getattr(run.data, name)
        whole = isinstance(value, int) and value >= least
        require(whole, f"data.{name}", value, f"must be a whole number of {least} or more")


def _attacks(run: Run) -> None:
    linear = hasattr(run.model, "weight")
    for key, attack in attacks_of(run).items():
        advice = f"needs a model linear in its input, model={word(run.model)} is not; use attack=pgd"
        require(linear or not attack.closed_form, key, "exact", advice)
        threat = f"is another threat than p = {run.p:g}, whose eps this is; choose an attack for it, or set p"
        require(attack.p == run.p, f"{key}.p", attack.p, threat)
        with _of(key, attack, "check_fits"):
            attack.check_fits(run.outputs)
    advice = "is what the training attack is called; choose another name"
    require("train" not in run.eval_attacks, "eval_attacks", "train", advice)


def _limit(run: Run) -> None:
    if getattr(run.optimizer, "limit", False):
        exact = word(run.model) == "linear" and run.outputs == 1
        advice = "knows the limit for model=linear and two classes only"
        require(exact, "optimizer", "oracle", f"{advice}; this is model={word(run.model)}")
        formula = run.attack.closed_form or word(run.attack) == "noattack"
        require(formula, "optimizer", "oracle", "knows the limit under attack=exact and attack=none only")


def check_measures(run: Run, measures: dict[str, Any]) -> None:
    """Raise :class:`ConfigError` where a measure says by ``check_fits(run)`` that it cannot be taken of ``run``."""
    for name, one in measures.items():
        if hasattr(one, "check_fits"):
            with _of(f"measure.{name}", one, "check_fits"):
                one.check_fits(run)


def _schedule(run: Run) -> None:
    schedule = run.optimizer.schedule
    name = type(schedule).__module__.rpartition(".")[2]
    noisy = run.batch.size is not None and not (run.points is not None and run.batch.whole(run.points))
    says = "divides by the loss, which a mini-batch knows with noise only; optimizer/schedule=constant does not"
    reduced = getattr(run.objective, "reduction", None) in ("sum", "mean")
    says_so = "states no reduction, sum or mean: how the loss of a mini-batch counts is not known"
    require(not noisy or reduced, "objective", target_of(run.objective), says_so)
    limit = getattr(run.optimizer, "limit", False)
    require(not (noisy and limit), "batch.size", run.batch.size, "optimizer=oracle takes no steps; leave it out")
    require(not (noisy and schedule.divides_by_loss), "optimizer/schedule", name, says)
    # what looks at the update sets the length of the step itself, whatever the update's
    along = hasattr(schedule, "log_step_along")
    mirror = f"bounds the change of theta, of which optimizer={word(run.optimizer)} moves a function; use log_constant"
    require(not (along and hasattr(run.optimizer, "moved")), "optimizer/schedule", name, mirror)
    suits = run.optimizer.scales_with_loss or not schedule.divides_by_loss or along
    advice = (
        f"its step grows like 1 / loss, but optimizer={word(run.optimizer)} here does not shrink with the loss; "
        "use optimizer/schedule=constant, or optimizer.normalized=false where there is that option"
    )
    require(suits, "optimizer/schedule", name, advice)
    if hasattr(schedule, "check_fits"):
        with _of("optimizer/schedule", schedule, "check_fits"):
            schedule.check_fits(run)
