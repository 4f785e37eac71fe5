"""Adversarial training restores robustness: at which radius, and from which start?"""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above, by_draw, every, stated
from robust_erm.papers.frei2023.remedies import HALF, distances
from robust_erm.papers.frei2023.sec2 import table as of_runs
from robust_erm.reports.style import PAGE, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.frei2023.sec2.table`, with ``radius``, eps over sqrt(d), and ``robust``, the robust
    training accuracy at it.
    """
    found = of_runs(runs)
    own = runs.drop_duplicates("folder").set_index("folder")["train_robust_acc"]
    return found.assign(radius=found["eps"].round(3), robust=found["folder"].map(own).astype(float))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Distances over sqrt(d) of networks trained against l_2 attacks, against the radius of training over sqrt(d), from
    a small start (left) and from PyTorch's own (right): the median best attack on a test point, what is certified of
    it, and the vector along ``sum_q y_q mu_q`` that flips 99 % of them. Lines: sqrt(d / k) (dotted), sqrt(d / 2)
    (solid), and the radius itself. Means over the draws, in bands from the least to the greatest; runs that do not
    classify 90 % of the training points robustly are left out.
    """
    starts = sorted(table["init_scale"].unique())
    with style():
        fig, axes = plt.subplots(1, len(starts), figsize=(PAGE, 2.7), layout="constrained", squeeze=False, sharey=True)
        for ax, start in zip(axes[0], starts, strict=True):
            some = table[(table["init_scale"] == start) & (table["robust"] >= 0.9)]
            if len(some):
                distances(ax, some, some["radius"])
            top = table["radius"].max()
            ax.plot([0, top], [0, top], "-", color="0.7", lw=0.7, zorder=0)
            ax.set(title=f"start {start:g}", xlabel=r"$\epsilon / \sqrt{d}$", ylim=(0, 1.2))
        axes[0, 0].set(ylabel=r"distance / $\sqrt{d}$")
        axes[0, 0].legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Ours; from the small start but for the last."""
    small = table[(table["init_scale"] < 0.1) & (table["robust"] >= 0.9)]
    clean = small[small["radius"] == 0].set_index("seed")
    where, found = "ours", []
    for radius in sorted(set(small["radius"]) - {0}):
        own = small[small["radius"] == radius].set_index("seed")
        text = f"median best attack {own['attack'].mean():.3f} sqrt(d), less clean training's: "
        name = f"eps = {radius:g} sqrt(d): training makes the network more robust"
        found.append(above(name, where, (own["attack"] - clean["attack"]).dropna(), 0.0, text, percent=False))
    inside = small[(small["radius"] > 0) & (small["radius"] < small["unit"])]
    text = "gain of the median best attack over clean training, in sqrt(d): "
    gain = inside["attack"] - inside["seed"].map(clean["attack"])
    found.append(every("also at radii that clean training's networks stand already", where, gain, 0.05, text))
    top = small[small["radius"].between(0.39, 0.46)]
    text = "median best attack over sqrt(d / 2), at 0.4 and 0.45 sqrt(d): "
    share = by_draw(top["attack"] / HALF, top["seed"])
    found.append(above("It comes within 15 % of the possible", where, share, 0.85, text, percent=False))
    text = "0.7 less certified over attacked median, at 0.2 sqrt(d) and more: "
    loose = small[small["radius"] >= 0.2]
    found.append(
        every("Linear bounds certify less than 0.7 of it", where, 0.7 - loose["certified"] / loose["attack"], 0.0, text)
    )
    large = table[(table["init_scale"] >= 0.1) & (table["radius"] >= 0.39)]
    fails = bool((large["robust"] < 0.9).all()) if len(large) else None
    shares = ", ".join(f"{100 * v:.0f} %" for v in large["robust"])
    text = f"robust training accuracy at eps of 0.4 sqrt(d) and more: {shares or 'not run'}"
    return [
        *found,
        stated("From PyTorch's own start training at a large radius fails, in as many steps", where, text, fails),
    ]
