"""Theorem 3: the product of the layers' norms diverges at least like ln T, and the loss goes to 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.lyu2022.flow import paths
from robust_erm.reports.style import COLOURS, PAGE, style

FAR = 20.0  # ln T from which on the laws are judged
ROWS = 200  # of a run


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Some 200 rows a run: ``log_time``, the log of the sum of step sizes T; ``log_loss``; ``rho``, the product of the
    layers' norms; ``margin``, the least gamma_i under the training attack; ``fitted``, whether L < 1 / n; ``growth``,
    the least change of ``rho`` from one step to the next since then; ``reach``, ``max_i ||x_i|| + max ||delta||``, for
    ``|gamma_i| <= rho ||x_i'||``.
    """
    parts = []
    for setting, path in paths(runs):
        x, eps, p = path.batch.x, float(path.batch.eps), path.run.attack.p
        longest = eps * math.sqrt(x.shape[1]) if p == math.inf else eps
        change = path.rho.diff().numpy()
        change[: path.onset] = math.inf
        found: dict[str, Any] = {
            "step": path.steps,
            "log_time": path.log_time,
            "log_loss": path.loss_and_grad[0].numpy(),
        }
        found |= {"rho": path.rho.numpy(), "margin": path.margins.amin(1).numpy()}
        found["fitted"] = np.arange(len(path.steps)) >= path.onset
        found["reach"] = float(x.norm(dim=1).max()) + longest
        found["growth"] = np.minimum.accumulate(np.concatenate([[math.inf], change]))
        at = np.unique(np.linspace(0, len(path.steps) - 1, ROWS).astype(int))
        parts.append(pd.DataFrame({**setting, **found}).iloc[at])
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
        axes[0].plot([1, end], [1, end], color="0.6", lw=0.8, zorder=0)
        for ax, label in zip(axes, ("-ln L, and least margin", r"product of norms $\rho$"), strict=True):
            ax.set(xscale="log", yscale="log", xlabel="ln T", ylabel=label, xlim=(1, None), ylim=(1, None))
        fig.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """After L < 1 / n; laws in T where ln T is at least 20, and at the last step."""
    by_run = table.groupby("folder")
    last, far = by_run.last(), table[table["log_time"] >= FAR]
    ends = last[last["log_time"] >= FAR]
    law = (-ends["log_loss"] - np.log(ends["log_time"])) / ends["log_time"]
    return [
        every("Adversarial examples become separable", "Assumption 4", by_run["fitted"].any().astype(float), 1.0,
              "1 where L < 1 / n was reached: "),
        every("From there on the product of norms grows from step to step", "Thm 3",
              last.loc[last["fitted"], "growth"], 0.0, "least change: "),
        every("It grows at least like ln T: rho is half of ln T / max_i ||x_i'|| or more", "Thm 3; constant ours",
              far["rho"] * far["reach"] / far["log_time"], 0.5, f"rho over that, where ln T >= {FAR:g}: "),
        every("The training loss goes to 0", "Thm 3", -last["log_loss"], -math.log(1e-6), "minus its log at the end: ",
              limit=True),
        every("like 1 / (T ln T) with two layers", "Lyu & Li 2020, tight rates", 0.05 - (law - 1).abs(), 0.0,
              "5 % less the relative difference of -ln L and ln T + ln ln T at the end: ", limit=True),
        every("On the way there, too", "ours",
              0.25 - ((-far["log_loss"] - np.log(far["log_time"])) / far["log_time"] - 1).abs(), 0.0,
              f"25 % less the same, where ln T >= {FAR:g}: "),
    ]  # fmt: skip
