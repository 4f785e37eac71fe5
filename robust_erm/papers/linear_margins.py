"""The robust margins that linear predictors of two classes have found, over several norms, beside the greatest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from robust_erm.core.norms import Norm
from robust_erm.oracles.margin import norm
from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.papers.reproduced import predictor, signed_points

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Over:
    """What margins are divided by.

    Args:
        size: of w (d,).
        greatest: the greatest robust margin per that, of signed points (m, d), p and eps; None: not known.
    """

    size: Callable[[Array], float]
    greatest: Callable[[Array, float, float], float] | None


def over_lp(r: float) -> Over:
    """``||w||_r``."""
    return Over(lambda w: norm(w, r), lambda z, p, eps: robust_max_margin(z, r, p, eps).upper)


def over_greatest(runs: pd.DataFrame, norms: Mapping[str, Over]) -> pd.DataFrame:
    """One row a run and norm: sweep, p, eps (as the runs give it), seed, ``norm``, and ``ratio``, the robust margin
    ``min_i y_i <w, x_i> - eps ||w||_{p*}`` per that norm of w, over the greatest where that is known.
    """
    known: dict[tuple[object, ...], float] = {}
    rows = []
    for _, row in runs.iterrows():
        z, w = signed_points(row["folder"]), predictor(row["folder"])
        p, eps = float(row["p"]), float(row["eps_absolute"])
        margin = float((z @ w).min()) - eps * norm(w, Norm(p).dual.p)
        setting = {"sweep": row["sweep"], "p": p, "eps": row["eps"], "seed": row["seed"]}
        for name, over in norms.items():
            key = row["seed"], p, eps, name
            if key not in known:
                known[key] = 1.0 if over.greatest is None else over.greatest(z, p, eps)
            rows.append({**setting, "norm": name, "ratio": margin / over.size(w) / known[key]})
    return pd.DataFrame(rows)
