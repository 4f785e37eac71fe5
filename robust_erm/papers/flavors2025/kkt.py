"""Limits are KKT points of the margin problem in the algorithm's own norm, and not in others.

The paper measures nearness by a Bregman divergence. Here it is the margin over the norm that a step could still add, to
first order: like it 0 at KKT points of ``min ||theta||  s.t.  q_i >= 1`` and nowhere else, and in the same unit, a
share, for all norms.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.flavors2025.margins import COLOUR, MEMORY
from robust_erm.papers.flavors2025.margins import NAMES as METHODS
from robust_erm.papers.homogeneous import gaps
from robust_erm.reports.style import PAGE, style

NAMES = METHODS | {"cdm": "coordinate descent, momentum"}
OWN = {"cdm": "l1", "gd": "l2", "sd": "linf", "spectral": "spectral"}
SMOOTH = "smooth_"
NEAR = 0.05


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.homogeneous.gaps`; ``smooth``: whether the activation is a power of ReLU."""
    found = gaps(runs, OWN | {f"{SMOOTH}{name}": norm for name, norm in OWN.items()}, [*OWN.values()])
    smooth = found["sweep"].str.startswith(SMOOTH)
    return found.assign(smooth=smooth, sweep=found["sweep"].str.removeprefix(SMOOTH))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """What theta misses of the margin over the algorithm's own norm, to first order, against minus the log of the loss:
    0 at a KKT point. Left ReLU networks, right those of squared ReLUs; above clean, below robust. A line is a run;
    dotted: 5 %.
    """
    radii = sorted(table["eps"].unique())
    with style():
        fig, axes = plt.subplots(
            len(radii), 2, figsize=(PAGE, 1.7 * len(radii) + 0.5), layout="constrained", sharex=True, sharey=True,
            squeeze=False,
        )  # fmt: skip
        for row, eps in zip(axes, radii, strict=True):
            for ax, smooth in zip(row, (False, True), strict=True):
                some = table[(table["eps"] == eps) & (table["smooth"] == smooth)]
                for (sweep, _), run in some.groupby(["sweep", "folder"]):
                    ax.plot(-run["log_loss"], run["gap"], color=COLOUR[str(sweep)], lw=0.8)
                ax.axhline(NEAR, color="0.6", lw=0.6, ls=":")
                ax.set(xscale="log", ylim=(0, 0.8), xlim=(0.1, None))
            row[0].set_ylabel("missed, clean" if eps == 0 else rf"missed, $\epsilon$ = {eps:g}")
        for ax, title in zip(axes[0], ("ReLU", "squared ReLU"), strict=True):
            ax.set_title(title, fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel(r"$-\log L$")
        handles = [Line2D([], [], color=COLOUR[name], label=NAMES[name]) for name in OWN]
        fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of the first and the last look at each run; a limit that is not near leaves a claim undecided."""
    found = []
    for smooth, net in ((False, "ReLU"), (True, "squared ReLU")):
        for eps in sorted(table["eps"].unique()):
            for sweep, norm in OWN.items():
                where = "abstract" if eps == 0 and sweep not in MEMORY else "ours"
                some = table[(table["sweep"] == sweep) & (table["smooth"] == smooth) & (table["eps"] == eps)]
                if some.empty:
                    continue
                by = some.sort_values("step").groupby("folder")
                first, last = by.head(1).set_index("folder"), by.tail(1).set_index("folder")
                about = f"{net}, {norm}, eps = {eps:g}"
                what = f"{sweep} comes nearer to a KKT point in its own norm ({about})"
                fell = first["gap"] - last["gap"]
                text = f"missed of the margin, fall from {100 * first['gap'].mean():.1f} %: "
                found.append(above(what, where, fell, 0.0, text))
                others = last[[f"gap_{name}" for name in OWN.values() if name != norm]].min(axis=1)
                what = f"{sweep} ends nearer to a KKT point in its own norm than in any other ({about})"
                found.append(above(what, where, others - last["gap"], 0.0, "best other's gap - own: "))
                what = f"{sweep} ends near a KKT point in its own norm ({about})"
                text = f"{100 * NEAR:g} % less what is missed of the margin: "
                found.append(every(what, where, NEAR - last["gap"], 0.0, text, limit=True))
    done = table.groupby("folder")["gap"].apply(lambda x: float(np.isfinite(x).all()))
    return [*found, every("Every gap was found to 0.1 %", "ours", done, 1.0, "1 where so: ")]
