"""What is measured of runs at one step: a row of plain numbers for each."""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.attack import Attack
from robust_erm.core.errors import ConfigError, in_one_line, one_of, require
from robust_erm.core.fields import takes_runs
from robust_erm.core.norms import Norm
from robust_erm.core.params import Params
from robust_erm.data.dataset import GaussianTeacher
from robust_erm.measures.accuracies import Accuracies
from robust_erm.measures.epoch import Epoch
from robust_erm.measures.loss import Loss
from robust_erm.measures.margins import Margins
from robust_erm.measures.measure import CLEAN, TRAIN, WORST, Look, Measure
from robust_erm.measures.norms import Norms
from robust_erm.oracles.risk import gaussian_accuracy
from robust_erm.store.config import Run
from robust_erm.store.identity import target_of
from robust_erm.training.attacked import attacked_outputs, attacked_points, clean_outputs, margins_of
from robust_erm.training.points import Points
from robust_erm.training.runs import Runs

Row = dict[str, float]

STANDARD: dict[str, Measure] = {
    "epoch": Epoch(),
    "loss": Loss(),
    "accuracies": Accuracies(),
    "margins": Margins(),
    "norms": Norms(),
}
"""What is measured of every run; one of the same name that is asked for stands in its place."""


@dataclass(frozen=True)
class SparsePoints:
    """Test points for models linear in their input: D sets (x (n, d), y (n,)), and the set of every run, (R,)."""

    sets: list[tuple[sparse.csr_array, npt.NDArray[np.float64]]]
    of_run: Tensor


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate with.

    Args:
        test: test points; None where every run's population law is known and its model linear.
        laws: of every run, or None.
        attacks: evaluation attacks by name, beside the training attack.
        eps: (R,) radii of the evaluation.
        measures: by name, beside the standard ones.
    """

    test: Points | SparsePoints | None
    laws: list[GaussianTeacher | None]
    attacks: dict[str, Attack]
    eps: Tensor
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def taken(self, when: str) -> dict[str, Measure]:
        """The measures ``along`` training, the standard ones too; at its ``end``; ``after`` it, all of one's own."""
        if when == "after":
            return dict(self.measures)
        own = {name: one for name, one in self.measures.items() if getattr(one, "when", "along") == when}
        return own if when == "end" else {**STANDARD, **own}


_OF_SUMMARIES = (
    "id name status step folder lost_separation_at measured test_accuracy parameters degree seconds pack_size kernel "
    "date fingerprint device git python versions host_cores eps_absolute eval_eps_absolute"
)
KEPT = frozenset([*_OF_SUMMARIES.split(), *(one.name for one in fields(Run))])
"""Names that summaries, configs and tables have for other things than measurements."""


def log_spaced(steps: int, per_decade: int, every: int | None = None) -> list[int]:
    """0, 1, ..., steps, about ``per_decade`` of them in each decade, both ends included; and each ``every``."""
    if steps == 0:
        return [0]
    count = max(1, math.ceil(per_decade * math.log10(max(steps, 2))))
    spaced = {round(10 ** (k / per_decade)) for k in range(count) if 10 ** (k / per_decade) < steps}
    return sorted({0, steps, *spaced, *(range(every, steps, every) if every else ())})


def measure(runs: Runs, evaluation: Evaluation, rows: Tensor, when: str = "along") -> list[Row]:
    """One row for each of the runs ``rows``, at their present parameters: the columns of all measures, in order."""
    looks, found = _Looks(runs, evaluation, rows), [Row() for _ in range(len(rows))]
    for name, one in evaluation.taken(when).items():
        key, target = f"measure.{name}", target_of(one)
        with in_one_line(key, target, "measure"):
            each = _columns(one, looks)
        for row, columns in zip(found, each, strict=True):
            wrong = [c for c in columns if not re.fullmatch(r"[A-Za-z]\w*", str(c))]
            require(not wrong, key, target, f"names a number {wrong[:1]}, must name each by a word: my_number")
            twice = sorted(columns.keys() & row.keys())
            require(not twice, key, target, f"gives {', '.join(twice)}, as another measure does")
            kept = sorted(columns.keys() & KEPT)
            require(
                not kept, key, target, f"gives {', '.join(kept)}, which a summary or config has; choose another name"
            )
            row |= columns
    return found


