"""What the paper leaves open: box of the pixels, learning rate, start, widths."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.papers.claims import Claim
from robust_erm.papers.lyu2022 import margins
from robust_erm.papers.lyu2022.margins import last, onset
from robust_erm.papers.lyu2022.margins import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style

NAMES = {
    "base": "as Fig. 2", "box": "box", "slower": "smaller lr", "faster": "larger lr", "small_start": "start 0.5",
    "large_start": "start 2", "narrow": "narrow", "wide": "wide",
}  # fmt: skip


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.lyu2022.margins.table`; ``curve`` is the choice, ``onset`` that of the run."""
    found = of_runs(runs)
    found = found.assign(curve=found["sweep"].map(NAMES), onset=found["folder"].map(onset(found)))
    order = found["sweep"].map(list(NAMES).index)
    return found.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """For each choice, a mark a run, a colour a seed; learning rates a third and three times as large, starts half and
    twice. Left: the epoch of the onset, from which on all training points are right under the FGSM of training; crosses
    at the top: none. Middle: the least margin over rho at the end, under that FGSM (circles) and at the worst of it and
    a strong PGD (triangles). Right: test accuracy, clean (squares), under FGSM (circles), and at the worst (triangles).
    """
    ends = last(table)
    known = [name for name in NAMES.values() if name in set(ends["curve"])]
    top = float(table["epoch"].max())
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.8), layout="constrained")
        for _, run in ends.iterrows():
            at, colour = known.index(run["curve"]), COLOURS[int(run["seed"]) % len(COLOURS)]
            late = pd.isna(run["onset"])
            axes[0].plot(at, top if late else run["onset"], "x" if late else "o", color=colour, ms=4, mfc="none")
            shown = (("margin", "o", 1), ("margin_worst", "^", 1), ("test_clean", "s", 2), ("test_own", "o", 2))
            for column, marker, place in (*shown, ("test_worst", "^", 2)):
                axes[place].plot(at, run[column], marker, color=colour, ms=4, mfc="none")
        axes[1].axhline(0, color="0.7", lw=0.6, zorder=0)
        for ax, name in zip(axes, ("epoch of the onset", r"margin / $\rho$", "test accuracy"), strict=True):
            ax.set_xticks(range(len(known)), known, fontsize=6, rotation=60)
            ax.set_ylabel(name)
        axes[0].set_ylim(0, None)
        words = (("s", "clean"), ("o", "attack of training"), ("^", "and strong attack"), ("x", "no onset"))
        handles = [Line2D([], [], color="0.3", marker=m, mfc="none", lw=0, ms=4, label=word) for m, word in words]
        fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """What Fig. 2 says, for each choice."""
    return [
        *margins.fits(table, "ours; Assumption 4"),
        *margins.rises(table, "ours; App. C.1", under=", whatever the choice,"),
        *margins.positive(table),
        *margins.agrees(table),
    ]
