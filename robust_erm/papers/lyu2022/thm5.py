"""Theorem 5: the direction of the parameters approaches a KKT point of the margin problem at attacked points."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.oracles.kkt import kkt, pooled
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.lyu2022.flow import Path, paths
from robust_erm.reports.style import COLOURS, PAGE, style

ITERATES = 40  # whose constraints are taken together
LOOKS = 8  # measurements of a run, evenly spaced after L < 1 / n


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a look at a run after L < 1 / n: ``single``, the KKT residual of its own constraints; ``pooled``, that of
    the constraints of the last 40 iterates together (:func:`robust_erm.oracles.kkt.pooled`); ``complementarity``; and
    ``cosine``, of theta and minus the gradient of the loss, whose paper's own multipliers (eq. 130) have the residual
    ``sqrt(2 (1 - cosine))``.
    """
    rows = []
    for setting, path in paths(runs):
        first, last = path.onset + ITERATES, len(path.steps) - 1
        for k in (
            sorted({first + round((last - first) * j / (LOOKS - 1)) for j in range(LOOKS)}) if first <= last else []
        ):
            rows.append({**setting, "step": path.steps[k], **_look(path, k)})
    columns = ["sweep", "seed", "folder", "step", "log_loss", "single", "pooled", "complementarity", "cosine"]
    return pd.DataFrame(rows, columns=columns)


def _look(path: Path, k: int) -> dict[str, Any]:
    model, y = path.run.model, path.batch.y
    found = kkt(model, path.params(k), path.attacked(path.theta[k]), y)
    iterates = [(path.params(j), path.attacked(path.theta[j])) for j in range(k - ITERATES + 1, k + 1)]
    log_loss, grad = (part[k] for part in path.loss_and_grad)
    cosine = -float(path.theta[k] @ grad / (path.theta[k].norm() * grad.norm()))
    return {
        "log_loss": float(log_loss),
        "single": found.stationarity,
        "pooled": pooled(model, iterates, y),
        "complementarity": found.complementarity if found.feasible else math.nan,
        "cosine": cosine,
    }


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Against minus the log of the loss, means over the draws, colours by the attack of training. Left: the residual of
    the KKT conditions of the last 40 iterates' constraints together (solid), and of those at the iterate alone
    (dashed), which jump across the kinks of ReLUs. Right: the cosine of the parameters and minus the gradient.
    """
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.7), layout="constrained")
        for k, name in enumerate(dict.fromkeys(table["sweep"])):
            some = table[table["sweep"] == name]
            mean = some.assign(look=some.groupby("folder").cumcount()).groupby("look").mean(numeric_only=True)
            at = -mean["log_loss"]
            axes[0].plot(at, mean["pooled"], "-", color=COLOURS[k], lw=1.1, label=name)
            axes[0].plot(at, mean["single"], "--", color=COLOURS[k], lw=0.8)
            axes[1].plot(at, mean["cosine"], "-", color=COLOURS[k], lw=1.1)
        for ax, label in zip(axes, ("KKT residual", r"cosine of $\theta$ and $-\nabla L$"), strict=True):
            ax.set(xscale="log", xlabel="minus log of the loss", ylabel=label)
        axes[0].set(ylim=(0, None))
        if len(table):
            fig.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """At the last look of each run; a limit that is not near leaves a claim undecided."""
    first, last = (table.groupby("folder").nth(k).set_index("folder") for k in (0, -1))
    smooth = last["sweep"] == "exact"
    ends = runs.drop_duplicates("folder")
    return [
        every("In the theorem's own setting the constraints of the iterate itself are those of a KKT point", "Thm 5",
              0.05 - last.loc[smooth, "single"], 0.0, "0.05 less the residual: ", limit=True),
        every("For ReLU networks those of the last 40 iterates together are", "Thm 5; pooled: ours",
              0.25 - last.loc[~smooth, "pooled"], 0.0, "0.25 less the residual: ", limit=True),
        every("and the residual has fallen since the loss was 1 / n", "Thm 5",
              (first["pooled"] - last["pooled"])[~smooth], 0.0, "fall: ", limit=True),
        every("Multipliers sit on the least margins", "App. B.3, (134)", 0.05 - last["complementarity"], 0.0,
              "0.05 less the share of theirs off it: ", limit=True),
        every("The parameters turn to minus the gradient, in the theorem's own setting", "Lemma 12",
              last.loc[smooth, "cosine"], 0.99, "cosine: ", limit=True),
        every("and do so for ReLU networks", "Lemma 12; App. B.4", last.loc[~smooth, "cosine"], 0.99, "cosine: ",
              limit=True),
        every("All runs that were looked at have positive margins under their attack", "Assumption 4",
              ends["margin_robust"], 0.0, "least margin: "),
    ]  # fmt: skip
