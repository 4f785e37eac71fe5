"""Secs 3 and 4: neither generalisation nor fragility depends on the width."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.frei2023 import sec2
from robust_erm.papers.frei2023.sec2 import LABELS, close
from robust_erm.reports.style import COLOURS, PAGE, style

table = sec2.table


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Against the width, a mark a run: left, the vector that flips 99 % of the test points (circles) and the median
    best attack (squares), in units of sqrt(d / k); middle, test accuracy; right, the KKT residual (circles) and what is
    missing of the normalised margin of class averages (squares).
    """
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.4), layout="constrained")
        for ax, columns in zip(axes, ({"u99": "o", "attack": "s"}, {"accuracy": "o"}, {"kkt": "o"}), strict=True):
            for k, (column, marker) in enumerate(columns.items()):
                unit = table["unit"] if column in ("u99", "attack") else 1.0
                ax.plot(
                    table["width"],
                    table[column] / unit,
                    marker,
                    color=COLOURS[k],
                    ms=4,
                    mfc="none",
                    label=LABELS.get(column, "KKT residual"),
                )
            ax.set(xscale="log", xlabel="width")
        axes[2].plot(
            table["width"], 1 - table["margin"], "s", color=COLOURS[1], ms=4, mfc="none", label="missing margin"
        )
        axes[0].set(ylabel=r"length / $\sqrt{d/k}$", ylim=(0.9, 1.1))
        axes[1].set(ylabel="test accuracy", ylim=(0, 1.05))
        axes[2].set(ylabel="residual; missing margin", ylim=(0, None))
        for ax in (axes[0], axes[2]):
            ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Each draw of the points against the widest network on it."""
    near = close(table)
    widest = near[near["width"] == near["width"].max()].set_index("seed")
    found = [every("All widths fit all points, near a KKT point", "Thm 2.1", sec2.NEAR - table["kkt"], 0.0,
                   "0.1 less the residual: ", limit=True)]  # fmt: skip
    for column, name in (("accuracy", "test accuracy"), ("u99", "universal vector"), ("attack", "median best attack")):
        ratio = near[column] / near["seed"].map(widest[column])
        text = "5 % less the relative difference from the widest network's: "
        found.append(
            every(f"The {name} does not depend on the width", "Secs 3, 4", 0.05 - (ratio - 1).abs(), 0.0, text)
        )
    many = table["width"] * (table["d"] + 2) / table["n"]
    text = f"parameters over points up to {many.max():,.0f}; test accuracy: "
    found.append(every("No overfitting, however many parameters", "Sec. 3", near["accuracy"], 0.99, text))
    return found