def _columns(one: Measure, looks: _Looks) -> list[Row]:
    """What a measure gives of each run: by itself of one after the other, unless it takes them at once."""
    if not takes_runs(one):
        return [
            {k: float(v) for k, v in one.measure(cast(Look, _Alone(looks, k))).items()} for k in range(len(looks.rows))
        ]
    table: dict[str, list[float]] = {k: torch.as_tensor(v).tolist() for k, v in one.measure(looks).items()}
    return [{name: float(column[k]) for name, column in table.items()} for k in range(len(looks.rows))]


class _Looks:
    """What measures look at (:class:`robust_erm.measures.measure.Look`), of the runs ``rows``: with a run axis."""

    def __init__(self, runs: Runs, evaluation: Evaluation, rows: Tensor) -> None:
        self.runs, self.evaluation, self.rows = runs, evaluation, rows
        recipe = runs.recipe
        self.model, self.objective, self.optimizer = recipe.model, recipe.objective, recipe.optimizer
        self.attack, self.layout = recipe.attack, recipe.layout
        self.theta, self.eps = runs.theta[rows], evaluation.eps[rows]
        self.step = torch.where(runs.stopped_at[rows] >= 0, runs.stopped_at[rows], runs.t)
        self.epoch_steps = None if runs.order is None else runs.order.steps
        self._attacks: dict[str, Attack] = {TRAIN: recipe.attack, **evaluation.attacks}
        self.attacks = tuple(self._attacks)
        self._kept: dict[Any, Tensor] = {}

    @cached_property
    def params(self) -> Params:
        return self.layout.unflatten(self.theta)

    @cached_property
    def predictor(self) -> Tensor | None:
        return self.runs.predictors(self.rows)

    @cached_property
    def log_loss(self) -> Tensor:
        return self.runs.log_losses(self.rows)

    @cached_property
    def gradient(self) -> Tensor:
        return self.runs.losses_and_gradients(self.rows)[1]

    def points(self, part: str = "train") -> tuple[Tensor, Tensor]:
        return self._points(part).of(self.rows)

    def attacked(self, attack: str, part: str = "train") -> Tensor:
        if attack == CLEAN:
            return self.points(part)[0]
        own = self._attack(attack)
        return self._once(
            ("x", attack, part),
            lambda: attacked_points(self.runs, own, self._points(part), self.evaluation.eps, self.rows),
        )

    def margins(self, attack: str, part: str = "train") -> Tensor:
        if attack == WORST:
            each = [self.margins(name, part) for name in (CLEAN, *self.attacks)]
            return self._once((attack, part), lambda: torch.stack(each).amin(0))
        return self._once((attack, part), lambda: margins_of(self._outputs(attack, part), self.points(part)[1]))

    def loss(self, attack: str) -> Tensor:
        found: Tensor = vmap(self.objective.log_loss)(self._outputs(attack, "train"), self.points()[1])
        return found

    def accuracy(self, attack: str, part: str = "train") -> Tensor | None:
        if part == "test" and self.evaluation.test is None:
            return self._exact(attack)
        if part == "test" and isinstance(self.evaluation.test, SparsePoints):
            return self._sparse(self.evaluation.test, attack)
        margins = self.margins(attack, part)
        return (margins > 0).sum(-1).cpu().double() / margins.shape[-1]

    def at(self, theta: Tensor) -> _Looks:
        """The same runs at other parameters (len(rows), P)."""
        return self._moved(self.runs.theta.index_copy(0, self.rows, theta), self.rows)

    def alone(self, k: int, theta: Tensor) -> _Looks:
        """One of the runs, by its place among them, at theta (P,)."""
        whole = theta.expand(len(self.runs.theta), -1)  # no copy: only one row of it is looked at
        return self._moved(whole, self.rows[k : k + 1])

    def _moved(self, theta: Tensor, rows: Tensor) -> _Looks:
        runs = copy.copy(self.runs)
        runs.theta = theta
        return _Looks(runs, self.evaluation, rows)

    def _attack(self, name: str) -> Attack:
        one_of("measure: attack", name, [CLEAN, WORST, *self.attacks])
        require(name != WORST, "measure: attack", name, "is several attacks, point by point; name one")
        return self._attacks[name]

    def _points(self, part: str) -> Points:
        one_of("measure: part", part, ["train", "test"])
        found = self.runs.train if part == "train" else self.evaluation.test
        if isinstance(found, Points):
            return found
        raise ConfigError("measure: part", part, "has no points here: look.accuracy knows it in closed form")

    def _outputs(self, attack: str, part: str) -> Tensor:
        points = self._points(part)
        if attack == CLEAN:
            return self._once((attack, part, "f"), lambda: clean_outputs(self.runs, points, self.rows))
        own, eps = self._attack(attack), self.evaluation.eps
        return self._once((attack, part, "f"), lambda: attacked_outputs(self.runs, own, points, eps, self.rows))

    def _once(self, key: Any, of: Any) -> Tensor:
        if key not in self._kept:
            self._kept[key] = of()
        return self._kept[key]

    def _exact(self, attack: str) -> Tensor | None:
        """Of the population, whose law is known: for clean points and the worst case of linear models."""
        if attack not in (CLEAN, WORST):
            return None
        assert self.predictor is not None, "laws are for models linear in their input"
        found, p = [], self.attack.p
        for k, i in enumerate(self.rows.tolist()):
            law, w = self.evaluation.laws[i], self.predictor[k].cpu().double().numpy()
            known = law is not None and w.ndim == 1
            eps, norm = (0.0, 2.0) if attack == CLEAN else (float(self.eps[k]), p)
            found.append(gaussian_accuracy(w, law.w_star, eps, norm) if known and law is not None else math.nan)
        return torch.tensor(found, dtype=torch.float64)

    def _sparse(self, points: SparsePoints, attack: str) -> Tensor:
        """From one product for all runs of a set: ``y <w, x> > eps ||w||_{p*}``, or 0 for no attack."""
        assert self.predictor is not None, "sparse points are for models linear in their input"
        w, radii = self.predictor.double().cpu(), self.eps.double().cpu()
        lost = {k: radii * Norm(a.p).dual.value(w) if a.closed_form else 0 * radii for k, a in self._attacks.items()}
        lost |= {CLEAN: 0 * radii, WORST: torch.stack(list(lost.values())).amax(0).clamp_min(0)}
        found, of_run = torch.empty_like(radii), points.of_run[self.rows.cpu()]
        for k, (x, y) in enumerate(points.sets):
            members = (of_run == k).nonzero().squeeze(-1)
            if len(members):
                margins = self._once(
                    ("sparse", k), lambda x=x, y=y, at=members: torch.from_numpy((x @ w[at].numpy().T) * y[:, None])
                )
                found[members] = (margins > lost[attack][members]).double().mean(0)
        return found


class _Alone:
    """One of the runs that are looked at: the same without the run axis."""

    def __init__(self, looks: _Looks, k: int) -> None:
        self._looks, self._k = looks, k

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._looks, name)
        return partial(self._asked, found) if inspect.ismethod(found) else self._own(found)

    def at(self, theta: Tensor) -> _Alone:
        return _Alone(self._looks.alone(self._k, theta), 0)

    def _asked(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        return self._own(method(*args, **kwargs))

    def _own(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: part[self._k] for name, part in value.items()}
        if isinstance(value, tuple):
            return tuple(map(self._own, value))
        return value[self._k] if isinstance(value, Tensor) else value
