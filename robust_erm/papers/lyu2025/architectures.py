"""Which norm's robust margin a linear network comes to, by its architecture and the threat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from robust_erm.oracles.fourier import fourier_max_margin, transform
from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.linear_margins import Over, over_greatest, over_lp
from robust_erm.papers.matrices import SHOWN, of_own_norm, panels

Array = npt.NDArray[np.float64]
NAMES = {
    "linear": "linear", "deep": "fully connected, L = 2", "deep_3": "fully connected, L = 3",
    "diagonal": "diagonal, L = 2", "diagonal_3": "diagonal, L = 3", "conv": "convolutional, L = 2",
    "conv_3": "convolutional, L = 3",
}  # fmt: skip
OWN = {"linear": "l2", "deep": "l2", "deep_3": "l2", "diagonal": "l1", "conv": "fourier"}
THIRD = {"diagonal_3": ("diagonal", "quasi"), "conv_3": ("conv", "quasi_fourier")}  # beside which depth 2, in what
NORMS = ("l2", "l1", "fourier")
LABELS = {**SHOWN, "fourier": r"Fourier $\ell_1$"}
NEAR, STATIONARY = 0.95, 0.05


def _quasi(w: Array) -> float:
    """``(sum_i |w_i|^{2/3})^{3/2}``."""
    return float((np.abs(w) ** (2 / 3)).sum() ** 1.5)


OVER = {
    "l2": over_lp(2.0),
    "l1": over_lp(1.0),
    "fourier": Over(lambda w: float(transform(w).sum()), lambda z, p, eps: fourier_max_margin(z, p, eps).upper),
    "quasi": Over(_quasi, None),
    "quasi_fourier": Over(lambda w: _quasi(transform(w)), None),
}


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run and norm: sweep, p, eps (in margins), seed, ``norm``, and ``ratio``, the robust margin per that
    norm of w over the greatest. For ``quasi`` and ``quasi_fourier``, l_{2/3} of w and of its transform, ``ratio`` is
    the robust margin per that itself; for ``kkt``, the residual of the parameters at their worst-case points.
    """
    found = over_greatest(runs, OVER)
    residuals = runs[["sweep", "p", "eps", "seed"]].assign(norm="kkt", ratio=runs["kkt_stationarity"])
    return pd.concat([found, residuals.astype({"p": float})], ignore_index=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least margin of the linear predictor on the training set, after the worst perturbation, per a norm of it, in
    percent of the greatest there is: a row for each architecture of L layers, a column for each norm; without a threat,
    and at half the margin under l_2 and under l_inf. Mean over the draws and half of its 95 % interval. Framed: the
    norm that the architecture makes small, in bold the largest of its row. For three layers diagonal and convolutional
    networks make l_{2/3} small, which is no norm.
    """
    return panels(_parts(table), NAMES, NORMS, OWN, LABELS)


def _parts(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by threat; without one the exponent is of no matter, and those of one exponent are kept."""
    clean, robust = table[table["eps"] == 0], table[table["eps"] > 0]
    names = {2.0: r"$\ell_2$", np.inf: r"$\ell_\infty$"}
    found = {"clean": clean[clean["p"] == clean["p"].max()]}
    return found | {f"{names[p]}, half the margin": robust[robust["p"] == p] for p in sorted(set(robust["p"]))}


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Each architecture comes near the greatest margin of its own norm, and nearer than to any other's."""
    found = []
    for title, some in _parts(table).items():
        threat = title.replace("$", "").replace("\\ell", "l").replace("\\infty", "inf")
        by_norm = some.pivot_table(index=["sweep", "seed"], columns="norm", values="ratio", dropna=False)
        for name in (name for name in NAMES if name in set(some["sweep"])):
            each, text = by_norm.xs(name), f"{NAMES[name]}; {threat}"
            if name in OWN:
                mine = some[(some["sweep"] == name) & some["norm"].isin(NORMS)]
                where = "theorems of others" if threat == "clean" or name.startswith(("linear", "deep")) else "ours"
                found += of_own_norm(mine, "GD", OWN[name], NEAR, where, f"{OWN[name]}; {text}")
            elif (twin := THIRD[name][0]) in set(some["sweep"]):
                norm = THIRD[name][1]
                more, less = each[norm], by_norm.xs(twin)[norm]
                gained = (more - less) / np.maximum(more.abs(), less.abs())
                claim = f"of its own l_2/3 margin it finds more than two layers do ({text})"
                found.append(above(claim, "ours", gained, 0.0, "of the larger: "))
            if threat != "l_inf, half the margin":  # whose worst points jump where a weight is 0
                claim = f"it is near a KKT point of the margin per l_2 norm of its parameters ({text})"
                least = 1 - STATIONARY
                found.append(every(claim, "lyu2022 Thm 5", 1 - each["kkt"], least, "1 - missed: ", limit=True))
    ratio = table[table["norm"].isin(NORMS)]["ratio"]
    return [*found, every("no run exceeds the oracle's margin", "ours", 1 - ratio, -1e-6, "1 - ratio: ")]
