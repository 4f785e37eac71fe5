"""From resolved configs to tensors: data sets, radii, and the stacked runs of a pack."""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.errors import ConfigError, require
from robust_erm.core.fields import numbers, unchanged
from robust_erm.core.params import Layout, Params
from robust_erm.core.streams import torch_stream
from robust_erm.data.dataset import Data, Dataset, checked
from robust_erm.oracles.classes import max_margin_of_classes
from robust_erm.oracles.margin import max_margin
from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.store.config import Run
from robust_erm.store.identity import target_of, word
from robust_erm.training.measure import Evaluation, SparsePoints
from robust_erm.training.order import order_of
from robust_erm.training.points import Points
from robust_erm.training.precision import strict
from robust_erm.training.runs import Runs
from robust_erm.training.step import Recipe

log = logging.getLogger("robust_erm")

_CLOSE = 1e-9  # relative: a radius so near to the exact margin counts as at it


def differing(optimizers: list[Any], options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The optimizers' per-run fields whose values differ, (R,) each."""
    table = [numbers(optimizer) for optimizer in optimizers]
    paths = [path for path in table[0] if len({row[path] for row in table}) > 1]
    return {path: torch.tensor([row[path] for row in table], **options) for path in paths}


def unattacked(run: Run) -> bool:
    """Whether nothing that is asked for attacks, at a radius above 0: its robust numbers would be the clean ones."""
    radius = run.eps if run.eval_eps is None else run.eval_eps
    return radius > 0 and all(unchanged(attack, NoAttack) for attack in (run.attack, *run.eval_attacks.values()))


def attacks_beside(run: Run, domain: tuple[float, float] | None) -> dict[str, Any]:
    """The attacks beside training's own that robust numbers are the least of, by name.

    They are those asked for; the closed form, where the worst case is known; and, where nothing attacks, PGD (FGM in
    norms other than l_1, l_2 and l_inf).

    Raises:
        ConfigError: one that leaves the data's domain, which training's attack keeps to: another threat.
    """
    found = dict(run.eval_attacks)
    if domain is not None and getattr(run.attack, "box", False):
        says = f"leaves the data's domain {list(domain)}, which attack keeps to: another threat, the whole ball"
        for name, attack in found.items():
            inside = not attack.closed_form and getattr(attack, "box", True)
            require(inside, f"eval_attacks.{name}", word(attack), f"{says}; leave it out, or set attack.box=false")
    if hasattr(run.model, "weight") and domain is None:
        if not any(attack.closed_form for attack in (run.attack, *found.values())):
            found["exact"] = Exact(run.p)
    elif unattacked(run):
        found["pgd"] = PGD(run.p) if run.p in (1, 2, math.inf) else FGM(run.p)
    return found


@lru_cache(maxsize=4)
def draw(data: Data, seed: int) -> Dataset:
    """The data set of ``seed``, held against what data sets must be; the last few are kept."""
    return checked(data.draw(seed), data.dimension, data.n_classes, target_of(data))


MARGINS: dict[tuple[Data, int, float], float | str] = {}
"""What :func:`exact_margin` has found in this process, or was told by another: a margin, or why there is none."""


def exact_margin(data: Data, seed: int, p: float) -> float:
    """eps*: the exact l_p margin of the training set of ``seed``, 0 where it is not separable.

    Of several classes (:func:`robust_erm.oracles.classes.max_margin_of_classes`) the certain side of an interval.

    Raises:
        ArithmeticError: it could not be found, or the data set is not what it must be; tried once.
    """
    key = (data, seed, p)
    if key not in MARGINS:
        try:
            found = draw(data, seed)
            if data.n_classes > 2:
                MARGINS[key] = max_margin_of_classes(found.x_train, found.y_train, p, data.n_classes).value
            else:
                MARGINS[key] = max_margin(found.x_train * found.y_train[:, None], p).value
        except (ArithmeticError, ConfigError) as error:
            MARGINS[key] = str(error)
    value = MARGINS[key]
    if isinstance(value, str):
        raise ArithmeticError(value)
    return value


def radii(run: Run) -> tuple[float, float]:
    """Absolute radii of training and evaluation.

    Raises:
        ConfigError: eps counts in margins and the training set has none.
    """
    unit = 1.0
    if run.eps_unit == "margin":
        unit = exact_margin(run.data, run.seed, run.attack.p)
        if unit == 0:
            raise ConfigError("eps_unit", "margin", f"the training set of seed {run.seed} is not linearly separable")
    return unit * run.eps, unit * (run.eps if run.eval_eps is None else run.eval_eps)


def warn_if_not_separable(run: Run) -> None:
    """Say before training that no linear model is robust on all training points."""
    if run.outputs == 1 and hasattr(run.model, "weight") and run.attack.closed_form:
        try:
            margin, eps = exact_margin(run.data, run.seed, run.attack.p), radii(run)[0]
        except ArithmeticError as error:  # a warning that cannot be given ends no run
            log.info("not known whether eps is above the exact margin: %s", error, extra={"run": run.name})
            return
        if eps >= margin * (1 - _CLOSE):
            log.warning(
                "%s: eps = %g is not below the training set's exact l_%g margin %.6g: "
                "no linear model is robust on all training points, and the loss has a minimum",
                run.name,
                eps,
                run.attack.p,
                margin,
                extra={"run": run.name},
            )


def _init(run: Run) -> Params:
    params: Params = run.model.init(run.data.dimension, run.outputs, torch_stream(run.seed, "init"))
    return params


def _limit(run: Run) -> Params:
    """What ``optimizer=oracle`` stands for: the robust max-margin separator, scaled to robust margin 1.

    Raises:
        ConfigError: there is no separator, or rounding would decide.
    """
    eps = radii(run)[0] if run.attack.closed_form else 0.0
    dataset = draw(run.data, run.seed)
    try:
        found = robust_max_margin(dataset.x_train * dataset.y_train[:, None], run.optimizer.r, run.attack.p, eps)
    except ArithmeticError as error:
        raise ConfigError("optimizer", "oracle", f"{error} (seed {run.seed})") from None
    if found.value == 0:
        size = np.linalg.norm(found.delta, run.attack.p)
        why = f"no linear model is robust on the training points of seed {run.seed} at eps = {eps:.6g}: a convex"
        raise ConfigError(
            "optimizer", "oracle", f"{why} combination of them, y_i x_i, has l_{run.attack.p:g} norm {size:.6g}"
        )
    return {"w": torch.from_numpy(found.w / found.value)}


def build(runs: list[Run], device: torch.device) -> tuple[Runs, Evaluation, list[int]]:
    """Runs with equal :func:`robust_erm.sweeps.plan.pack_key`, stacked, and how many test points each is sampled on."""
    strict()
    first = runs[0]
    drawn = {(run.data, run.seed): draw(run.data, run.seed) for run in runs}
    datasets = [drawn[run.data, run.seed] for run in runs]
    options: dict[str, Any] = {"dtype": first.torch_dtype, "device": device}
    distinct, which = list(drawn.values()), {key: k for k, key in enumerate(drawn)}
    of_run = torch.tensor([which[run.data, run.seed] for run in runs])

    def points(part: str) -> Points:
        xs, ys = (np.stack([getattr(dataset, f"{kind}_{part}") for dataset in distinct]) for kind in "xy")
        # copied: NumPy aligns less than torch does, and the bits of a product may depend on alignment
        x, y = (torch.as_tensor(a).to(**options, copy=True) for a in (xs, ys))
        return Points(x, y, of_run.to(device))

    limit = getattr(first.optimizer, "limit", False)
    inits = [_limit(run) if limit else _init(run) for run in runs]
    layout = Layout.of(inits[0])
    both = [radii(run) for run in runs]
    eps, eval_eps = (torch.tensor([pair[k] for pair in both], **options) for k in (0, 1))
    target = [math.inf if limit else run.stop.target for run in runs]
    n, sparse = len(datasets[0].y_train), getattr(first.data, "sparse", False)
    recipe = Recipe(first.model, layout, first.objective, first.optimizer, first.attack, datasets[0].domain, sparse)
    pack = Runs(
        recipe=recipe,
        train=points("train"),
        eps=eps,
        theta=torch.stack([layout.flatten(params) for params in inits]).to(**options),
        seeds=[run.seed for run in runs],
        target=torch.tensor(target, **options),
        steps=first.steps_on(n),
        order=order_of(first.batch, n),
        numbers=differing([run.optimizer for run in runs], options),
        most=first.trainer.points,
        graphs=first.trainer.graphs and device.type == "cuda",
    )
    exact = hasattr(first.model, "weight") and all(dataset.law is not None for dataset in datasets)
    laws = [dataset.law if exact else None for dataset in datasets]
    attacks = attacks_beside(first, datasets[0].domain)
    linear = hasattr(first.model, "weight") and first.outputs == 1
    formulas = all(attack.closed_form or unchanged(attack, NoAttack) for attack in (first.attack, *attacks.values()))
    test: Points | SparsePoints | None = None
    if not exact and linear and formulas and all(dataset.sparse_test is not None for dataset in distinct):
        test = SparsePoints([(dataset.sparse_test, dataset.y_test) for dataset in distinct], of_run)
    elif not exact:
        test = points("test")
    evaluation = Evaluation(test, laws, attacks, eval_eps, first.measure)
    sizes = [0 if exact else len(dataset.y_test) for dataset in datasets]
    return pack, evaluation, sizes
