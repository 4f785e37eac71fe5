"""Fig. 2: how many points are on the margin, in the runs of Fig. 1(a)."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.vardi2022.sec6 import alphas, assumed, banded, fitted
from robust_erm.papers.vardi2022.sec6 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style

LEAST, WIDTH = 0.92, 1000  # the share that the paper names, and its width


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.vardi2022.sec6.table`, with ``off``, the number of points that are not on it."""
    found = of_runs(runs)
    return found.assign(off=found["m"] - found["on_margin"], assumed=assumed(found))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """(a) The share of the points that are on the margin, up to 1.1 times the least, against d, for m = d^alpha; grey:
    the 92 % that the paper names. (b) The number of points that are not. Means over the draws, in bands of a standard
    deviation.
    """
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.4), layout="constrained")
        for k, alpha in enumerate(alphas(table)):
            some = table[table["alpha"] == alpha]
            for ax, column in zip(axes, ("share", "off"), strict=True):
                banded(ax, some, column, COLOURS[k], "-", rf"$\alpha$ = {alpha:g}")
        axes[0].axhline(LEAST, color="0.6", lw=0.7, zorder=0)
        axes[0].set(title="(a)", xlabel="d", ylabel="share of points on the margin")
        axes[1].set(title="(b)", xlabel="d", ylabel="points not on the margin")
        axes[1].legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Sec. 6.1, second part; shares are judged where the mean over the draws is least."""
    where = "Sec. 6.1, Fig. 2(a)"
    done = table[table["status"] == "converged"]
    few = done[done["alpha"] == 0.5]
    found = [fitted(table)]
    found.append(every("alpha = 0.5: all points are on the margin", where, few["share"], 1.0, "share: "))
    name = "alpha = 0.5: Lemma D.1 proves it: its assumption, 3 m (p + 1) <= d + 1, holds"
    found.append(every(name, where, 1 / few["assumed"], 1.0, "(d + 1) over 3 m (p + 1): "))
    for alpha in alphas(done[done["alpha"] > 0.5]):
        some = done[(done["alpha"] == alpha) & (done["d"] >= 100)]
        means = some.groupby("d")["share"].mean()
        widths = sorted(set(some["width"]) - {WIDTH})
        own = f"ours: width {widths[0]:,}" if widths else where
        name = f"alpha = {alpha:g}: at least 92 % of the points are on the margin, for d of at least 100"
        if means.empty:
            found.append(above(name, where, [], LEAST))
            continue
        worst = some[some["d"] == means.idxmin()]
        text = f"share, {100 * some['share'].min():.1f} at least; where the mean is least, d = {means.idxmin():g}: "
        found.append(above(name, own, worst["share"], LEAST, text))
    return found
