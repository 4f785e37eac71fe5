"""Fragility comes long before convergence; that one vector suffices comes with it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.core.norms import Norm
from robust_erm.oracles.boundary import across, nearest
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.frei2023.sec2 import direction, universal
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.reports.tables import read_curves, snapshots
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

POINTS = 50  # test points attacked at each snapshot


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: step, ``log_loss``, test accuracy, KKT residual, and of the parameters kept there, in
    units of sqrt(d / k): ``u99``, the vector along ``sum_q y_q mu_q`` that flips 99 % of the test points, and
    ``attack``, the median best attack on a test point that is classified correctly. ``separated``: whether the loss is
    below ln(2) / n, from where on Thm 2.1 speaks.
    """
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True))
    rows = []
    for folder, curve in curves.groupby("folder", sort=False):
        one = run_of(str(folder))
        points, unit = draw(one.data, one.seed), math.sqrt(one.data.d / one.data.k)
        x, y = torch.from_numpy(points.x_test), torch.from_numpy(points.y_test)
        train = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train)
        u, by_step = direction(one.data, one.seed), curve.set_index("step")
        for step, params in zip(*snapshots(str(folder)), strict=True):
            if step not in by_step.index:
                continue
            own = {k: v.double() for k, v in params.items()}
            moved = universal(one.model, own, x, u).least(0.99) / unit
            right = (y * one.model.apply(own, x) > 0).nonzero().squeeze(-1)[:POINTS]
            attack = math.nan
            if len(right) > POINTS // 2:
                starts = across(x[right], y[right], *train, Norm(2))
                found = nearest(partial(one.model.apply, own), x[right], y[right], 2.0, 30, starts)
                attack = float(found.norm(dim=1).median()) / unit
            at = by_step.loc[step]
            row = {"init_scale": one.model.init_scale, "seed": one.seed, "step": step, "log_loss": at["log_loss"]}
            row |= {"accuracy": at["test_clean_acc"], "kkt": at.get("kkt_stationarity", math.nan), "u99": moved}
            rows.append({**row, "attack": attack, "separated": at["log_loss"] < math.log(math.log(2) / one.data.m)})
    return pd.DataFrame(rows).sort_values(["init_scale", "seed", "step"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Against minus the log of the loss, as training goes on: in units of sqrt(d / k), the vector
    that flips 99 % of the test points (solid) and the median best attack (dashed); the test accuracy; the KKT residual.
    A line a run; colours are the starts in units of PyTorch's. Dotted: where Thm 2.1 begins, a loss of ln(2) / n.
    """
    starts = sorted(table["init_scale"].unique())
    first = table[table["separated"]].groupby(["init_scale", "seed"])["log_loss"].max()
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6), layout="constrained")
        for (start, _), run in table.groupby(["init_scale", "seed"]):
            colour, at = COLOURS[starts.index(start)], (-run["log_loss"]).clip(lower=0.1)
            axes[0].plot(at, run["u99"].replace([np.inf], np.nan), "-", color=colour, lw=0.9)
            axes[0].plot(at, run["attack"], "--", color=colour, lw=0.9)
            axes[1].plot(at, run["accuracy"], color=colour, lw=0.9)
            axes[2].plot(at, run["kkt"], color=colour, lw=0.9)
        for ax, name in zip(axes, (r"length / $\sqrt{d/k}$", "test accuracy", "KKT residual"), strict=True):
            if len(first):
                ax.axvline(-first.mean(), color="0.6", ls=":", lw=0.8)
            ax.set(xscale="log", xlabel="minus log of the loss", ylabel=name, ylim=(0, None))
        axes[0].set(ylim=(0, 4))
        handles = [Line2D([], [], color=COLOURS[k], label=f"start {s:g}") for k, s in enumerate(starts)]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """From the small start, where the flow is followed."""
    small = table[table["init_scale"] < 0.1]
    early = small[(small["accuracy"] >= 0.99) & ~small["separated"] & small["attack"].notna()]
    first = early.sort_values("step").groupby("seed").head(1)
    last = small.sort_values("step").groupby("seed").tail(1)
    text = "1.25 less median best attack over sqrt(d / k): "
    return [
        every("The network is fragile as soon as it classifies test points correctly, before the loss is ln(2) / n",
              "ours", 1.25 - first["attack"], 0.0, text),
        every("One vector does not suffice yet there", "ours", first["u99"] / first["attack"], 1.2,
              "universal vector over best attack: "),
        every("at the last step it does", "Thm 4.2", (1.15 - last["u99"] / last["attack"]).where(last["kkt"] <= 0.1),
              0.0, "1.15 less universal vector over best attack: "),
        every("The KKT residual falls below 0.1", "Thm 2.1", 0.1 - last["kkt"], 0.0, "0.1 less the last: ", limit=True),
    ]  # fmt: skip
