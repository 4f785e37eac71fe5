"""Remark 4.4: the robust max-margin separator is that of min ||w||_r + lambda ||w||_{p*}, without the attack."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.norms import Norm
from robust_erm.oracles.margin import norm
from robust_erm.oracles.regularised import least_penalty
from robust_erm.papers.claims import Claim, every, stated
from robust_erm.papers.reproduced import predictor, signed_points
from robust_erm.reports.style import COLOURS, COLUMN, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each oracle's run: lambda = eps / margin, and the optimum of (13) from it and from a solver.

    With margin the greatest robust margin per ||w||_r and w its separator: the multipliers of (12) sum to
    1 / margin, and eps times that sum multiplies ||w||_{p*} in its Lagrangian, which is that of (13). Both
    problems then have the optimum 1 / margin; that lambda increases with eps follows, as margin decreases.
    """
    rows = []
    for _, run in runs.iterrows():
        r, p, eps = float(run["optimizer.r"]), float(run["p"]), float(run["eps_absolute"])
        z, w = signed_points(run["folder"]), predictor(run["folder"])
        dual = Norm(p).dual.p
        w = w / norm(w, r)
        margin = float((z @ w).min()) - eps * norm(w, dual)
        lam = eps / margin
        here = (1 + lam * norm(w, dual)) / float((z @ w).min())
        there = least_penalty(z, r, dual, lam)
        row = {"r": r, "p": p, "eps": run["eps"], "seed": run["seed"], "lambda": lam, "here": here, "there": there}
        rows.append({**row, "difference": here / there - 1})
    return pd.DataFrame(rows).sort_values(["p", "r", "eps", "seed"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The multiplier lambda(eps) of eq. (13) against eps, for threats l_p and geometries l_r: lines are means over the
    draws, bands reach from the least to the greatest. With r = p* it is eps / (eps* - eps), whatever p: two lines
    coincide.
    """
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        for k, ((p, r), some) in enumerate(table[table["eps"] > 0].groupby(["p", "r"])):
            by_eps = some.groupby("eps")["lambda"]
            names = ["∞" if x == np.inf else f"{x:g}" for x in (p, r)]
            line = "s--" if p == np.inf else "o-"  # with r = p* lambda = eps / (eps* - eps): two of the lines coincide
            ax.plot(by_eps.mean(), line, ms=3, lw=1.2, color=COLOURS[k], label=f"p = {names[0]}, r = {names[1]}")
            ax.fill_between(by_eps.mean().index, by_eps.min(), by_eps.max(), color=COLOURS[k], alpha=0.15, lw=0)
        ax.set(yscale="log", xlabel=r"$\epsilon / \epsilon^*$", ylabel=r"$\lambda(\epsilon)$ of eq. (13)")
        ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Equivalence, and that lambda increases."""
    claim = "the separator of (12) minimises (13) with lambda = eps / (greatest robust margin per ||w||_r)"
    text = "1 - relative difference of (13) at the separator and its optimum by a solver: "
    found = [every(claim, "Remark 4.4; lambda ours", 1 - table["difference"].abs(), 1 - 1e-6, text)]
    rising = [
        bool((np.diff(some.sort_values("eps")["lambda"]) > 0).all()) for _, some in table.groupby(["p", "r", "seed"])
    ]
    text = f"in {sum(rising)} of {len(rising)} cases (p, r, draw)"
    found.append(stated("the coefficient lambda increases with eps", "Remark 4.4", text, all(rising)))
    return found
