"""Does another geometry of descent decouple the clusters? (ours)"""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above, converged
from robust_erm.papers.frei2023.remedies import HALF
from robust_erm.papers.frei2023.sec2 import LABELS
from robust_erm.papers.frei2023.sec2 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style

NAMES = {"gd": "GD", "l15": "l_1.5", "l3": "l_3", "sd": "SD (l_inf)", "cd": "CD (l_1)", "adam": "Adam",
         "spectral": "spectral", "gd_large": "GD, start 1", "spectral_large": "spectral, start 1"}  # fmt: skip


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.frei2023.sec2.table`; ``sweep`` names the method."""
    found = of_runs(runs)
    order = found["sweep"].map(list(NAMES).index)
    return found.assign(order=order).sort_values(["order", "seed"]).drop(columns="order").reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Networks trained on the same clusters by steepest descent in several norms, a mark a run. Left: distances over
    sqrt(d), the median best l_2 attack on a test point (squares) and the vector along ``sum_q y_q mu_q`` that flips 99
    % of them (circles), with sqrt(d / k) (dotted) and sqrt(d / 2). Right: the mean over units of the largest cosine to
    a cluster, with sqrt(2 / k), of class averages (dotted).
    """
    methods = [name for name in NAMES if name in set(table["sweep"])]
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.9), layout="constrained")
        at = [methods.index(name) for name in table["sweep"]]
        for (column, marker), colour in zip((("attack", "s"), ("u99", "o")), COLOURS, strict=False):
            axes[0].plot(at, table[column], marker, color=colour, ms=4, mfc="none", label=LABELS[column])
        axes[1].plot(at, table["alone"], "o", color=COLOURS[0], ms=4, mfc="none")
        for value, dash in ((float(table["unit"].mean()), ":"), (HALF, "-")):
            axes[0].axhline(value, color="0.4", ls=dash, lw=0.8, zorder=0)
        axes[1].axhline(2**0.5 * float(table["unit"].mean()), color="0.4", ls=":", lw=0.8, zorder=0)
        for ax, name in zip(axes, (r"distance / $\sqrt{d}$", "largest cosine to a cluster"), strict=True):
            ax.set_xticks(
                range(len(methods)), [NAMES[m].replace(", ", ",\n") for m in methods], fontsize=6, rotation=30
            )
            ax.set(ylabel=name, ylim=(0, None))
        axes[0].legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of runs that have come down to the last loss, pairs on the same points."""
    done = table[table["status"] == "converged"].set_index("seed")
    found = [converged("All methods fit the points", "ours", table["status"])]
    base = {name: done.loc[done["sweep"] == name, "attack"] for name in ("gd", "gd_large")}
    for name, label in NAMES.items():
        own = done[done["sweep"] == name]
        if name in base or own.empty:
            continue
        rival = base["gd_large" if name.endswith("_large") else "gd"]
        text = f"median best attack over GD's less 1; its own {own['attack'].mean():.3f} sqrt(d): "
        claim = f"{label}: its networks are more robust than GD's from the same start"
        found.append(above(claim, "ours", (own["attack"] / rival - 1).dropna(), 0.0, text, percent=False))
    own = done[done["sweep"] == "spectral"]
    text = "mean largest cosine of a unit to a cluster, less class averages' sqrt(2 / k): "
    gain = own["alone"] - 2**0.5 * own["unit"]
    return [*found, above("Spectral descent decouples the clusters", "ours", gain, 0.0, text, percent=False)]
