"""Section 4: the universal vector transfers between networks, and to the linear classifier, not to robust ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.models.mlp import MLP
from robust_erm.oracles.references import nearest_prototype
from robust_erm.oracles.robust_net import cluster_net
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.frei2023.sec2 import NEAR, direction, universal
from robust_erm.papers.reproduced import parameters
from robust_erm.reports.style import COLUMN, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

FIXED = ("linear", "explicit", "neighbour", "mean")
NAMES = {"base": "width 64", "narrow": "width 8", "wide": "width 512", "large_start": "start 1",
         "exponential": "exponential", "sign": "sign descent", "linear": "linear", "explicit": "explicit net",
         "neighbour": "1-NN", "mean": "nearest mean"}  # fmt: skip


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each network ``by`` and classifier ``of`` on the same points: ``share`` of the test points whose
    label under ``of`` is flipped by the vector of 1.1 times the length that flips 99 % of them under ``by``; ``near``,
    whether both are trained by gradient descent and near a KKT point.
    """
    rows = []
    for (k, seed), some in runs.drop_duplicates("folder").groupby(["data.k", "seed"]):
        done = some[some["status"] == "converged"]
        if done.empty:
            continue
        one = run_of(done["folder"].iloc[0])
        points, u = draw(one.data, one.seed), direction(one.data, one.seed)
        x = torch.from_numpy(points.x_test)
        outputs: dict[str, Any] = {}
        lengths, near = {}, dict.fromkeys(FIXED, False)
        for _, run in done.iterrows():
            own = parameters(run["folder"])
            model = run_of(run["folder"]).model
            outputs[run["sweep"]] = lambda at, m=model, p=own: m.apply(p, at).numpy() > 0
            lengths[run["sweep"]] = universal(model, own, x, u).least(0.99)
            near[run["sweep"]] = run["optimizer"] == "gd" and run["kkt_stationarity"] <= NEAR
        outputs |= _fixed(one, points)
        for by, length in lengths.items():
            if not math.isfinite(length):
                continue
            for of, positive in outputs.items():
                before = positive(x)
                signs = torch.from_numpy(np.where(before, 1.0, -1.0)).unsqueeze(1)
                after = positive(x - 1.1 * length * signs * u / u.norm())
                share, both = float((after != before).mean()), near[by] and near[of]
                rows.append({"k": k, "seed": seed, "by": by, "of": of, "near": both, "share": share})
    return pd.DataFrame(rows)


def _fixed(run: Any, points: Any) -> dict[str, Any]:
    """Classifiers without training: x (n, d) -> whether the label is +1, (n,)."""
    means, labels = run.data.cluster_means(run.seed), run.data.cluster_labels()
    params, _ = cluster_net(torch.from_numpy(means), torch.from_numpy(labels))
    model, u = MLP(width=run.data.k, bias="first"), direction(run.data, run.seed)
    return {
        "linear": lambda at: (at @ u).numpy() > 0,
        "explicit": lambda at: model.apply(params, at).numpy() > 0,
        "neighbour": lambda at: nearest_prototype(points.x_train, points.y_train, at.numpy(), 1).label > 0,
        "mean": lambda at: nearest_prototype(means, labels, at.numpy(), 1).label > 0,
    }


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The share of test points whose label under one classifier (columns) is flipped by 1.1 times the vector that flips
    99 % of them under a trained network (rows); means over the draws.
    """
    by, of = ([name for name in NAMES if name in set(table[key])] for key in ("by", "of"))
    grid = table.pivot_table(index="by", columns="of", values="share").reindex(index=by, columns=of).to_numpy()
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        image = ax.imshow(grid, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            ax.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=5, color="white" if value > 0.6 else "black"
            )
        ax.set_xticks(range(len(of)), [NAMES[name] for name in of], rotation=45, ha="right", fontsize=6)
        ax.set_yticks(range(len(by)), [NAMES[name] for name in by], fontsize=6)
        ax.set(xlabel="share flipped of", ylabel="vector of")
        fig.colorbar(image)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of all pairs of different networks."""
    where, text = "Sec. 4", "share of test points flipped: "
    nets = table[~table["of"].isin(FIXED) & (table["of"] != table["by"])]
    by = {name: table.loc[table["of"] == name, "share"] for name in FIXED}
    name = "A vector that flips 99 % of the points of one network flips those of the others, 1.1 times as long"
    near = nets["near"].astype(bool)
    return [
        every(f"{name}: gradient descent, near KKT points", where, nets.loc[near, "share"], 0.99, text),
        every("also where one is far from a KKT point, or found by sign descent", "ours",
              nets.loc[~near, "share"], 0.99, text),
        every("and those of the linear classifier", where, by["linear"], 0.99, text),
        every("not those of the explicit network", where, -by["explicit"], -0.01, f"minus the {text}"),
        every("nor of the nearest mean", "ours", -by["mean"], -0.01, f"minus the {text}"),
        every("nor of the nearest neighbour", "ours", -by["neighbour"], -0.01, f"minus the {text}"),
    ]  # fmt: skip
