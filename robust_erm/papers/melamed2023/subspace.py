"""How far the boundary is off the subspace of the points and in it, and how much of the gradient lies off it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_erm.core.statistics import interval
from robust_erm.oracles.rays import flips
from robust_erm.papers.claims import Claim, above
from robust_erm.papers.reproduced import parameters
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

NAMES = {
    "standard": "standard", "wide": "standard, four times the subspace", "small_start": "a tenth of the start",
    "decay": "weight decay", "robust": "robust training",
}  # fmt: skip
KINDS = {"off": "off the subspace", "within": "in the subspace"}
CURES = ("small_start", "decay", "robust")
LARGE = 0.5  # of the slope in a direction, where outputs are some ones


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: sweep, seed, ``acc`` (train); medians over the test points, in lengths of them: ``off`` and
    ``within``, how far the label lasts against the gradient's part off the subspace and in it; ``slope``, the length of
    the first part; ``gradient``: over that of the second.
    """
    rows = []
    for _, row in runs.iterrows():
        run = run_of(row["folder"])
        data, params = draw(run.data, run.seed), parameters(row["folder"])
        x = torch.from_numpy(data.x_test)
        x.requires_grad_()
        f = run.model.apply(params, x)
        (slope,) = torch.autograd.grad(f.sum(), x)
        label = torch.where(f > 0, 1.0, -1.0).to(x)
        off, x = torch.zeros_like(slope), x.detach()
        size = x.norm(dim=1).numpy()
        off[:, run.data.subspace :] = slope[:, run.data.subspace :]
        parts = {"off": off, "within": slope - off}
        lengths = {name: part.norm(dim=1) for name, part in parts.items()}
        found, points = {}, torch.from_numpy(data.x_train)
        fitted = float((run.model.apply(params, points).sign().numpy() == data.y_train).mean())
        for name, part in parts.items():
            ray = -label[:, None] * part / lengths[name].clamp_min(torch.finfo(x.dtype).tiny)[:, None]
            found[name] = float(np.median(flips(run.model, params, x, label, ray).first / size))
        found["slope"] = float(lengths["off"].median())
        found["gradient"] = float((lengths["off"] / lengths["within"]).median())
        rows.append({"sweep": row["sweep"], "seed": run.seed, "acc": fitted, **found})
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left: how far a test point keeps its label on the straight way against the gradient's part off the subspace of
    the data, and against that in it, in lengths of the point. Right: the length of the first part over that of the
    second. Medians over the test points; geometric means over the draws with their 95 % intervals.
    """
    names = [name for name in NAMES if name in set(table["sweep"])]
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 1.9), layout="constrained", sharey=True)
        for k, (kind, label) in enumerate(KINDS.items()):
            _across(axes[0], table, names, kind, COLOURS[k], label)
        _across(axes[1], table, names, "gradient", COLOURS[2], None)
        axes[0].axvline(1, color="0.6", lw=0.6)
        axes[0].set(xlabel="way / length of the point", ylim=(len(names) - 0.5, -0.5))
        axes[0].set_yticks(range(len(names)), [NAMES[name] for name in names])
        axes[0].legend(frameon=False, fontsize=7)
        axes[1].set(xlabel="gradient off the subspace / in it")
    return fig


def _across(ax: Axes, table: pd.DataFrame, names: Sequence[str], column: str, colour: str, label: str | None) -> None:
    """A point in each row, on a log scale."""
    logs = {name: np.log(table.loc[table["sweep"] == name, column]) for name in names}
    means, halves = np.array([interval(list(some)) for some in logs.values()]).T
    halves = np.where(np.isfinite(halves), halves, 0.0)
    ends = np.exp(means) - np.exp(means - halves), np.exp(means + halves) - np.exp(means)
    ax.errorbar(np.exp(means), range(len(names)), xerr=ends, fmt="o", ms=3, lw=1, color=colour, label=label)
    ax.set_xscale("log")


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """The gradient off the subspace is large after standard training, the way short, and each cure makes it longer."""
    by_sweep = {str(name): some.set_index("seed") for name, some in table.groupby("sweep")}
    found = [
        above(f"all training points are fitted ({NAMES[name]})", "ours", some["acc"], 0.999)
        for name, some in by_sweep.items()
    ]
    standard = by_sweep["standard"]
    for plain in (name for name in ("standard", "wide") if name in by_sweep):
        claim = f"the gradient off the subspace is large ({NAMES[plain]})"
        found.append(above(claim, "abstract, our bar", by_sweep[plain]["slope"], LARGE, percent=False))
        claim = f"the boundary off the subspace is nearer than the point's own length ({NAMES[plain]})"
        found.append(above(claim, "abstract, our bar", 1 - by_sweep[plain]["off"], 0.0, "1 - way / length: "))
        claim = f"it is nearer off the subspace than in it ({NAMES[plain]})"
        found.append(
            above(claim, "ours", 1 - by_sweep[plain]["off"] / by_sweep[plain]["within"], 0.0, "1 - off / in: ")
        )
    if "wide" in by_sweep:
        claim = "the larger the subspace, the nearer the boundary off it, in lengths of the point"
        shorter = np.log(standard["off"] / by_sweep["wide"]["off"])
        found.append(above(claim, "ours", shorter, 0.0, "log ratio: ", percent=False))
    for name in (name for name in CURES if name in by_sweep):
        where = "ours" if name == "robust" else "abstract"
        some = by_sweep[name]
        claim = f"{NAMES[name]}: the boundary is farther off the subspace than after standard training"
        found.append(above(claim, where, np.log(some["off"] / standard["off"]), 0.0, "log ratio: ", percent=False))
        claim = f"{NAMES[name]}: less of the gradient is off the subspace"
        found.append(above(claim, where, standard["gradient"] - some["gradient"], 0.0, "less: ", percent=False))
        claim = f"{NAMES[name]}: the boundary is no nearer off the subspace than in it"
        found.append(above(claim, "ours", some["off"] / some["within"], 1.0, "off / in: ", percent=False))
    return found
