"""Theorem 4.1: on the margin of a KKT point, one short vector flips every label."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.statistics import slope
from robust_erm.data.dataset import Array
from robust_erm.papers.claims import Claim, between, every
from robust_erm.papers.multipliers import sides
from robust_erm.papers.reproduced import parameters
from robust_erm.papers.vardi2022.sec6 import NEAR
from robust_erm.reports.style import COLOURS, COLUMN, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

SLACK = 1.02  # of bounds on sums, at points that are only near a limit


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: whether the theorem speaks of its data, its constants, and what was found."""
    return pd.DataFrame([_row(run) for _, run in runs.iterrows()]).sort_values(["data", "d", "init_scale", "seed"])


def _row(run: Any) -> dict[str, Any]:
    one = run_of(run["folder"])
    data, params = draw(one.data, one.seed), parameters(run["folder"])
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    q = y * one.model.apply(params, x)
    on = (q <= 1.1 * q.min()).numpy() if float(q.min()) > 0 else np.ones(len(y), dtype=bool)
    first = np.arange(len(y)) < len(y) // (1 + one.data.copies)  # all of them, but for copies (Cor. 4.1)
    found: dict[str, Any] = {
        "data": run["data.kind"], "d": x.shape[1], "m": int(first.sum()), "n": len(y), "seed": run["seed"],
        "init_scale": run["model.init_scale"], "kkt": run["kkt_stationarity_kinks"],
        "kkt_hard": run["kkt_stationarity"], "kinks": run["kkt_kink_share"], "on_margin": int(on.sum()),
        "own": bool((on == first).all()), "spread": float(q[first].max() / q.min()),
        "flip": run["universal_distance"], "beyond": run["universal_distance_minus"], "sqrt_d": math.sqrt(x.shape[1]),
        "linear": math.sqrt(x.shape[1] / first.sum()),
    }  # fmt: skip
    found |= constants(data.x_train[on], data.y_train[on])
    if "bound" in found and float(q.min()) > 0:
        own, other = ((x.shape[1] + 1) * each for each in sides(one, params, x[on], y[on]))
        found |= {"own_least": own.min(), "own_most": own.max(), "other_most": other.max()}
    return found


