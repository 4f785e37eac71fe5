"""Theorem 2.1 on the way: how near a KKT point training comes, and what the length of the flip owes to it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.papers.claims import Claim, above, by_draw, every
from robust_erm.papers.vardi2022.sec6 import MEASURED, NEAR
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.reports.tables import read_curves

PAPER = 1e-30


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement at a loss below 1: ``log10_loss``, the columns of
    :data:`robust_erm.papers.vardi2022.sec6.MEASURED`, the normalised margin ``q_min / ||theta||^2`` and ``||theta||``.
    """
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True)).reset_index(drop=True)
    kept = curves[["sweep", "model.init_scale", "seed", "step", "status", "folder"]].copy()
    kept = kept.rename(columns={"model.init_scale": "init_scale"}).assign(log10_loss=curves["log_loss"] / math.log(10))
    known = {name: curves[column] for column, name in MEASURED.items() if column in curves and name != "step"}
    kept = kept.assign(**known)
    kept = kept.assign(normalised=curves["margin_robust_l2"], size=curves["norm_l2"])
    return kept[kept["log10_loss"] < 0].sort_values(["init_scale", "seed", "step"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left: the residual of the KKT conditions against the training loss, with slopes of 0 and 1 (dashed) and free at
    kinks (solid); grey: 0.05. Middle: c (solid), the median flip along z (dashed) and the median least distance of a
    strong l_2 attack (dotted). Right: what is missing of the greatest normalised margin that is reached. A line for
    each run; colours are the starts, in units of PyTorch's.
    """
    starts = sorted(table["init_scale"].unique(), reverse=True)
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6), layout="constrained")
        for _, run in table.groupby("folder"):
            colour, at = COLOURS[starts.index(run["init_scale"].iloc[0])], -run["log10_loss"]
            for ax, column, dash in ((axes[0], "kkt", "--"), (axes[0], "kkt_kinks", "-"), (axes[1], "c", "-"),
                                     (axes[1], "median", "--"), (axes[1], "nearest", ":")):  # fmt: skip
                ax.plot(at, run[column].replace([np.inf], np.nan), dash, color=colour, lw=0.9)
            missing = 1 - run["normalised"] / run["normalised"].max()
            axes[2].plot(at[:-1], missing.iloc[:-1].clip(lower=1e-6), color=colour, lw=0.9)
        axes[0].axhline(NEAR, color="0.6", lw=0.6)
        axes[0].set(ylabel="KKT residual", ylim=(0, 1))
        longest = table.loc[table["log10_loss"] <= -10, "c"].replace([np.inf], np.nan).max()
        axes[1].set(ylabel="length", ylim=(0, 1.6 * longest) if longest > 0 else None)
        axes[2].set(ylabel=r"1 - $q_{min} / \|\theta\|^2$, relative", yscale="log")
        for ax in axes:
            ax.set(xlabel="log10 of the loss", xscale="log", xlim=(3, None))
            ax.set_xticks([5, 10, 30, 100, 300], ["-5", "-10", "-30", "-100", "-300"])
            ax.set_xticks([], minor=True)
        handles = [Line2D([], [], color=COLOURS[k], label=f"start {s:g}") for k, s in enumerate(starts)]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def at_loss(table: pd.DataFrame, loss: float) -> pd.DataFrame:
    """The first measurement of each run at or below ``loss``; index sweep and seed."""
    below = table[table["log10_loss"] <= math.log10(loss) * (1 - 1e-9)].sort_values("step")
    return below.groupby("folder").head(1).set_index(["sweep", "seed"])


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Thm 2.1 says what happens in the limit; what has not come near it is undecided."""
    where = "Thm 2.1"
    last = table.sort_values("step").groupby("folder").tail(1).set_index(["sweep", "seed"])
    late = table[table["log10_loss"] <= -5].sort_values("step")
    gains = late.groupby("folder")["normalised"].apply(lambda v: float((v.diff() / v).min()))
    grown = late.groupby("folder")["size"].apply(lambda v: float(v.diff().min()))
    paper = at_loss(table, PAPER)
    own, small = paper[paper["init_scale"] == 1], last[last["init_scale"] < 0.1]
    found = [
        every("||theta|| grows as the loss falls below 1e-5, at each measurement", where, grown, 0.0, "least growth: "),
        every("The normalised margin q_min / ||theta||^2 does not fall on the way (Lyu & Li 2020, up to 1e-3)", where,
              gains, -1e-3, "least relative gain between two measurements: ", limit=True),
        every("Training comes near a KKT point from a small start, at the last loss", where,
              NEAR - small["kkt_kinks"], 0.0, f"{NEAR:g} less the residual, slopes at kinks free: ", limit=True),
        every("At a loss of 1e-30, from PyTorch's start, it has not come near one", "ours",
              own["kkt_kinks"] - NEAR, 0.0, f"residual, slopes at kinks free, less {NEAR:g}: "),
    ]  # fmt: skip
    pairs = last.merge(paper, left_index=True, right_index=True, suffixes=("", "_paper"))
    starts = last.reset_index().pivot_table(index="seed", columns="init_scale", values="nearest")
    residuals = last.reset_index().pivot_table(index="seed", columns="init_scale", values="kkt_kinks")
    one, other = starts.columns.max(), starts.columns.min()
    return [
        *found,
        above("The residual still falls beyond a loss of 1e-30", "ours",
              by_draw(pairs["kkt_kinks_paper"] - pairs["kkt_kinks"]), 0.0,
              "residual at a loss of 1e-30 less that at the last loss: ", percent=False),
        every("c hardly changes beyond it: the figures do not need the limit", "ours",
              0.15 - (pairs["c"] / pairs["c_paper"] - 1).abs(), 0.0, "0.15 less the relative change of c: "),
        above("Networks from smaller starts have the smaller residual at the last loss", "ours",
              (residuals[one] - residuals[other]).dropna() if one > other else [], 0.0,
              f"residual from start {one:g} less that from {other:g}: ", percent=False),
        above("and are less robust", "ours",
              (starts[one] - starts[other]).dropna() if one > other else [], 0.0,
              f"nearest distance from start {one:g} less that from {other:g}: ", percent=False),
        every("Pre-activations sit on their kinks there, from a small start: Sec. 5.1's mechanism", "ours",
              small["kinks"], 0.1, "share within the tolerance: "),
    ]  # fmt: skip
