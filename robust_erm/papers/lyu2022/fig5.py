"""Fig. 5: one wide hidden layer, the exponential loss, and the l_2-FGM."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_erm.papers.claims import Claim
from robust_erm.papers.lyu2022 import margins
from robust_erm.papers.lyu2022.margins import band
from robust_erm.papers.lyu2022.margins import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, over_steps, style

NAMES = {"constant": "SGD, constant step", "relative": "full batch, relative step"}


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.lyu2022.margins.table`; ``curve`` says how steps were taken, too."""
    found = of_runs(runs)
    return found.assign(curve=found["curve"] + ", " + found["sweep"].map(NAMES))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Top: least margin of the training set over rho, the product of the layers' Frobenius norms, against the step.
    Bottom: the share of training points that are right. Left: mini-batches and a constant step, as the paper. Right:
    all points, and steps that lower the logarithm of the loss by a fixed amount. Solid: under the l_2-FGM of training.
    Dashed: at the worst of it and a strong PGD. Dotted: clean points. Lines are means over the seeds.
    """
    names = [name for name in NAMES if name in set(table["sweep"])]
    with style():
        fig, axes = plt.subplots(2, len(names), figsize=(PAGE, 4.2), layout="constrained", squeeze=False, sharex="col")
        for (top, low), name, colour in zip(axes.T, names, COLOURS, strict=False):
            own = table[table["sweep"] == name]
            own = own.assign(step=own["step"].clip(lower=0.5))
            band(top, own, "margin", colour, "-", over="step")
            band(top, own, "margin_worst", colour, "--", over="step")
            top.axhline(0, color="0.7", lw=0.6, zorder=0)
            for column, dash in (("train_own", "-"), ("train_worst", "--"), ("train_clean", ":")):
                band(low, own, column, colour, dash, over="step")
            top.set(ylabel=r"margin / $\rho$")
            top.set_title(NAMES[name], fontsize=8)
            low.set(ylabel="training accuracy", ylim=(-0.02, 1.04), xlabel="step")
            low.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            over_steps(low)
        words = (("-", "FGM"), ("--", "and strong attack"), (":", "clean"))
        handles = [Line2D([], [], color="0.3", ls=dash, label=word) for dash, word in words]
        fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of App. C.2.1, and what the strong attack leaves of them."""
    found = [*margins.fits(table, "Assumption 4")]
    for _, some in table.groupby("sweep", sort=False):
        words = str(some["curve"].iloc[0]).partition(", ")[2]
        found += margins.rises(some, "App. C.2.1, Fig. 5", under=f" ({words})")
    return [*found, *margins.positive(table), *margins.agrees(table), *margins.worse_on_others(table)]