def constants(x: Array, y: Array) -> dict[str, float]:
    """What Thm 4.1 asks of the points on the margin, and what it then allows.

    ``p = max |<x_i, x_j>|``; ``assumed = 3 m (p + 1) / (d + 1)``, to be at most 1; ``balance`` c, the share of the
    rarer label. Where it applies, with ``kappa = (p + 1) (m - 1) / (d + 1)``: ``most`` and ``least``, between which
    ``(d + 1) S_i`` of :func:`robust_erm.papers.multipliers.sides` lies, and ``bound``, on the vector that brings all
    points to -1: ``eta ||sum_i y_i x_i||``, ``eta = (p + 1 + 2 (d + 1) / (c m least)) / (d - (m - 1) p)``.

    Args:
        x: (m, d), of length sqrt(d).
        y: (m,).
    """
    z, (m, d) = x * y[:, None], x.shape
    p = float((np.abs(z @ z.T) - np.diag(np.full(m, np.inf))).max()) if m > 1 else 0.0
    fewest = int(min((y > 0).sum(), (y < 0).sum()))
    found = {"p": p, "assumed": 3 * m * (p + 1) / (d + 1), "balance": fewest / m}
    if found["assumed"] > 1 + 1e-9 or not fewest:
        return found
    kappa = (p + 1) * (m - 1) / (d + 1)
    most = 1 / (1 - kappa - kappa**2)
    least = 1 - kappa * most
    eta = (p + 1 + 2 * (d + 1) / (fewest * least)) / (d - (m - 1) * p)
    bound = eta * float(np.linalg.norm(z.sum(0)))
    return {**found, "kappa": kappa, "least": least, "most": most, "bound": bound}


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """How far one universal vector must go until all points on the margin are at -1, against sqrt(d); a mark a run.
    Grey: sqrt(d), the length of the points. Dotted: 2 sqrt(d / m), the vector of the linear max-margin classifier on
    orthogonal points. Crosses: what the theorem's constants allow, where its assumption holds.
    """
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.8), layout="constrained")
        for k, ((data, start), some) in enumerate(table.groupby(["data", "init_scale"])):
            label = f"{data}, start {start:g}"
            ax.plot(some["sqrt_d"], some["beyond"], "osv^"[k % 4], color=COLOURS[k], ms=4, label=label)
            ax.plot(some["sqrt_d"], 2 * some["linear"], ":", color=COLOURS[k], lw=0.8)
        if "bound" in table:
            known = table.dropna(subset="bound")
            ax.plot(known["sqrt_d"], known["bound"], "x", color="0.4", ms=4, label="Thm 4.1's constants")
        ends = np.array([0, 1.05 * table["sqrt_d"].max()])
        ax.plot(ends, ends, color="0.7", lw=0.7, zorder=0)
        ax.set(xlabel=r"$\sqrt{d}$", ylabel=r"length of the vector that gives $y f \leq -1$")
        ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of the draws that satisfy the assumption, at points that are near a KKT point."""
    columns = ["kappa", "least", "most", "bound", "own_least", "own_most", "other_most"]
    known = table.reindex(columns=[*table.columns, *(c for c in columns if c not in table)])
    started, known = known[known["init_scale"] >= 0.1], known[known["assumed"] <= 1 + 1e-9]
    small, known = table[table["init_scale"] < 0.1], known[known["init_scale"] < 0.1]
    close = known["kkt"] <= NEAR
    orthogonal = known[known["data"] == "orthogonal"]
    near = orthogonal["kkt"] <= NEAR
    orthogonal = orthogonal.assign(flip=orthogonal["flip"].where(near), beyond=orthogonal["beyond"].where(near))
    where, ours = "Thm 4.1", "ours"

    def of(values: Any) -> Iterable[float]:
        """What is not near a KKT point was not measured."""
        return np.where(close, values, np.nan)

    return [
        every(f"Training has come near a KKT point ({len(known)} of {len(small)} draws fulfil 3 m (p + 1) <= d + 1)",
              "Thm 2.1", NEAR - known["kkt"], 0.0, f"{NEAR:g} less the residual, slopes at kinks free: ", limit=True),
        every("All points are on the margin", "Lemma D.1", of(1.001 - known["spread"]), 0.0,
              "1.001 less the largest margin over the least: "),
        every("What each point adds to its own side lies within the proof's bounds", "App. D, constants ours",
              of(np.minimum(known["own_least"] * SLACK - known["least"], known["most"] * SLACK - known["own_most"])),
              0.0, "room: ", limit=True),
        every("What it adds to the other side is at most kappa of that", "App. D, constants ours",
              of(SLACK * known["kappa"] * known["most"] - known["other_most"]), 0.0, "room: ", limit=True),
        every("One vector brings all points to -1, within the theorem's constants", where,
              of(known["bound"] / known["beyond"]), 1.0, "bound over length: "),
        every("Its length is O(sqrt(d / (c^2 m))): at most 2 sqrt(d / m) / c", where,
              of(2 * known["linear"] / known["balance"] / known["beyond"]), 1.0, "bound over length: "),
        between("The constant in that does not grow with d", where,
                slope(np.log(orthogonal["d"].astype(float)), _log_constant(orthogonal)), -0.1, 0.1,
                "slope of log(length c sqrt(m / d)) on log d, with its 95 % interval: ", len(orthogonal)),
        every("It is shorter than the points, sqrt(d), on orthogonal data", where,
              orthogonal["sqrt_d"] / orthogonal["beyond"], 1.0, "sqrt(d) over length: "),
        every("On orthogonal points the net flips where the linear max-margin classifier does, at sqrt(d / m)", ours,
              0.01 - (orthogonal["flip"] / orthogonal["linear"] - 1).abs(), 0.0, "1 % less the relative distance: "),
        every("and reaches -1 at twice that", ours,
              0.06 - (orthogonal["beyond"] / (2 * orthogonal["linear"]) - 1).abs(), 0.0,
              "6 % less the relative distance: "),
        every("From PyTorch's own start, a net at a loss of 1e-30 is not near a KKT point", ours,
              started["kkt"] - NEAR, 0.0, f"residual less {NEAR:g}: "),
    ]  # fmt: skip


def _log_constant(table: pd.DataFrame) -> pd.Series:
    return (table["beyond"] * table["balance"] / table["linear"]).map(np.log)
