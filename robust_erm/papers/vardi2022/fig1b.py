"""Fig. 1(b): the same length for networks of other widths, with m = d points."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.statistics import interval
from robust_erm.papers.claims import Claim, above, between, by_draw, every
from robust_erm.papers.vardi2022 import sec6
from robust_erm.papers.vardi2022.sec6 import LENGTHS, banded, fitted, legend, references
from robust_erm.reports.style import COLOURS, PAGE, style

table = sec6.table


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left, the paper's panel: the length c that flips all points on the margin, against d with m = d, a line for each
    width, and sqrt(d) in black. Middle: at the greatest d, c, the median flip along z and the median least distance of
    a strong l_2 attack, against the width; grey, the explicit network of Thm 3.1. Right: the residual of the KKT
    conditions there, with slopes of 0 and 1. Means over the draws, in bands of a standard deviation.
    """
    widths, last = sorted(table["width"].unique()), table[table["d"] == table["d"].max()]
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6), layout="constrained")
        for k, width in enumerate(widths):
            banded(axes[0], table[table["width"] == width], "c", COLOURS[k % 8], "-", f"width {width:,}")
        ends = np.linspace(table["d"].min(), table["d"].max(), 50)
        axes[0].plot(ends, np.sqrt(ends), color="0.2", lw=0.8)
        axes[0].set(title="Fig. 1(b)", xlabel="d", ylabel="length", ylim=(0, None))
        axes[0].legend(frameon=False, fontsize=6)
        references(axes[1], last, "width")
        for column, _, dash in LENGTHS:
            banded(axes[1], last, column, COLOURS[0], dash, over="width")
        axes[1].set(title=f"d = {table['d'].max():,}", xscale="log", xlabel="width", ylim=(0, None))
        banded(axes[2], last, "kkt", COLOURS[0], "-", over="width")
        axes[2].set(title=f"d = {table['d'].max():,}", xscale="log", xlabel="width", ylabel="KKT residual", ylim=(0, 1))
        legend(fig)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Sec. 6.1, third part; slopes are those of one draw of the points over its widths."""
    where = "Sec. 6.1, Fig. 1(b)"
    done = table[table["status"] == "converged"]
    text = "slope of log c on log width, draw by draw: "
    values = _slopes(done, "c")
    found = [fitted(table)]
    name = "The width has no significant effect on c"
    found.append(between(name, where, interval(values), -0.05, 0.05, text, len(values)))
    means = done.groupby(["d", "width"])["c"].mean().groupby("d").agg(["max", "min"])
    name = "c is almost the same, whatever the width"
    found.append(every(name, where, 1.15 - means["max"] / means["min"], 0.0, "1.15 less largest mean over least: "))
    name = "but at the same loss the median flip along z is longer in wide networks"
    found.append(above(name, "ours", _slopes(done, "median"), 0.0, "slope of its log: ", percent=False))
    name = "and so is the least distance of a strong attack"
    found.append(above(name, "ours", _slopes(done, "nearest"), 0.0, "slope of its log: ", percent=False))
    name, text = "wide networks are farther from a KKT point", "slope of the log of the residual, slopes of 0 and 1: "
    found.append(above(name, "ours", _slopes(done, "kkt"), 0.0, text, percent=False))
    return found


def _slopes(done: pd.DataFrame, column: str) -> pd.Series:
    """Of the logarithm of a column on that of the width, one for each draw: their mean over d."""
    draws = {at: some for at, some in done.groupby(["d", "seed"]) if len(some) > 1}
    found = [sec6.growth(some, column, "width")[0] for some in draws.values()]
    return by_draw(pd.Series(found, pd.MultiIndex.from_tuples(draws, names=["d", "seed"]), dtype=float))
