"""Corollary 4.7 and Proposition 4.8: gradient descent on the diagonal net finds the least ||w||_1."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.reports.style import COLOURS, COLUMN, style
from robust_erm.reports.tables import read_curves


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement of a trained run.

    ``l1`` is ||w||_1 and ``half_u`` is ||u||_2^2 / 2, both at robust margin 1; ``least`` the optimum of
    eq. (17), by the oracle; ``ratio`` is least / l1 and ``ratio_u`` is least / (2 half_u).
    """
    limits = runs[runs["optimizer"] == "oracle1"].set_index(["eps", "seed"])["w_norm_l1"]
    curves = read_curves(runs[runs["sweep"] != "oracle"].reset_index(drop=True))
    kept = curves[["model", "eps", "seed", "step", "log_loss", "folder"]].copy()
    kept["l1"] = 1 / curves["w_margin_robust_l1"]
    kept["half_u"] = (1 / (2 * curves["margin_robust_l2"])).where(curves["model"] == "diagonal")
    kept["least"] = [
        limits.get(key, float("nan")) for key in curves[["eps", "seed"]].itertuples(index=False, name=None)
    ]
    kept["ratio"], kept["ratio_u"] = kept["least"] / kept["l1"], kept["least"] / (2 * kept["half_u"])
    return kept.sort_values(["model", "eps", "seed", "step"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least ||w||_1 of all w with robust margin 1, over the one that gradient descent has reached, against steps; 1
    is the limit that Prop. 4.8 states for diagonal nets. Solid: the diagonal net; dotted: a linear model. Lines are
    means over the draws, bands reach from the least to the greatest.
    """
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        radii = sorted(table["eps"].unique())
        for (model, eps), some in table.groupby(["model", "eps"]):
            by_step = some[some["step"] > 0].groupby("step")["ratio"]
            kind, colour = ("-" if model == "diagonal" else ":"), COLOURS[radii.index(eps)]
            name = f"{'diag-net' if model == 'diagonal' else 'linear'} GD, {eps:g} $\\epsilon^*$"
            ax.plot(by_step.mean().index, by_step.mean(), kind, color=colour, lw=1.2, label=name)
            ax.fill_between(by_step.mean().index, by_step.min(), by_step.max(), color=colour, alpha=0.12, lw=0)
        ax.set(xscale="log", ylim=(0, 1.02), xlabel="step", ylabel=r"least $\|w\|_1$ / $\|w\|_1$, robust margin 1")
        ax.legend(frameon=False, fontsize=6, loc="lower right")
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of the last measurement of every run."""
    last = table.sort_values("step").groupby("folder").tail(1)
    diagonal, linear = last[last["model"] == "diagonal"], last[last["model"] == "linear"]
    claim = "GD on the diagonal net reaches the least ||w||_1 of a robust separator"
    found = [every(claim, "Cor. 4.7, Prop. 4.8", diagonal["ratio"], 0.99, "least / reached: ", limit=True)]
    claim = "its ||u||_2^2 / 2 is half of that: (16) has half the optimal value of (17), not the same"
    text = "least ||w||_1 / ||u||^2: "
    found.append(every(claim, "ours, of Prop. 4.8", diagonal["ratio_u"], 0.99, text, limit=True))
    claim = "GD on w itself does not: it ends below 95 % of it, at eps below eps*/2"
    below = linear[linear["eps"] < 0.5]["ratio"]
    return [*found, every(claim, "Sec. 4.2", 1 - below, 0.05, "1 - least / reached: ")]
