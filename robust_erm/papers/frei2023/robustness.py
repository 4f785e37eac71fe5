"""Theorems 4.1 and 4.2: the networks that training finds are fragile where robust ones exist, over k and d."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.statistics import slope
from robust_erm.papers.claims import Claim, above, between, by_draw, every
from robust_erm.papers.frei2023.sec2 import close, references
from robust_erm.papers.frei2023.sec2 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.store.reading import run_of

LENGTHS = (
    ("u99", "-", "o", "universal, 99 % of test points"),
    ("attack", "--", "s", "best attack, median"),
    ("certified", ":", "v", "certified, median"),
)
HEIGHTS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
OTHERS = (
    ("explicit", "-", COLOURS[2], "explicit net, attacked"),
    ("neighbour", "x", COLOURS[3], "nearest neighbour"),
    ("mean", "+", COLOURS[5], "nearest mean"),
    ("linear", "-", COLOURS[4], "linear, $\\langle u, x\\rangle$"),
)


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.frei2023.sec2.table`, with the classifiers without training on the same points."""
    found = of_runs(runs)
    ones = [run_of(folder) for folder in found["folder"]]
    return found.join(pd.DataFrame([references(one.data, one.seed) for one in ones], index=found.index))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Distances over sqrt(d), means over the draws, against the number of clusters k at fixed d (left) and against d at
    fixed k (right), on logarithmic axes. Blue, the trained network: the vector along ``sum_q y_q mu_q`` that flips 99 %
    of the test points, the median of the best attacks (in a band from 5 to 95 %) and what is certified of it. Beside it
    classifiers without training on the same points. Black: sqrt(d / 2), half the distance of two means (solid), sqrt(d)
    / 8, Thm 4.1 (dashed), sqrt(d / k) (dotted), and the proof's bound on the universal vector where there is one (dash
    dots).
    """
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 3.2), layout="constrained", sharey=True)
        for ax, (over, fixed) in zip(axes, (("k", "over_k"), ("d", "over_d")), strict=True):
            some = table[table["sweep"].str.startswith(fixed)]
            mean = some.groupby(over)[[c for c in some if some[c].dtype.kind == "f"]].mean()
            for column, dash, marker, label in LENGTHS:
                ax.plot(mean.index, mean[column], dash, marker=marker, ms=3, color=COLOURS[0], lw=1.1, label=label)
            ax.fill_between(mean.index, mean["attack_5"], mean["attack_95"], color=COLOURS[0], alpha=0.15, lw=0)
            for column, dash, colour, label in OTHERS:
                ax.plot(mean.index, mean[column], dash, color=colour, lw=0.9, ms=6, label=label)
            for value, dash, label in ((math.sqrt(0.5), "-", r"$\sqrt{d/2}$"), (1 / 8, "--", r"$\sqrt{d}/8$")):
                ax.axhline(value, color="0.2", ls=dash, lw=0.7, label=label)
            ax.plot(mean.index, mean["unit"], ":", color="0.2", lw=0.9, label=r"$\sqrt{d/k}$")
            if "allowed" in mean:
                ax.plot(mean.index, mean["allowed"], "-.", color="0.2", lw=0.9, label="Thm 4.2's constants")
            ax.set(xscale="log", yscale="log", xlabel=over)
            ticks = sorted(some[over].unique())
            ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
            ax.set_xticks([], minor=True)
        axes[0].set(ylabel=r"distance / $\sqrt{d}$")
        axes[0].set_yticks(HEIGHTS, [f"{height:g}" for height in HEIGHTS])
        axes[0].set_yticks([], minor=True)
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Theorems hold in every case near a KKT point; lengths of networks that are not near one are not measured."""
    near, ours = close(table), "ours"
    gap = near[near["k"] >= 4]
    bounded = near.reindex(columns=[*near.columns, *({"allowed"} - set(near.columns))]).dropna(subset="allowed")
    by_k, by_d = (near[near["sweep"].str.startswith(name)] for name in ("over_k", "over_d"))
    found = [
        every("Training has come near a KKT point", "Thm 2.1", 0.1 - table["kkt"], 0.0, "0.1 less the residual: ",
              limit=True),
        every("The networks classify unseen points correctly", "Thm 3.1", near["accuracy"], 0.99, "test accuracy: "),
        every("No attack on the explicit network is shorter than sqrt(d) / 8", "Thm 4.1", table["explicit_least"],
              1 / 8, "least distance over sqrt(d): "),
        every("and none shorter than its certificate", "Thm 4.1, ours", table["explicit_slack"],
              -1e-9, "attacked less certified, over sqrt(d): "),
        every("One vector flips 99 % of the test points of a trained network, within the proof's constants", "Thm 4.2",
              bounded["allowed"] / bounded["u99"], 1.0, "bound over length, where x < 1/3: "),
        every("Its length is O(sqrt(d / (c^2 k))): at most 2 sqrt(d / k)", "Thm 4.2", 2 - near["u99"] / near["unit"],
              0.0, "2 less length over sqrt(d / k): "),
        every("it is sqrt(d / k), of orthogonal means: the two class averages' own length", ours,
              0.1 - (near["u99"] / near["unit"] - 1).abs(), 0.0, "10 % less the relative difference: "),
        every("and no attack on single points does better", ours, 0.05 - (near["attack"] / near["unit"] - 1).abs(), 0.0,
              "5 % less the median attack's relative difference: "),
        between("in the number of clusters: ||z|| ~ k^(-1/2)", "Thm 4.2", _slope(by_k, "k"), -0.55, -0.45,
                "slope of log length on log k: ", len(by_k)),
        between("in the dimension: ||z|| ~ d^(1/2)", "Thm 4.2", _slope(by_d, "d", 0.5), 0.45, 0.55,
                "slope of log length on log d: ", len(by_d)),
        every("The explicit network is sqrt(k) / 2 times as robust", "Thms 4.1, 4.2",
              gap["explicit"] / gap["attack"] * 2 * gap["unit"] - 0.9, 0.0,
              "quotient of distances over that, less 0.9: "),
        every("A trained network is as fragile as the linear classifier", ours,
              0.05 - (near["attack"] / near["linear"] - 1).abs(), 0.0, "5 % less the relative difference: "),
        every("Nearest neighbour and nearest mean reach 90 % of half the distance of two means", "ours, after Sec. 4",
              np.minimum(table["neighbour_certified"], table["mean_certified"]) / math.sqrt(0.5), 0.9,
              "over sqrt(d / 2): "),
    ]  # fmt: skip
    name = "The best attack is shorter than the explicit network's distance, k of at least 8"
    many = near[near["k"] >= 8]
    less = by_draw(many["explicit"] - many["attack"], many["seed"])
    return [*found, above(name, "Sec. 4", less, 0.0, "over sqrt(d): ", percent=False)]


def _slope(some: pd.DataFrame, over: str, power: float = 0.0) -> tuple[float, float]:
    """Of the logarithm of the universal length; those of the table are over sqrt(d)."""
    x = np.log(some[over].astype(float))
    b, half = slope(x, np.log(some["u99"].astype(float)))
    return b + power, half
