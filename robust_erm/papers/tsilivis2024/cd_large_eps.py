"""Coordinate descent at large eps, which the paper could not run."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.tsilivis2024.sec51 import gaps
from robust_erm.reports.style import COLOURS, PAGE, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run of CD: see :func:`gaps`, and ``ratio`` of its robust margin per ||w||_1 to eps* - eps."""
    found = gaps(runs).set_index("folder")
    margin = runs.set_index("folder")["w_margin_robust_l1"]
    best = found[found["algorithm"] == "oracle1"].join(margin).set_index(["m", "eps", "seed"])["w_margin_robust_l1"]
    found = found.join(margin).reset_index()
    keys = found[["m", "eps", "seed"]].itertuples(index=False, name=None)
    found["ratio"] = found["w_margin_robust_l1"] / [best.get(key, float("nan")) for key in keys]
    return found


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left: the share of eps* - eps that coordinate descent (CD) reaches as its robust margin per ||w||_1; dots and
    lines are means over the draws, bands reach from the least to the greatest, grey is all of it. Right: CD's robust
    generalization gap (solid) beside that of its limit, the l_1 max margin (dotted), means over the draws; colours are
    the sizes m of the left panel.
    """
    with style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.5), layout="constrained")
        cd = table[table["algorithm"] == "cd"]
        for k, (m, some) in enumerate(cd.groupby("m")):
            by_eps = some.groupby("eps")["ratio"]
            left.plot(by_eps.mean(), "o-", ms=3, lw=1.2, color=COLOURS[k], label=f"m = {m}")
            left.fill_between(by_eps.mean().index, by_eps.min(), by_eps.max(), color=COLOURS[k], alpha=0.15, lw=0)
            for name, dash in (("cd", "-"), ("oracle1", ":")):
                rows = table[(table["algorithm"] == name) & (table["m"] == m)].groupby("eps")["gap"].mean()
                right.plot(100 * rows, dash, lw=1.2, color=COLOURS[k])
        left.axhline(1, color="0.6", lw=0.6)
        left.set(
            xlabel=r"$\epsilon / \epsilon^*$",
            ylabel=r"robust margin per $\|w\|_1$ / ($\epsilon^* - \epsilon$)",
            ylim=(0, 1.05),
        )
        right.set(xlabel=r"$\epsilon / \epsilon^*$", ylabel="robust gap, points (dotted: its limit)")
        left.legend(frameon=False)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """For each eps: does CD end robust on all training points, and how near is it to its limit?"""
    found = []
    for eps, some in table[table["algorithm"] == "cd"].groupby("eps"):
        name = f"CD runs at eps = {eps:g} eps*: robust on every training point, and to L <= 1e-3"
        steps = f"{int(some['step'].min()):,} to {int(some['step'].max()):,} steps; robust train accuracy: "
        robust = some["train_robust_acc"].where(some["status"] == "converged", 0.0)
        found.append(every(name, "ours; App. D found it difficult", robust, 1.0, steps))
        name = f"and it reaches 90 % of eps* - eps by L = 1e-3, eps = {eps:g} eps*"
        found.append(every(name, "ours", some["ratio"], 0.9, "ratio: "))
    return found
