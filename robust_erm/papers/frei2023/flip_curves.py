"""How the share of flipped test points grows with the length of one universal vector, and of the best attacks."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.norms import Norm
from robust_erm.models.mlp import MLP
from robust_erm.oracles.boundary import across, nearest
from robust_erm.oracles.robust_net import cluster_net
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.frei2023.sec2 import ATTACKED, NEAR, direction, universal
from robust_erm.papers.reproduced import parameters
from robust_erm.reports.style import COLOURS, COLUMN, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

GRID = np.linspace(0, 1.5, 301)  # of sqrt(d)


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each run, classifier and length (of :data:`GRID`, over sqrt(d)): the shares of test points flipped.

    ``universal``: by the vector of that length along ``sum_q y_q mu_q``; ``attack``: by the best attack on each point
    that is no longer, of 100 points. Classifiers: trained, explicit (Thm 4.1), linear (``sign <u, x>``).
    """
    rows = []
    for _, run in runs.drop_duplicates("folder").iterrows():
        if run["status"] != "converged" or not run["kkt_stationarity"] <= NEAR:
            continue  # no limit yet
        one = run_of(run["folder"])
        points, root = draw(one.data, one.seed), math.sqrt(one.data.d)
        x, y = torch.from_numpy(points.x_test), torch.from_numpy(points.y_test)
        train = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train)
        u = direction(one.data, one.seed)
        means, labels = (torch.from_numpy(a) for a in (one.data.cluster_means(one.seed), one.data.cluster_labels()))
        linear = {"W1": torch.stack([u, -u]) / u.norm(), "W2": torch.tensor([[1.0, -1.0]], dtype=u.dtype)}
        nets = {
            "trained": (one.model, parameters(run["folder"])),
            "explicit": (MLP(width=one.data.k, bias="first"), cluster_net(means, labels)[0]),
            "linear": (MLP(width=2), linear),
        }
        some, its = x[:ATTACKED], y[:ATTACKED]
        starts = across(some, its, *train, Norm(2))
        for name, (model, params) in nets.items():
            moved = universal(model, params, x, u)
            step = nearest(partial(model.apply, params), some, its, 2.0, starts=starts)
            lengths = step.norm(dim=1).numpy() / root
            for t in GRID:
                shares = {"universal": float(moved.at(t * root).mean()), "attack": float((lengths <= t).mean())}
                rows.append({"k": one.data.k, "seed": one.seed, "classifier": name, "length": t, **shares})
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The share of test points whose label is flipped by one vector along ``sum_q y_q mu_q`` (solid) and by the best
    attack on each (dashed), against its length, of the trained network, the explicit one of Thm 4.1 and the linear
    classifier along the same vector; means over the draws. Grey: sqrt(d / k) and sqrt(d / 2).
    """
    k = int(table["k"].max())
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        for colour, (name, some) in zip(
            COLOURS, table[table["k"] == k].groupby("classifier", sort=False), strict=False
        ):
            mean = some.groupby("length")[["universal", "attack"]].mean()
            ax.plot(mean.index, mean["universal"], "-", color=colour, lw=1.1, label=name)
            ax.plot(mean.index, mean["attack"], "--", color=colour, lw=1.1)
        for value in (1 / math.sqrt(k), math.sqrt(0.5)):
            ax.axvline(value, color="0.7", lw=0.7, zorder=0)
        ax.set(xlabel=r"length / $\sqrt{d}$", ylabel="share of test points flipped", title=f"k = {k}")
        ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """At 1.1 sqrt(d / k), k of at least 4."""
    known = table[table["k"] >= 4]
    at = known[(known["length"] - 1.1 / np.sqrt(known["k"])).abs() < 0.003]
    share = {name: at.loc[at["classifier"] == name, "universal"] for name in ("trained", "explicit", "linear")}
    text = "share at 1.1 sqrt(d / k): "
    return [
        every("One vector of 1.1 sqrt(d / k) flips nearly all test points of the trained network", "Thm 4.2",
              share["trained"], 0.99, text),
        every("and of the linear classifier", "ours", share["linear"], 0.99, text),
        every("and none of the explicit network, k of at least 8", "Thm 4.1",
              -share["explicit"][at.loc[share["explicit"].index, "k"] >= 8], 0.0, f"minus the {text}"),
    ]  # fmt: skip
