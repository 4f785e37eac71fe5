"""Theorem 3: the product of the layers' norms diverges at least like ln T, and the loss goes to 0."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.lyu2022.flow import path_of, setting
from robust_erm.reports.style import COLOURS, PAGE, style

FAR = 20.0  # ln T from which on the law is judged


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: ``log_time``, the log of the sum of step sizes T; ``log_loss``; ``rho``, the product of
    the layers' norms; ``margin``, the least gamma_i under the training attack; ``fitted``, whether L < 1 / n.
    """
    parts = []
    for _, row in runs.drop_duplicates("folder").iterrows():
        path = path_of(str(row["folder"]))
        found = {"step": path.steps, "log_time": path.log_time, "log_loss": path.loss_and_grad[0].numpy()}
        found |= {"rho": path.rho.numpy(), "margin": path.margins.amin(1).numpy()}
        found["fitted"] = np.arange(len(path.steps)) >= path.onset
        parts.append(pd.DataFrame({**setting(row), **found}))
    return pd.concat(parts, ignore_index=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """A line a run, against the log of the time T, the sum of all step sizes: left, minus the log of the loss (solid)
    and the least margin (dotted), beside ln T (grey); right, the product of the layers' norms, which Thm 3 says to grow
    at least like ln T. Colours: the attack of training; ``exact`` is a deep linear network.
    """
    names = list(dict.fromkeys(table["sweep"]))
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.7), layout="constrained")
        for (name, _), run in table.groupby(["sweep", "seed"], sort=False):
            colour, at = COLOURS[names.index(name)], run["log_time"]
            label = name if name not in axes[0].get_legend_handles_labels()[1] else None
            axes[0].plot(at, -run["log_loss"], "-", color=colour, lw=0.9, label=label)
            axes[0].plot(at, run["margin"].clip(lower=0), ":", color=colour, lw=0.9)
            axes[1].plot(at, run["rho"], "-", color=colour, lw=0.9)
        end = float(table["log_time"].max())
        axes[0].plot([0, end], [0, end], color="0.6", lw=0.8, zorder=0)
        for ax, label in zip(axes, ("-ln L, and least margin", r"$\rho = \prod_k \|W_k\|_F$"), strict=True):
            ax.set(xlabel="ln T", ylabel=label, xlim=(0, None), ylim=(0, None))
        fig.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """After L < 1 / n; the law of the loss where ln T is at least 20."""
    fitted = table[table["fitted"]]
    by_run = table.groupby("folder")
    last = by_run.last()
    grows = fitted.groupby("folder")["rho"].diff().dropna()
    far = fitted[fitted["log_time"] >= FAR]
    slow = -far.groupby("folder")["rho"].first() / far.groupby("folder")["log_time"].first()
    quotient = last["rho"] / last["log_time"] + slow.reindex(last.index)
    return [
        every("Adversarial examples become separable", "Assumption 4", by_run["fitted"].any().astype(float), 1.0,
              "1 where L < 1 / n was reached: "),
        every("From there on the product of norms grows from step to step", "Thm 3", grows, 0.0, "change: "),
        every("It grows at least like ln T", "Thm 3", quotient.where(last["log_time"] > FAR), 0.0,
              f"rho / ln T at the end less the same at ln T = {FAR:g}: "),
        every("The training loss goes to 0", "Thm 3", -last["log_loss"], -math.log(1e-6), "minus its log at the end: ",
              limit=True),
        every("like 1 / T up to logarithms: the least margin is ln T", "ours, after Lyu & Li 2020",
              0.1 - (far["margin"] / far["log_time"] - 1).abs(), 0.0,
              f"10 % less the relative difference, where ln T >= {FAR:g}: "),
    ]  # fmt: skip
