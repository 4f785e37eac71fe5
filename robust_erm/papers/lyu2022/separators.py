"""The separators that training of linear networks is held against, and how far from them it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from robust_erm.data.dataset import Array
from robust_erm.oracles.margin import max_margin
from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.papers.reproduced import signed_points
from robust_erm.reports.tables import snapshots
from robust_erm.store.reading import run_of


@dataclass(frozen=True)
class Separators:
    """Exact separators of one training set, each of l_2 length 1.

    Args:
        robust: argmax of ``(min_i y_i <w, x_i> - eps ||w||_{p*}) / ||w||_2``, (d,).
        value: that greatest robust margin.
        plain: argmax of ``min_i y_i <w, x_i> / ||w||_2``: the limit as eps goes to 0.
        threat: argmax of ``min_i y_i <w, x_i> / ||w||_{p*}``: the limit as eps goes to eps*.
    """

    robust: Array
    value: float
    plain: Array
    threat: Array


def separators(z: Array, p: float, eps: float) -> Separators:
    """Those of signed points ``z`` (m, d) under an l_p threat of radius ``eps``, below their l_p margin."""
    robust, plain, threat = robust_max_margin(z, 2, p, eps), max_margin(z, 2), max_margin(z, p)
    unit = [found.w / np.linalg.norm(found.w) for found in (robust, plain, threat)]
    return Separators(unit[0], robust.value, unit[1], unit[2])


def of_draws(runs: pd.DataFrame) -> dict[tuple[float, float, int], Separators]:
    """The separators by (p, eps, seed) of ``runs``, eps as configured; all runs draw from the same data."""
    keys = runs.drop_duplicates(["p", "eps", "seed"])
    known = zip(keys["p"], keys["eps"], keys["seed"], keys["eps_absolute"], keys["folder"], strict=True)
    return {
        (float(p), float(eps), int(seed)): separators(signed_points(folder), float(p), float(absolute))
        for p, eps, seed, absolute, folder in known
    }


def apart(w: Array, u: Array) -> Array:
    """``1 - cos`` of w (..., d) and u (d,), as ``|| w/||w|| - u/||u|| ||^2 / 2``: exact where it is small.

    nan where w = 0.
    """
    with np.errstate(invalid="ignore"):
        chord = w / np.linalg.norm(w, axis=-1, keepdims=True) - u / np.linalg.norm(u)
    found: Array = (chord**2).sum(-1) / 2
    return found


def depth(runs: pd.DataFrame) -> pd.Series:
    """Layers of each run; 1 for ``model=linear``."""
    deep = runs["model.depth"] if "model.depth" in runs else pd.Series(np.nan, index=runs.index)
    return deep.fillna(1).astype(int)


def path(folder: str | Path) -> tuple[list[int], Array]:
    """Steps (T,) and weights (T, d) of the predictor there, of a run with ``snapshots=true``."""
    model = run_of(folder).model
    steps, kept = snapshots(folder)
    return steps, np.array([model.weight({k: v.double() for k, v in params.items()}).numpy() for params in kept])
