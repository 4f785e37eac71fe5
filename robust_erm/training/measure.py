"""What is measured of runs at one step: a row of plain numbers for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.attack import Attack
from robust_erm.core.margins import by_layers, divisors, layer_norms, normalised, over_power, spectral
from robust_erm.core.norms import Norm
from robust_erm.data.dataset import GaussianTeacher
from robust_erm.optimizers.spectral import Spectral
from robust_erm.oracles.risk import gaussian_accuracy
from robust_erm.training.attacked import attacked, clean
from robust_erm.training.points import Points
from robust_erm.training.runs import Runs

Row = dict[str, float]


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
    """

    test: Points | SparsePoints | None
    laws: list[GaussianTeacher | None]
    attacks: dict[str, Attack]
    eps: Tensor


def log_spaced(steps: int, per_decade: int, every: int | None = None) -> list[int]:
    """0, 1, ..., steps, about ``per_decade`` of them in each decade, both ends included; and each ``every``."""
    if steps == 0:
        return [0]
    count = max(1, math.ceil(per_decade * math.log10(max(steps, 2))))
    spaced = {round(10 ** (k / per_decade)) for k in range(count) if 10 ** (k / per_decade) < steps}
    return sorted({0, steps, *spaced, *(range(every, steps, every) if every else ())})


def measure(runs: Runs, evaluation: Evaluation, rows: Tensor) -> list[Row]:
    """One row for each of the runs ``rows``, at their present parameters.

    log_loss is the training loss, worst-case under the training attack. Accuracies count positive
    margins. A robust accuracy is over the worst of all attacks, the clean point included, sample by
    sample; ``..._<attack>`` is that of one attack alone. Margins are least margins over the
    training set: ``margin_*_l2`` divides by ``||theta||_2^L``, ``w_margin_*_l2`` (models linear
    in their input) by ``||w||_2`` of the predictor w, and so on; see :mod:`robust_erm.core.margins`.
    """
    columns: dict[str, Tensor] = {"log_loss": runs.log_losses(rows)}
    attacks = {"train": runs.recipe.attack, **evaluation.attacks}
    for part, points in (("train", runs.train), ("test", evaluation.test)):
        if points is None:
            continue
        if isinstance(points, SparsePoints):
            columns |= _accuracies(runs, points, attacks, evaluation.eps, rows)
            continue
        untouched = worst = clean(runs, points, rows)
        for name, attack in attacks.items():
            margins = attacked(runs, attack, points, evaluation.eps, rows)
            worst = torch.minimum(worst, margins)
            if evaluation.attacks:
                columns[f"{part}_robust_acc_{name}"] = _accuracy(margins)
        columns[f"{part}_clean_acc"], columns[f"{part}_robust_acc"] = _accuracy(untouched), _accuracy(worst)
        if part == "train":
            columns["margin_clean"], columns["margin_robust"] = untouched.amin(-1), worst.amin(-1)
    predictors = runs.predictors(rows)
    columns |= _normalised(runs, rows, columns, predictors)
    table = {name: column.tolist() for name, column in columns.items()}
    result = [{name: float(column[k]) for name, column in table.items()} for k in range(len(rows))]
    for k, i in enumerate(rows.tolist()):
        law = evaluation.laws[i]
        if law is not None and predictors is not None and predictors.ndim == 2:
            w, eps = predictors[k].cpu().double().numpy(), float(evaluation.eps[i])
            result[k]["test_clean_acc"] = gaussian_accuracy(w, law.w_star, 0.0, 2.0)
            result[k]["test_robust_acc"] = gaussian_accuracy(w, law.w_star, eps, runs.recipe.attack.p)
        for kind in ("clean", "robust"):
            result[k][f"gap_{kind}"] = result[k][f"train_{kind}_acc"] - result[k][f"test_{kind}_acc"]
    return result


def _accuracies(
    runs: Runs, points: SparsePoints, attacks: dict[str, Attack], eps: Tensor, rows: Tensor
) -> dict[str, Tensor]:
    """Test accuracies from one product for all runs of a set: ``y <w, x> > eps ||w||_{p*}``, or 0 for no attack."""
    w: Tensor = runs.predictors(rows).double().cpu()  # type: ignore[union-attr]
    radii = eps[rows].double().cpu()
    lost = {k: radii * Norm(a.p).dual.value(w) if a.closed_form else 0 * radii for k, a in attacks.items()}
    named = {f"test_robust_acc_{name}": size for name, size in lost.items()} if len(attacks) > 1 else {}
    worst = torch.stack(list(lost.values())).amax(0)
    thresholds = {**named, "test_clean_acc": 0 * radii, "test_robust_acc": worst.clamp_min(0)}
    found = {name: torch.empty_like(radii) for name in thresholds}
    of_run = points.of_run[rows].cpu()
    for k, (x, y) in enumerate(points.sets):
        members = (of_run == k).nonzero().squeeze(-1)
        if len(members):
            margins = torch.from_numpy((x @ w[members].numpy().T) * y[:, None])
            for name, threshold in thresholds.items():
                found[name][members] = (margins > threshold[members]).double().mean(0)
    return found


def _accuracy(margins: Tensor) -> Tensor:
    return (margins > 0).sum(-1).cpu().double() / margins.shape[-1]


def _normalised(runs: Runs, rows: Tensor, columns: dict[str, Tensor], predictors: Tensor | None) -> dict[str, Tensor]:
    """Margins over norms, and the norms: of the parameters, of each layer, of the predictor."""
    recipe = runs.recipe
    degree = recipe.model.degree
    norms = divisors(getattr(recipe.optimizer, "r", None))
    own_spectral = isinstance(recipe.optimizer, Spectral)
    layered = degree == len(recipe.layout.shapes) and all(len(shape) > 1 for _, shape in recipe.layout.shapes)

    def one(theta: Tensor, clean: Tensor, robust: Tensor, w: Tensor | None) -> dict[str, Tensor]:
        params = recipe.layout.unflatten(theta)
        found: dict[str, Tensor] = {}
        for kind, least in (("clean", clean), ("robust", robust)):
            if degree is not None:
                found |= normalised(least, theta, degree, f"margin_{kind}", norms)
            if own_spectral and degree is not None:
                found[f"margin_{kind}_spectral"] = over_power(least, spectral(params), degree)
            if layered:
                found[f"margin_{kind}_layers"] = by_layers(least, params)
            if w is not None and w.ndim == 1:
                found |= normalised(least, w, 1, f"w_margin_{kind}", norms)
        found |= {f"norm_{name}": norm.value(theta) for name, norm in norms.items()}
        if w is not None:
            found |= {f"w_norm_{name}": norm.value(w.reshape(-1)) for name, norm in norms.items()}
        if len(params) > 1:
            found |= {f"norm_layer_{name}": size for name, size in layer_norms(params).items()}
        return found

    in_dims = (0, 0, 0, None if predictors is None else 0)
    least = columns["margin_clean"], columns["margin_robust"]
    result: dict[str, Tensor] = vmap(one, in_dims=in_dims)(runs.theta[rows], *least, predictors)
    return result
