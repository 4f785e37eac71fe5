"""Fig. 1(a): how far one vector must go to flip all points on the margin, for m = d^alpha points."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, between, every
from robust_erm.papers.vardi2022 import sec6
from robust_erm.papers.vardi2022.sec6 import LENGTHS, alphas, banded, fitted, growth, legend, references
from robust_erm.reports.style import COLOURS, PAGE, style

table = sec6.table
KINKS = 0.45  # of a residual with slopes of 0 and 1: what nets near a KKT point have in the experiment kkt
SLOPE = "slope of log c on log d, with its 95 % interval: "


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Above left, the paper's panel: the length c of the vector along z that flips all points on the margin, against
    d, for m = d^alpha; means over the draws in bands of a standard deviation, and sqrt(d) in black. Then each alpha by
    itself: c; the median over these points of where each alone flips along z; the median least distance of a strong l_2
    attack; and, grey, what the explicit network of Thm 3.1 has on the same points, by proof and attacked.
    """
    values = alphas(table)
    columns = 2 if len(values) in (1, 3) else min(3, len(values) + 1)
    rows = -(-(len(values) + 1) // columns)
    with style():
        fig, axes = plt.subplots(rows, columns, figsize=(PAGE, 2.2 * rows), layout="constrained", squeeze=False)
        first, *others = axes.flat
        for k, alpha in enumerate(values):
            banded(first, table[table["alpha"] == alpha], "c", COLOURS[k], "-", rf"$\alpha$ = {alpha:g}")
        ends = np.linspace(table["d"].min(), table["d"].max(), 50)
        first.plot(ends, np.sqrt(ends), color="0.2", lw=0.8)
        first.set(title="Fig. 1(a)", ylim=(0, 1.35 * np.sqrt(ends[-1])), xlabel="d", ylabel="length")
        first.legend(frameon=False, fontsize=6, ncols=3, loc="upper left", columnspacing=1, handlelength=1.5)
        for k, (ax, alpha) in enumerate(zip(others, values, strict=False)):
            some = table[table["alpha"] == alpha]
            references(ax, some)
            for column, _, dash in LENGTHS:
                banded(ax, some, column, COLOURS[k], dash)
            ax.set(title=rf"$\alpha$ = {alpha:g}", ylim=(0, None), xlabel="d")
        for ax in others[len(values) :]:
            ax.set_axis_off()
        legend(fig)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Sec. 6.1, first part; claims of lengths are of runs that have come down to the loss."""
    done, where = table[table["status"] == "converged"], "Sec. 6.1, Fig. 1(a)"
    one, large = np.where(done["c"].notna(), np.isfinite(done["c"]), np.nan), done[done["d"] >= 100]
    found = [fitted(table), every("One vector along z flips all points on the margin", where, one, 1.0, "1 where so: ")]
    name = "It is shorter than sqrt(d), for d of at least 100"
    found.append(every(name, where, large["sqrt_d"] / large["c"], 1.0, "sqrt(d) over c: "))
    for alpha in alphas(table):
        some = done[done["alpha"] == alpha]
        last = some[some["d"] == some["d"].max()]
        text = f"c / sqrt(d) = {(last['c'] / last['sqrt_d']).mean():.2f} at d = {last['d'].max():g}; {SLOPE}"
        name = f"alpha = {alpha:g}: it is the smaller beside sqrt(d), the greater d"
        found.append(between(name, where, growth(some), -np.inf, 0.5, text, len(some)))
    some = done[done["alpha"] == 0.5]
    name = "alpha = 0.5: c grows like d^(1/4)"
    found.append(between(name, "ours, after Example 1", growth(some), 0.15, 0.35, SLOPE, len(some)))
    spreads = large.groupby(["alpha", "d"])["c"].agg(["std", "mean"])
    text = "0.2 less standard deviation over mean, each alpha and d: "
    name = "Results are consistent over the draws, for d of at least 100"
    found.append(every(name, where, 0.2 - spreads["std"] / spreads["mean"], 0.0, text))
    text = "minus the most intervals on which one point is flipped: "
    found.append(every("Along z no point comes back once it is flipped", "ours", -done["crossings"], -1.0, text))
    text = "residual in the span of the points, with slopes of 0 and 1: "
    name = "At a loss of 1e-30, from PyTorch's start, nets are not near a KKT point: more than kinks explain (see kkt)"
    return [*found, every(name, "ours", done["kkt_span"], KINKS, text)]
