"""Which margin grows: ReLU networks under steepest descent in four norms, and Adam, clean and robust."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.papers.claims import Claim, above, every, excess, within
from robust_erm.papers.homogeneous import along
from robust_erm.papers.matrices import SHOWN
from robust_erm.reports.style import COLOURS, PAGE, style

NAMES = {
    "cd": "coordinate descent", "cdm": "that with momentum", "gd": "GD", "sd": "sign descent",
    "spectral": "spectral descent", "adam": r"Adam, $\epsilon$ = 0", "adam_eps": r"Adam, $\epsilon$ = $10^{-8}$",
}  # fmt: skip
OWN = {"cd": "l1", "gd": "l2", "sd": "linf", "spectral": "spectral"}  # steepest descent
MEMORY = {"cdm": "cd"}  # the same with momentum
COLOUR = dict(zip(NAMES, [COLOURS[k] for k in (3, 3, 0, 1, 2, 4, 7)], strict=True))
GRID = np.geomspace(1, 1e3, 61)  # of minus log L


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.homogeneous.along`, in the norms of the four geometries."""
    return along(runs, [*OWN.values()])


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least margin on the training set, after the attack of training, over the square of a norm of theta, in parts
    of the greatest shown, against minus the log of the loss: a column for each norm, above clean and below robust
    training, means over the draws that come to L < 1. Thick: steepest descent in the column's own norm; dashed: with
    momentum. Dotted: the soft margin of the thick line, ``-log L`` in place of the least one, which the theorem says
    never decreases.
    """
    radii = sorted(table["eps"].unique())
    with style():
        fig, axes = plt.subplots(
            len(radii), 4, figsize=(PAGE, 1.6 * len(radii) + 0.7), layout="constrained", sharex=True, squeeze=False
        )
        for row, eps in zip(axes, radii, strict=True):
            for ax, (sweep, norm) in zip(row, OWN.items(), strict=True):
                some = table[table["eps"] == eps]
                lines = {name: mean_over(some[some["sweep"] == name], f"hard_{norm}") for name in NAMES}
                soft = mean_over(some[some["sweep"] == sweep], f"soft_{norm}")
                most = max(float(np.nanmax(line, initial=0)) for line in (*lines.values(), soft)) or 1.0
                for name, line in lines.items():
                    dash = "--" if name in MEMORY else "-"
                    ax.plot(GRID, line / most, dash, color=COLOUR[name], lw=1.6 if name == sweep else 0.8)
                ax.plot(GRID, soft / most, ":", color=COLOUR[sweep], lw=1.0)
                ax.set(xscale="log", ylim=(0, 1.05), xlim=(GRID[0], float(-table["log_loss"].min())))
            row[0].set_ylabel("margin, clean" if eps == 0 else rf"margin, $\epsilon$ = {eps:g}")
        for ax, norm in zip(axes[0], OWN.values(), strict=True):
            ax.set_title(f"over {SHOWN.get(norm, norm)}", fontsize=8)
        for ax in axes[-1]:
            ax.set_xlabel(r"$-\log L$")
        handles = [
            Line2D([], [], color=COLOUR[name], ls="--" if name in MEMORY else "-", label=label)
            for name, label in NAMES.items()
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=6)
    return fig


def mean_over(some: pd.DataFrame, column: str) -> np.ndarray:
    """``column`` on :data:`GRID`, mean over the runs; nan where a run has not been, or where there is none."""
    lines = [
        np.interp(GRID, np.maximum.accumulate(-run["log_loss"]), run[column], left=np.nan, right=np.nan)
        for _, run in some.groupby("folder")
    ]
    return np.mean(lines, axis=0) if lines else np.full(len(GRID), np.nan)


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Growth from L < 1 on, and the last measurement of each run, pairs by seed."""
    found = []
    for eps in sorted(table["eps"].unique()):
        where, threat = ("abstract", "eps = 0") if eps == 0 else ("ours", f"eps = {eps:g}")
        some = table[table["eps"] == eps]
        here = runs[np.isclose(runs["eps_absolute"].astype(float), eps)]
        for sweep, norm in [*OWN.items(), *((name, OWN[plain]) for name, plain in MEMORY.items())]:
            came = here.loc[here["sweep"] == sweep, "folder"].isin(table["folder"]).astype(float)
            text = "1 where so at some time: "
            found.append(
                every(f"{sweep} comes to L < 1, where all points are right ({threat})", "ours", came, 1.0, text)
            )
            fell = some[some["sweep"] == sweep].groupby("folder")[f"soft_{norm}"].agg(largest_fall)
            text = "minus the largest fall between two measurements, over its greatest value: "
            claim = f"{sweep}: the soft margin over {norm} never decreases ({threat})"
            found.append(every(claim, "ours" if sweep in MEMORY else where, -fell, -1e-6, text))
        last = some.sort_values("step").groupby("folder").tail(1)
        ends = {
            norm: last.pivot_table(index="seed", columns="sweep", values=f"hard_{norm}").reindex(columns=[*NAMES])
            for norm in OWN.values()
        }

        def more(claim: str, norm: str, own: str, other: pd.Series, ends: Any = ends, threat: str = threat) -> Claim:
            over = excess(ends[norm][own], other)
            return above(f"{claim} ({threat})", "ours", over, 0.0, "its over the other's, less 1: ", percent=False)

        for sweep, norm in OWN.items():
            best = ends[norm][[name for name in OWN if name != sweep]].max(axis=1)
            found.append(more(f"Of the four, {sweep} ends with the greatest margin over {norm}", norm, sweep, best))
        plain = ends["linf"]["sd"]
        near = excess(ends["linf"]["adam"], plain)
        claim = f"Adam with epsilon = 0 ends at sign descent's margin over linf ({threat})"
        found.append(within(claim, "ours", near, 0.1, "its over the other's, less 1: "))
        claim, plain = "Adam with epsilon = 1e-8 ends with more margin over l2 than with 0", ends["l2"]["adam"]
        found.append(more(claim, "l2", "adam_eps", plain))
        lost = -excess(ends["linf"]["adam_eps"], ends["linf"]["adam"])
        claim = f"and with less over linf ({threat})"
        found.append(above(claim, "ours", lost, 0.0, "1 less its over the other's: ", percent=False))
    return found


def largest_fall(margin: pd.Series) -> float:
    """From one measurement to the next, over the greatest value; 0 where it never falls, nan of a single one."""
    return max(0.0, -float(margin.diff().min())) / float(margin.max()) if len(margin) > 1 else math.nan
