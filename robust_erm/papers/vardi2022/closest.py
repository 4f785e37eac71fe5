"""How far the universal direction is from the closest attack on each point, in the runs of Fig. 1(a)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.statistics import slope
from robust_erm.papers.claims import Claim, above, between, by_draw, every
from robust_erm.papers.vardi2022.sec6 import alphas, banded
from robust_erm.papers.vardi2022.sec6 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.vardi2022.sec6.table`, with ``excess``, median flip along z over nearest distance,
    and ``others``, the share of the points off the margin that are flipped at c; nan where there are none.
    """
    found = of_runs(runs)
    others = found["m"] - found["on_margin"]
    flipped = ((found["flipped"] * found["m"] - found["on_margin"]) / others).where(others > 0)
    return found.assign(excess=found["median"] / found["nearest"], others=flipped)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left: how much longer the way along z is than to the nearest point of another label that a strong l_2 attack
    finds, medians over the points on the margin; middle: mean cosine of these attacks with -y z; right: the share of
    the training points off the margin that are flipped at c, where there are some. Against d, for m = d^alpha; means
    over the draws in bands of a standard deviation.
    """
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.4), layout="constrained")
        for k, alpha in enumerate(alphas(table)):
            for ax, column in zip(axes, ("excess", "cosine", "others"), strict=True):
                banded(ax, table[table["alpha"] == alpha], column, COLOURS[k], "-", rf"$\alpha$ = {alpha:g}")
        axes[0].set(ylabel="median flip along z / nearest", xlabel="d")
        axes[1].set(ylabel="cosine of nearest and $-y z$", xlabel="d", ylim=(None, 1))
        axes[2].set(ylabel="share flipped at c, off the margin", xlabel="d", ylim=(0, 1.02))
        axes[0].legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Ours: from one universal direction to local ones as the number of points grows."""
    done = table[table["status"] == "converged"]
    values = alphas(done)
    few = done[done["alpha"] <= 0.8]
    text = "1.15 less median flip along z over nearest distance, alpha up to 0.8: "
    name = "With few points the universal direction is nearly the closest attack"
    found = [every(name, "ours", 1.15 - few["excess"], 0.0, text)]
    name = "the nearest flip is not farther than that along z, in the median"
    found.append(every(name, "ours", done["excess"], 0.99, "median along z over nearest: "))
    for one, other in pairwise(values):
        both = done[done["alpha"].isin([one, other])].pivot_table(index=["d", "seed"], columns="alpha", values="cosine")
        falls = by_draw((both[one] - both[other]).dropna()) if {one, other} <= set(both) else pd.Series(dtype=float)
        name = f"the closest attack leaves it as points get more: alpha = {other:g} against {one:g}"
        found.append(above(name, "ours", falls, 0.0, "cosine, at the same d, less: ", percent=False))
    for alpha in values:
        some = done[done["alpha"] == alpha]
        grown = slope(np.log(some["d"].astype(float)), some["cosine"])
        name = f"alpha = {alpha:g}: the cosine does not fall with d"
        found.append(between(name, "ours", grown, 0.0, np.inf, "slope on log d, with its 95 % interval: ", len(some)))
    name = "what flips all points on the margin flips 90 % of those off it too"
    found.append(every(name, "ours", done["others"].dropna(), 0.9, "share of the points off the margin flipped at c: "))
    return found
