"""Min & Vidal 2024: powers of ReLU, normalised by the units' lengths, decouple the clusters without any attack."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above, every, stated
from robust_erm.papers.frei2023.remedies import HALF, distances
from robust_erm.papers.frei2023.sec2 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.frei2023.sec2.table`, with ``power``."""
    found = of_runs(runs)
    own = runs.drop_duplicates("folder").set_index("folder")["model.power"]
    return found.assign(power=found["folder"].map(own).astype(float))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Against the power p of the ReLU, of runs that fit their points, from a small start: left, distances over sqrt(d),
    as for adversarial training; middle, the mean over units of the largest cosine to a cluster (circles) and the number
    of directions that the units have over k (squares); right, the steps to the last loss. Lines: sqrt(d / k) (dotted)
    and sqrt(d / 2).
    """
    some = table[(table["init_scale"] < 0.1) & (table["status"] == "converged")]
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.5), layout="constrained")
        if len(some):
            distances(axes[0], some, some["power"])
        axes[0].set(ylabel=r"distance / $\sqrt{d}$", ylim=(0, 1.2))
        axes[0].legend(frameon=False, fontsize=6)
        axes[1].plot(some["power"], some["alone"], "o", color=COLOURS[0], ms=4, mfc="none", label="cosine to a cluster")
        axes[1].plot(
            some["power"],
            some["directions"] / some["k"],
            "s",
            color=COLOURS[1],
            ms=4,
            mfc="none",
            label="directions / k",
        )
        axes[1].set(ylim=(0, 1.05))
        axes[1].legend(frameon=False, fontsize=6)
        axes[2].plot(some["power"], some["step"], "o", color=COLOURS[0], ms=4, mfc="none")
        axes[2].set(ylabel="steps", yscale="log")
        for ax in axes:
            ax.set(xlabel="power p")
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of runs that fit their points; others are named."""
    small = table[table["init_scale"] < 0.1]
    done = small[small["status"] == "converged"]
    one, three = (done[done["power"] == p].set_index("seed") for p in (1.0, 3.0))
    where, text = "Min & Vidal 2024", "median best attack over sqrt(d / k): "
    left = small[small["status"] != "converged"]
    names = ", ".join(f"p = {p:g}: {n}" for p, n in left.groupby("power").size().items()) or "none"
    large = table[table["init_scale"] >= 0.1]
    reached = bool((large["status"] != "converged").all()) if len(large) else None
    return [
        stated("All powers fit their points from a small start", "ours", f"runs that do not: {names}",
               left.empty if len(small) else None),
        every("p = 1 is robust up to sqrt(d / k) only", where, 1.1 - one["attack"] / one["unit"], 0.0,
              f"1.1 less {text}"),
        above("p = 3 is more robust than p = 1, without adversarial training", where,
              (three["attack"] / one["attack"] - 1).dropna(), 0.0, "quotient of median attacks less 1: ",
              percent=False),
        every("p = 3 reaches half the distance of two means, to 10 %", where, three["attack"] / HALF, 0.9,
              "median best attack over sqrt(d / 2): "),
        every("Its units stand for one cluster each", where, three["alone"], 0.95, "mean largest cosine: "),
        above("It takes more steps", "ours", (three["step"] / one["step"] - 1).dropna(), 0.0, "quotient less 1: ",
              percent=False),
        stated("From PyTorch's own start p = 3 does not fit in as many steps", "ours",
               f"{', '.join(large['status'])}" or "not run", reached),
    ]  # fmt: skip
