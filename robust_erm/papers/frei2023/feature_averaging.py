"""Li, Pan, Lyu & Li 2025: gradient descent averages features; labels by cluster decouple them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from robust_erm.core.norms import Norm
from robust_erm.core.params import Params
from robust_erm.oracles.boundary import across, nearest
from robust_erm.papers.claims import Claim, above, converged, every
from robust_erm.papers.frei2023.remedies import HALF
from robust_erm.papers.frei2023.sec2 import ATTACKED, units
from robust_erm.papers.reproduced import parameters
from robust_erm.reports.style import PAGE, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

NAMES = {"class": "labels by class", "fixed": "the same, fixed second layer", "cluster": "labels by cluster"}


def readout(run: Any, params: Params) -> Any:
    """X (n, d) -> one logit (n,): of a network with one output for each cluster, the largest of the positive clusters'
    less the largest of the negative ones'.
    """
    positive = torch.from_numpy(run.data.cluster_labels() > 0)

    def apply(x: Tensor) -> Tensor:
        f: Tensor = run.model.apply(params, x)
        return f if f.ndim == 1 else f[:, positive].amax(1) - f[:, ~positive].amax(1)

    return apply


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: ``accuracy`` of the two classes on the test points; ``attack`` and ``attack_5``, median and 5 % of
    the best l_2 attacks on them, over sqrt(d); ``alone``: mean over units of the largest cosine to a cluster.
    """
    rows = []
    for _, run in runs.drop_duplicates("folder").iterrows():
        one = run_of(run["folder"])
        params = parameters(run["folder"])
        points, (_, q) = draw(one.data, one.seed), one.data.members(one.seed)
        labels = one.data.cluster_labels()
        x, y = torch.from_numpy(points.x_test), torch.from_numpy(labels[q])
        train = torch.from_numpy(points.x_train), torch.from_numpy(labels[one.data.members(one.seed)[0]])
        apply, some, its = readout(one, params), x[:ATTACKED], y[:ATTACKED]
        step = nearest(apply, some, its, 2.0, starts=across(some, its, *train, Norm(2)))
        lengths = step.norm(dim=1).numpy() / math.sqrt(one.data.d)
        rows.append({
            "sweep": run["sweep"].partition("_k")[0], "k": one.data.k, "d": one.data.d, "seed": one.seed,
            "status": run["status"], "step": run["step"], "accuracy": float((y * apply(x) > 0).double().mean()),
            "attack": float(np.median(lengths)), "attack_5": float(np.percentile(lengths, 5)),
            "alone": units(params, one.data.cluster_means(one.seed))[1], "unit": 1 / math.sqrt(one.data.k),
            "folder": run["folder"],
        })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["k", "sweep", "seed"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Cosines of the units (rows, in the order of their nearest cluster; the sixty longest) with the means of the
    clusters (columns), for labels by class, the same with a second layer fixed at +-1 / width, and labels by cluster;
    one draw. Above each, the median best l_2 attack on a test point over sqrt(d).
    """
    k = table["k"].max()
    with style():
        fig, axes = plt.subplots(1, len(NAMES), figsize=(PAGE, 2.9), layout="constrained", squeeze=False)
        image = None
        for ax, (name, label) in zip(axes[0], NAMES.items(), strict=True):
            ax.set_axis_off()
            some = table[(table["sweep"] == name) & (table["k"] == k)]
            if some.empty:
                continue
            run = some.iloc[0]
            one = run_of(run["folder"])
            w, means = parameters(run["folder"])["W1"].numpy(), one.data.cluster_means(one.seed)
            w = w[np.argsort(-np.linalg.norm(w, axis=1))[:60]]
            cosines = w @ means.T / np.outer(np.linalg.norm(w, axis=1), np.linalg.norm(means, axis=1))
            order = np.lexsort((-cosines.max(1), cosines.argmax(1)))
            image = ax.imshow(cosines[order], cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
            ax.set_title(f"{label}\nattack {some['attack'].mean():.2f}", fontsize=7)
        if image is not None:
            fig.colorbar(image, ax=axes[0], label="cosine of unit and cluster")
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of runs that fit their points."""
    done = table[table["status"] == "converged"].set_index(["k", "seed"])
    by = {name: done[done["sweep"] == name] for name in NAMES}
    where = "Li et al. 2025; numbers ours"
    cosine = 0.15 - (by["class"]["alone"] - (2 * by["class"]["unit"] ** 2) ** 0.5).abs()
    gain = (by["cluster"]["attack"] / by["class"]["attack"] - 1).dropna()
    return [
        converged("All runs fit their training points", "ours", table["status"]),
        every("Labels by class: units are class averages, of cosine sqrt(2 / k) to each of their clusters", where,
              cosine, 0.0, "0.15 less the difference of the mean largest cosine: "),
        every("so are they where the second layer is fixed: no more robust than 1.2 sqrt(d / k)", where,
              1.2 - by["fixed"]["attack"] / by["fixed"]["unit"], 0.0, "1.2 less median best attack over sqrt(d / k): "),
        above("Labels by cluster: the network is more robust", where, gain, 0.0, "quotient of median attacks less 1: ",
              percent=False),
        every("It reaches 90 % of half the distance of two means", where, by["cluster"]["attack"] / HALF, 0.9,
              "median best attack over sqrt(d / 2): "),
        every("Its units stand for one cluster each", where, by["cluster"]["alone"], 0.8, "mean largest cosine: "),
        every("at no loss of accuracy", "ours", by["cluster"]["accuracy"], 0.99, "test accuracy of the two classes: "),
    ]  # fmt: skip
