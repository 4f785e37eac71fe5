"""Theorem 2: in deep linear networks layers align, and their product turns to the l_2 max-margin separator."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.lyu2022 import layers
from robust_erm.reports.style import COLOURS, PAGE, over_steps, style

table = layers.table
_PANELS = (
    ("aligned", r"$1 - |\langle u_k, v_{k+1} \rangle|$, greatest"),
    ("cosine", r"$1 - \cos(W_L \cdots W_1, \overline{u})$"),
    ("spread", r"$\|W_k\|_F^2 - \|W_k\|_2^2$, greatest"),
)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Against steps, means over the draws, a colour for each depth: how far neighbouring layers are from aligned, the
    product of all layers from the direction of the max-margin separator, and layers from rank one, which stays bounded.
    Fewer points than dimensions: solid, adversarial training at half the exact margin; dashed, standard training;
    dotted, adversarial with steps of constant length. Points whose support vectors span the space: dash-dotted, at half
    the exact margin.
    """
    lines = {"adversarial": (0.5, "-"), "standard": (0.0, "--"), "far": (0.5, ":"), "spanning": (0.5, "-.")}
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6), layout="constrained")
        for name, (eps, dash) in lines.items():
            some = table[table["sweep"].str.endswith(name) & (table["eps"] == eps)]
            for depth in sorted(some["depth"].unique()):
                mean = some[some["depth"] == depth].groupby("step").mean(numeric_only=True)
                for ax, (column, _) in zip(axes, _PANELS, strict=True):
                    height = mean[column] if column == "spread" else 1 - mean[column]
                    ax.plot(np.maximum(mean.index, 0.5), height, dash, color=COLOURS[int(depth) - 2], lw=1.0)
        for ax, (_, label) in zip(axes, _PANELS, strict=True):
            over_steps(ax)
            ax.set(yscale="log", xlabel="step", ylabel=label)
        depths = sorted(table["depth"].unique())
        handles = [Line2D([], [], color=COLOURS[int(k) - 2], label=f"{k} layers") for k in depths]
        handles += [Line2D([], [], color="0.3", ls=dash, label=name) for name, (_, dash) in lines.items()]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Inequalities at every measurement; limits at the last one, undecided where they are not near."""
    ends = table.groupby("folder").last()
    own, lemma = ends[(ends["eps"] > 0) & (ends["sweep"] != "lemma2")], table[table["sweep"] == "lemma2"]
    slow = lemma.groupby("folder").last()
    steps = table[table["sweep"] != "far"]  # gradient descent with the steps of the theorem, or constant ones
    growth = pd.Series([_last_decade(run) for _, run in table.groupby("folder")])
    found = [
        every("Neighbouring layers align", "Thm 2, (14)", own["aligned"], 0.99,
              "least |<u_k, v_k+1>| at the last step: ", limit=True),
        every("at least as much as eq. (51) says, at every measurement", "App. A.2.1, (51)", steps["slack_51"], 0.0,
              "bound less measured: "),
        every("The product of the layers turns to the max-margin separator", "Thm 2, (15)", own["cosine"], 0.99,
              "cosine at the last step: ", limit=True),
        every("and so does the first layer's right singular vector", "App. A.2.1, (71)", own["outset"], 0.99,
              "|<v_1, u>| at the last step: ", limit=True),
        every("Both with Lemma 2's step, which falls like r^(-3 L)", "Thm 2, Lemma 2",
              slow[["aligned", "cosine"]].min(axis=1), 0.99, "the lesser of both at the last step: ", limit=True),
        every("Layers stay near rank one, as eq. (48) says, at every measurement", "App. A.2.1, (48)",
              steps["slack_48"], 0.0, "bound less measured: "),
        every("what they lack of it has stopped growing", "App. A.2.1, (48)", 0.01 - growth, 0.0,
              "1 % less the growth of ||W_k||_F^2 - ||W_k||_2^2 over the last decade of steps: ", limit=True),
        every("Squares of norms of any two layers differ by 2 L(W(0)) more than at the start at most", "Lemma 6",
              steps["slack_6"], 0.0, "bound less measured: "),
        every("The certificate eps prod_k ||W_k||_2 is less than 1 % above the exact eps ||W_L ... W_1||", "ours",
              own["tight"], 0.99, "the latter over the former at the last step: ", limit=True),
        every("With Lemma 2's step the training loss never rises", "Lemma 2",
              -lemma.groupby("folder")["log_loss"].diff().dropna(), 0.0, "fall of its logarithm between two: "),
        every("Its start is at a loss of at most ln 2, which App. A assumes", "App. A",
              math.log(2) - lemma.groupby("folder")["start"].first(), 0.0, "ln 2 less the loss: "),
    ]  # fmt: skip
    paired = ends[ends["sweep"].str.startswith("fig6_7.")]
    both = paired.pivot_table(index=["depth", "seed"], columns="eps", values="cosine")
    for depth, some in both.dropna().groupby("depth"):
        name = f"Adversarial training is nearer to the separator than standard training at equal steps, {depth} layers"
        gain = np.log(1 - some[0.0]) - np.log(1 - some[0.5])
        found.append(above(name, "ours, after Li et al. 2020", gain, 0.0, "log of the quotient of 1 - cosine: ",
                           percent=False))  # fmt: skip
    return found


def _last_decade(run: pd.DataFrame) -> float:
    """Relative growth of ``spread`` from the measurement nearest to a tenth of the steps to the last."""
    before = run.iloc[(run["step"] - run["step"].iloc[-1] / 10).abs().argmin()]
    return float(run["spread"].iloc[-1] / before["spread"] - 1)
