"""Section 4: the perturbation depends on the points alone, so that it transfers between networks."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.measures.universal import direction
from robust_erm.oracles.rays import flips
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.reproduced import parameters
from robust_erm.reports.style import COLOURS, COLUMN, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each two networks trained on the same points: ``own``, c of ``of`` along its own z; ``other``, c of
    the same points along the z of ``by``; ``cosine`` of the two directions; ``same``, whether the points on the margin
    are the same, so that there is nothing to transfer.
    """
    rows = []
    for (d, m, seed), some in runs.drop_duplicates("folder").groupby(["data.d", "data.m", "seed"]):
        nets = {str(run["sweep"]): _net(run) for _, run in some.iterrows() if run["status"] == "converged"}
        for of, by in permutations(nets, 2):
            mine, theirs = nets[of], nets[by]
            cosine = float(torch.cosine_similarity(mine["z"], theirs["z"], dim=0))
            same = bool((mine["near"] == theirs["near"]).all())
            row = {"d": d, "m": m, "seed": seed, "of": of, "by": by, "same": same, "cosine": cosine}
            rows.append({**row, "own": _flip(mine, mine["z"]), "other": _flip(mine, theirs["z"])})
    columns = ["d", "m", "seed", "of", "by", "same", "cosine", "own", "other"]
    return pd.DataFrame(rows, columns=columns).assign(ratio=lambda t: t["other"] / t["own"])


def _net(run: Any) -> dict[str, Any]:
    one = run_of(run["folder"])
    data, params = draw(one.data, one.seed), parameters(run["folder"])
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    near, z = direction(x, y, y * one.model.apply(params, x), 0.1)
    return {"model": one.model, "params": params, "x": x[near], "y": y[near], "near": near, "z": z}


def _flip(net: dict[str, Any], z: torch.Tensor) -> float:
    rays = -net["y"].unsqueeze(1) * z / z.norm()
    return flips(net["model"], net["params"], net["x"], net["y"], rays).common


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The length that flips all points on a network's margin along the direction of another network trained on the
    same points, against that along its own; a mark for each two networks, a colour for each number of points. Grey:
    equal lengths.
    """
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.8), layout="constrained")
        for k, ((d, m), some) in enumerate(table.groupby(["d", "m"])):
            label = f"d = {d}, m = {m}"
            ax.plot(some["own"], some["other"], "osv^"[k % 4], color=COLOURS[k], ms=4, mfc="none", label=label)
        ends = np.array([0.9 * table["own"].min(), 1.1 * table["own"].max()])
        ax.plot(ends, ends, color="0.7", lw=0.7, zorder=0)
        ax.set(xlabel="c along its own z", ylabel="c along another network's z")
        ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Where the points on the margin are the same there is nothing to transfer, and such pairs do not count."""
    where, told = "ours, after Sec. 4", table[~table["same"].astype(bool)]
    pairs = f"of {len(told)} of {len(table)} pairs, whose margins differ"
    return [
        every("Another network's direction flips all points on a network's margin, hardly later than its own", where,
              1.1 - told["ratio"], 0.0, f"1.1 less the quotient of lengths, {pairs}: "),
        every("The directions are nearly the same", where, told["cosine"], 0.95, f"cosine, {pairs}: "),
    ]  # fmt: skip
