"""Does adversarial training remove the universal direction? (Sec. 7 asks for what directs towards robust networks.)"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.vardi2022.sec6 import LENGTHS, banded, fitted, legend, references
from robust_erm.papers.vardi2022.sec6 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.vardi2022.sec6.table`, with ``radius``, eps over sqrt(d), and ``excess``, c over the
    nearest distance; the points on the margin are those of the margins under attack.
    """
    found = of_runs(runs)
    eps = runs.drop_duplicates("folder").set_index("folder")["eps"]
    radius = (found["folder"].map(eps).astype(float) / found["sqrt_d"]).round(3)
    return found.assign(radius=radius, excess=found["c"] / found["nearest"])


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Networks trained against l_2 attacks of radius eps. Left: the length c that flips all points on the (attacked)
    margin along z, the median flip along it, and the median least distance of a strong attack; black sqrt(d), grey the
    explicit network of Thm 3.1. Middle: c over the nearest distance. Right: cosine of the nearest attack with -y z.
    Means over the draws in bands of a standard deviation, against eps / sqrt(d).
    """
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6), layout="constrained")
        known = table.replace([np.inf], np.nan)
        references(axes[0], known, "radius")
        for column, _, dash in LENGTHS:
            banded(axes[0], known, column, COLOURS[0], dash, over="radius")
        banded(axes[1], known, "excess", COLOURS[1], "-", over="radius")
        banded(axes[2], known, "cosine", COLOURS[2], "-", over="radius")
        for ax, name in zip(axes, ("length", "c / nearest", "cosine of nearest and $-y z$"), strict=True):
            ax.set(xlabel=r"$\epsilon / \sqrt{d}$", ylabel=name, ylim=(0, None))
        legend(fig)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Ours; pairs on the same points."""
    done = table[table["status"] == "converged"]
    clean, radii = done[done["radius"] == 0].set_index("seed"), sorted(set(done["radius"]) - {0})
    found = [fitted(table)]
    for radius in radii:
        own = done[done["radius"] == radius].set_index("seed")
        name = f"eps = {radius:g} sqrt(d): adversarial training puts the nearest points of another label farther away"
        text = f"nearest distance over clean training's less 1, mean nearest {own['nearest'].mean():.3g}: "
        found.append(above(name, "ours", (own["nearest"] / clean["nearest"] - 1).dropna(), 0.0, text, percent=False))
    if not radii:
        return found
    own = done[done["radius"] == radii[-1]].set_index("seed")
    least, where = f"at eps = {radii[-1]:g} sqrt(d)", "ours"
    name = f"{least} the universal direction is farther from the closest attack"
    text = "c over nearest distance, less that of clean training: "
    found.append(above(name, where, (own["excess"] - clean["excess"]).dropna(), 0.0, text, percent=False))
    text = "cosine with the closest attack, clean less adversarial training: "
    name = f"{least} the closest attack leaves the universal direction"
    found.append(above(name, where, (clean["cosine"] - own["cosine"]).dropna(), 0.0, text, percent=False))
    text = "nearest distance over the explicit network's less 1: "
    name = f"{least} the network is more robust than the explicit one of Thm 3.1"
    found.append(above(name, where, own["nearest"] / own["explicit"] - 1, 0.0, text, percent=False))
    name = f"{least} a common flip along z needs more than sqrt(d): it is no adversarial perturbation any more"
    return [*found, every(name, where, own["c"] / own["sqrt_d"], 1.0, "c over sqrt(d): ")]
