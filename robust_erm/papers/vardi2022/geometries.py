"""Section 7's open question: do other methods than gradient descent converge to more robust networks?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above, converged, every
from robust_erm.papers.vardi2022.sec6 import REFERENCES
from robust_erm.papers.vardi2022.sec6 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style

NAMES = {
    "gd": "GD", "flow": "GD, short steps", "l15": "l_1.5", "l3": "l_3", "sd": "SD (l_inf)", "cd": "CD (l_1)",
    "adam": "Adam", "spectral": "spectral", "gd_small": "GD, start 0.01", "spectral_small": "spectral, start 0.01",
}  # fmt: skip


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.vardi2022.sec6.table`, a row a run; ``sweep`` names the method."""
    found = of_runs(runs)
    order = found["sweep"].map(list(NAMES).index)
    return found.assign(order=order).sort_values(["order", "d", "seed"]).drop(columns="order")


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Of networks trained by steepest descent in several norms, on the same points: the length c that flips all points
    on the margin along z (circles), the median flip along it (triangles), and the median least distance of a strong l_2
    attack (squares); a mark a run. Black: sqrt(d); grey: the explicit network of Thm 3.1, attacked (solid) and
    guaranteed (dashed); dotted: sqrt(d / m). Starts are in units of PyTorch's.
    """
    methods = [name for name in NAMES if name in set(table["sweep"])]
    with style():
        fig, ax = plt.subplots(figsize=(PAGE, 2.8), layout="constrained")
        looks = (("c", "o", "all points, c"), ("median", "^", "half of them"), ("nearest", "s", "nearest, attacked"))
        for k, (column, marker, label) in enumerate(looks):
            at = [methods.index(name) + 0.18 * (k - 1) for name in table["sweep"]]
            ax.plot(at, table[column], marker, color=COLOURS[k], ms=4, mfc="none", label=label)
        for column, label, colour, dash in REFERENCES:
            ax.axhline(table[column].mean(), color=colour, ls=dash, lw=0.8, zorder=0, label=label)
        ax.set_xticks(range(len(methods)), [NAMES[name].replace(", ", ",\n") for name in methods], fontsize=7)
        ax.set(ylabel="length", ylim=(0, None))
        fig.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of runs that have come down to the loss asked for (1e-30 but at scale=smoke), pairs on the same points."""
    where, done = "ours, on Sec. 7", table[table["status"] == "converged"]
    found = [converged("All methods fit the points down to the loss asked for", "ours", table["status"])]
    one = np.where(done["c"].notna(), np.isfinite(done["c"]), np.nan)
    name = "Whatever the method, one vector along z flips all points on the margin"
    found.append(every(name, "ours", one, 1.0, "1 where so: "))
    found.append(every("and is shorter than sqrt(d)", "ours", done["sqrt_d"] / done["c"], 1.0, "sqrt(d) over c: "))
    by = done.set_index(["d", "seed"])
    gd = {start: by.loc[by["sweep"] == start, "nearest"] for start in ("gd", "gd_small")}
    for name in NAMES:
        own = by.loc[by["sweep"] == name, "nearest"]
        if name in gd or own.empty:
            continue
        rival = gd["gd_small" if name.endswith("_small") else "gd"]
        text = f"nearest distance over GD's from that start less 1, mean nearest {own.mean():.3g}: "
        claim = f"{NAMES[name]} converges to more robust networks than GD"
        found.append(above(claim, where, (own / rival - 1).dropna(), 0.0, text, percent=False))
    for start in ("spectral", "spectral_small"):
        best = done[done["sweep"] == start]
        text = "nearest distance over the explicit network's less 1: "
        name = f"{NAMES[start]}: its networks are more robust than the explicit network of Thm 3.1"
        found.append(above(name, "ours", best["nearest"] / best["explicit"] - 1, 0.0, text, percent=False))
    return found
