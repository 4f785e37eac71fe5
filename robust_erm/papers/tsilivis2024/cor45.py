"""Corollary 4.5: steepest descent in l_{p*} finds the separator of the l_p margin, whatever eps."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.margins import name_of
from robust_erm.core.norms import Norm
from robust_erm.oracles.margin import max_margin
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.reproduced import signed_points
from robust_erm.reports.style import COLOURS, COLUMN, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run with r = p*: ``ratio`` of its robust margin per ||w||_{p*} to eps* - eps."""
    rows = []
    for _, run in runs[~runs["optimizer"].str.startswith("oracle")].iterrows():
        p, r = float(run["p"]), float(run["optimizer.r"])
        if Norm(p).dual.p == r:
            exact = max_margin(signed_points(run["folder"]), p).value
            margin, eps = run[f"w_margin_robust_{name_of(r)}"], run["eps_absolute"]
            row = {"p": p, "r": r, "eps_share": run["eps"], "seed": run["seed"], "init_scale": run["model.init_scale"]}
            rows.append({**row, "eps": eps, "eps_star": exact, "margin": margin, "ratio": margin / (exact - eps)})
    return pd.DataFrame(rows).sort_values(["p", "eps_share", "seed"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The robust margin that steepest descent reaches against the greatest possible, eps* - eps; a mark a run, on the
    diagonal where they are equal.
    """
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        for k, (p, some) in enumerate(table.groupby("p")):
            name = r"\infty" if math.isinf(float(str(p))) else f"{p:g}"
            ax.plot(
                some["eps_star"] - some["eps"], some["margin"], "osv"[k], color=COLOURS[k], ms=4, label=rf"$p={name}$"
            )
        ends = (0, 1.05 * float((table["eps_star"] - table["eps"]).max()))
        ax.plot(ends, ends, color="0.7", lw=0.7, zorder=0)
        ax.set(xlabel=r"$\epsilon^* - \epsilon$", ylabel=r"robust margin per $\|w\|_{p^*}$")
        ax.legend(frameon=False)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """One for each threat."""
    return [
        every(
            f"l_{p:g} threat: steepest descent in its dual geometry reaches eps* - eps", "Cor. 4.5",
            some["ratio"], 0.99, "ratio: ", limit=True,
        )
        for p, some in table.groupby("p")
    ]  # fmt: skip
