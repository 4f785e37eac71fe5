"""Figs 6 and 7: norms of the layers of deep linear networks, and how near each is to rank one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.lyu2022 import layers
from robust_erm.papers.lyu2022.layers import separated
from robust_erm.reports.style import COLOURS, PAGE, over_steps, style

table = layers.table


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Against steps, a column for each depth: ``||W_k||_F`` of each layer (above), and ``||W_k||_2 / ||W_k||_F``
    (below), means over the draws. Solid: adversarial training at half the exact l_2 margin; dashed: standard training.
    The last layer has one row, so its quotient is 1. Dotted: the mean step from which on the adversarially trained
    network has all points right under the attack.
    """
    depths = sorted(table["depth"].unique())
    onset = separated(table[table["sweep"].str.endswith("adversarial")]).groupby(["depth", "folder"])["step"].min()
    with style():
        fig, axes = plt.subplots(
            2, len(depths), figsize=(PAGE, 3.6), layout="constrained", sharex=True, sharey="row", squeeze=False
        )
        for column, depth in enumerate(depths):
            for row, kind in enumerate(("norm", "ratio")):
                ax = axes[row, column]
                for sweep, dash in (("adversarial", "-"), ("standard", "--")):
                    some = table[table["sweep"].str.endswith(sweep) & (table["depth"] == depth)]
                    mean = some.groupby("step").mean(numeric_only=True)
                    for k in range(int(depth)):
                        ax.plot(np.maximum(mean.index, 0.5), mean[f"{kind}_{k + 1}"], dash, color=COLOURS[k], lw=1.1)
                if depth in onset:
                    ax.axvline(onset[depth].mean(), color="0.6", ls=":", lw=0.8)
                over_steps(ax)
            axes[0, column].set_title(f"{depth} layers")
            axes[1, column].set_xlabel("step")
        axes[0, 0].set_ylabel(r"$\|W_k\|_F$")
        axes[1, 0].set_ylabel(r"$\|W_k\|_2 / \|W_k\|_F$")
        handles = [Line2D([], [], color=COLOURS[k], label=f"layer {k + 1}") for k in range(int(max(depths)))]
        kinds = (("adversarial", "-"), ("standard", "--"))
        handles += [Line2D([], [], color="0.3", ls=dash, label=label) for label, dash in kinds]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of adversarial training; "increasing" from the step on at which all points are right under the attack."""
    own = table[table["sweep"].str.endswith("adversarial")]
    late, depth = separated(own), int(own["depth"].max())
    norms = [f"norm_{k}" for k in range(1, depth + 1)]
    ratios = [_rises(late[late["depth"] > k], f"ratio_{k}") for k in range(1, depth)]
    text = "relative change between two measurements: "
    return [
        every("All training points are right under the attack", "Sec. 3.1",
              own.groupby("folder")["robust"].last() > 0, 1.0, "1 where so at the last step: "),
        every("The norms of all layers keep increasing", "Fig. 6", pd.concat([_rises(late, n) for n in norms]), -1e-9,
              f"from there on, {text}"),
        every("and do from the first step on", "Fig. 6", pd.concat([_rises(own, n) for n in norms]), -1e-9, text),
        every("The quotients ||W_k||_2 / ||W_k||_F of all layers but the last keep increasing", "Fig. 7",
              pd.concat(ratios), -1e-9,
              f"from there on, {text}"),
        every("The training loss never rises", "Lemma 1",
              -own.groupby("folder")["log_loss"].diff().dropna(), 0.0, "fall of its logarithm between two: "),
    ]  # fmt: skip


def _rises(some: pd.DataFrame, column: str) -> pd.Series:
    """Relative changes of ``column`` from one measurement of a run to the next."""
    known = some.dropna(subset=column)
    by_run = known.groupby("folder")[column]
    return (by_run.diff() / by_run.shift()).dropna()
