"""Theorem 3.1 and Lemma 2.1: test error against points a cluster, clusters, dimension and noise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy import special

from robust_erm.oracles.references import linear_failure, linear_failure_bound
from robust_erm.papers.claims import Claim, converged, every, within
from robust_erm.papers.frei2023.sec2 import table as of_runs
from robust_erm.papers.reproduced import parameters
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

PANELS = (("over_n", "per_cluster", "points a cluster"), ("over_k", "k", "clusters k"), ("over_d", "d", "d"),
          ("over_sigma", "sigma", r"$\sigma$"))  # fmt: skip


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.frei2023.sec2.table`, with the test accuracy on clusters that the training set has
    (``seen``) and on others (``unseen``), their share of the test points, the Clopper-Pearson 97.5 % upper bound of the
    test error (``error_most``), and Lemma 2.1: the exact probability that ``sign <u, x>`` errs, and the paper's bound.
    """
    found = of_runs(runs)
    more = []
    for folder in found["folder"]:
        one = run_of(folder)
        points, (q_train, q_test) = draw(one.data, one.seed), one.data.members(one.seed)
        right = points.y_test * one.model.apply(parameters(folder), torch.from_numpy(points.x_test)).numpy() > 0
        known = np.isin(q_test, q_train)
        wrong, n = int((~right).sum()), len(right)
        most = 1.0 if wrong == n else float(special.betaincinv(wrong + 1, n - wrong, 0.975))
        means, labels = one.data.cluster_means(one.seed), one.data.cluster_labels()
        more.append({
            "per_cluster": one.data.m / one.data.k, "error": wrong / n, "error_most": most,
            "seen": float(right[known].mean()) if known.any() else math.nan,
            "unseen": float(right[~known].mean()) if (~known).any() else math.nan, "missing": float((~known).mean()),
            "lemma": linear_failure(means, labels, one.data.sigma), "lemma_bound": linear_failure_bound(one.data.d),
        })  # fmt: skip
    return found.join(pd.DataFrame(more, index=found.index))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Test error of trained networks (circles, a mark a run, at a small value where it is 0) against points a cluster,
    clusters, dimension and noise, one varied at a time. Dashed: the share of test points from clusters that the
    training set does not have. Grey: the exact error of ``sign <u, x>`` of Lemma 2.1 (solid) and the lemma's bound
    (dotted).
    """
    floor = 1e-5
    with style():
        fig, axes = plt.subplots(1, 4, figsize=(PAGE, 2.3), layout="constrained", sharey=True)
        for ax, (sweep, column, label) in zip(axes, PANELS, strict=True):
            some = table[table["sweep"] == sweep]
            ax.plot(some[column], some["error"].clip(lower=floor), "o", color=COLOURS[0], ms=4, mfc="none")
            mean = some.groupby(column)[["missing", "lemma", "lemma_bound"]].mean().clip(lower=floor)
            ax.plot(mean.index, mean["missing"], "--", color=COLOURS[1], lw=0.9, label="unseen clusters")
            ax.plot(mean.index, mean["lemma"], "-", color="0.5", lw=0.9, label="Lemma 2.1, exact")
            ax.plot(mean.index, mean["lemma_bound"], ":", color="0.5", lw=0.9, label="its bound")
            ax.set(xscale="log", yscale="log", xlabel=label, ylim=(floor / 2, 1.5))
            values = sorted(some[column].unique())
            ax.set_xticks(values, [f"{value:.3g}" for value in values], fontsize=6)
            ax.set_xticks([], minor=True)
        axes[0].set(ylabel="test error")
        axes[-1].legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of runs that fit all training points."""
    done = table[table["status"] == "converged"]
    fine = done[(done["per_cluster"] >= 4) & (done["sweep"] != "over_n")]
    unseen = done.dropna(subset="unseen").groupby("seed")["unseen"].mean()
    return [
        converged("All runs fit their training points", "Thm 2.1", table["status"]),
        every("The test error is at most 1 %, by its 97.5 % upper bound, with 20 points a cluster", "Thm 3.1",
              0.01 - fine["error_most"], 0.0, "0.01 less the upper bound: "),
        every("Points of seen clusters are classified correctly, with 4 points a cluster or more", "Thm 3.1",
              done[done["per_cluster"] >= 4]["seen"], 0.99, "accuracy on seen clusters: "),
        within("Points of unseen clusters are classified by chance: n ~ k is needed", "Sec. 3", unseen - 0.5, 0.15,
               "accuracy on unseen clusters less a half, mean of each seed: "),
        every("sign <u, x> errs at most as often as the lemma says", "Lemma 2.1", done["lemma_bound"] - done["lemma"],
              0.0, "bound less exact probability: "),
    ]  # fmt: skip
