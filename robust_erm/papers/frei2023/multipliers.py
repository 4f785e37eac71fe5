"""Appendices A and D: what each cluster's multipliers add up to at a KKT point, within bounds of our own constants."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.frei2023 import sec2
from robust_erm.papers.frei2023.sec2 import close
from robust_erm.reports.style import COLOURS, COLUMN, style

table = sec2.table


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The sums over a cluster of what its points' multipliers add to their own side, times d, from the least cluster to
    the greatest, against ``x = k P / D_-``; a line a run. Grey: the bounds that follow for x < 1/3. Below, in orange:
    the most that a cluster adds to the other side, and its bound. Dotted: x = 1/10, which Assumption 2.2 implies.
    """
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.8), layout="constrained")
        for _, run in table.iterrows():
            x, d = run["ratio"], run["d"]
            ax.plot([x, x], [d * run["own_least"], d * run["own_most"]], "-", color=COLOURS[0], lw=2)
            ax.plot(x, d * run["other_most"], "o", color=COLOURS[1], ms=3)
            for name in ("bound_least", "bound_most", "bound_other"):
                if np.isfinite(run.get(name, np.nan)):
                    ax.plot(x, d * run[name], "_", color="0.5", ms=8)
        ax.axvline(0.1, color="0.6", ls=":", lw=0.8)
        ax.set(xscale="log", xlabel=r"$x = k P / D_-$", ylabel="sum over a cluster, times d", ylim=(0, 2.2))
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Where the bounds follow, x < 1/3; up to three times the residual, for these are only near a KKT point."""
    names = ("bound_least", "bound_most", "bound_other")
    known = close(table.reindex(columns=[*table.columns, *(n for n in names if n not in table)])).dropna(
        subset=list(names)
    )
    slack = 1 + 3 * known["kkt"]
    where = "App. A, D; constants ours"
    text = f"bound over sum, {len(known)} of {len(table)} runs have x < 1/3 and a residual of at most 0.1: "
    return [
        every("The sum of a cluster's multipliers is at most 1 / (D_- (1 - 2 x))", where,
              known["bound_most"] * slack / known["own_most"], 1.0, text),
        every("and at least (1 - x / (1 - 2 x)) / D_+", where, known["own_least"] * slack / known["bound_least"], 1.0,
              "sum over bound: "),
        every("What it adds to the other side is at most x times the first", where,
              known["bound_other"] * slack / known["other_most"].clip(lower=1e-300), 1.0, "bound over sum: "),
        every("All clusters' sums are of the same order: most over least within the quotient of both bounds",
              "Sec. 3.1; constants ours", known["bound_most"] / known["bound_least"] * slack**2 * known["own_least"]
              / known["own_most"], 1.0, "quotient of bounds over that of sums: "),
        every("They are 1 / d, of orthogonal means, to 20 %", "ours",
              0.2 - np.maximum((known["d"] * known["own_most"] - 1).abs(), (known["d"] * known["own_least"] - 1).abs()),
              0.0, "20 % less the relative difference: "),
        every("Weights and biases are the sums over points that the KKT conditions name, each by itself",
              "eqs. (3), (4)", 0.1 - np.maximum(known["kkt_W1"], known["kkt_b1"]), 0.0,
              "0.1 less the greater residual: ", limit=True),
        every("Complementarity: multipliers sit on the margin", "Thm 2.1", 0.05 - known["complementarity"], 0.0,
              "0.05 less the share of theirs off it: ", limit=True),
        every("All points are within 10 % of the margin (Sec. 4.1 does not promise it)", "ours", known["share"], 1.0,
              "share: "),
    ]  # fmt: skip
