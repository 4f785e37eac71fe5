"""How fast the margin comes to the greatest there is in the optimizer's own norm, with steps of t^-1/2.

Then ``||W|| = O(t^1/2)``, and at margin gamma a loss of ``log n`` at W = 0 leaves a gap of ``log(n) / (gamma ||W||)``:
the theorem's t^-1/2, up to logarithms.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.statistics import interval, slope
from robust_erm.geometries.lp import Lp
from robust_erm.oracles.robust_classes import robust_max_margin_of_classes
from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.papers.claims import Claim, between, every
from robust_erm.papers.fan2025.matrix import NAMES
from robust_erm.papers.reproduced import signed_points
from robust_erm.reports.style import OF_OPTIMIZER, PAGE, style
from robust_erm.reports.tables import read_metrics
from robust_erm.store.config import Run
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

DECADE = 10  # the slope is that of the steps from a tenth of the last on
SURE = 10  # times the oracle's own uncertainty, that a gap must have to be known
GAP = 1e-5  # of the oracle of several classes, relative
MEMORY = {"nmd": "gd", "signum": "sd", "muon": "spectral"}  # the same with one


def greatest(run: Run, folder: str, eps: float) -> tuple[float, float]:
    """The greatest margin in the norm of the run's optimizer: no W exceeds the first; relative distance to the second.

    Of two classes exactly (:mod:`robust_erm.oracles.robust_margin`), of more by duality.
    """
    if run.outputs == 1:
        assert isinstance(run.optimizer.norm, Lp)
        exact = robust_max_margin(signed_points(folder), run.optimizer.norm.r, run.attack.p, eps)
        return exact.upper, exact.gap
    data = draw(run.data, run.seed)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    found = robust_max_margin_of_classes(run.optimizer.norm, x, y, eps, run.attack.p, gap=GAP)
    return found.upper, 1 - found.value / found.upper


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement after step 0: ``optimizer``, ``robust``, ``norm``, seed, step; ``gap``, the part that is
    missing to the greatest margin in that norm; ``sure``: whether it is ten times what is not known of that.
    """
    rows, known = [], {}
    for _, row in runs.iterrows():
        run, eps = run_of(row["folder"]), float(row["eps_absolute"])
        name, robust = run.optimizer.norm.name, eps > 0
        if (key := (name, robust, run.seed)) not in known:
            known[key] = greatest(run, row["folder"], eps)
        upper, unknown = known[key]
        curve = read_metrics(Path(row["folder"])).to_pandas()
        each = {"optimizer": row["optimizer"], "robust": robust, "norm": name, "seed": run.seed}
        for step, margin in zip(curve["step"], curve[f"margin_robust_{name}"], strict=True):
            if step > 0:
                gap = 1 - margin / upper
                rows.append(each | {"step": int(step), "gap": gap, "sure": gap > SURE * unknown})
    return pd.DataFrame(rows)


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """One row a run: ``power``, the slope of log gap on log t over the last decade of steps; ``left``, that of the log
    of ``gap t^(1/2) / log t``; nan where a gap there is not known.
    """
    rows = []
    for (robust, optimizer, seed), run in table.groupby(["robust", "optimizer", "seed"], sort=False):
        late = run[run["step"] >= 0.99 * run["step"].max() / DECADE]
        row = {"robust": robust, "optimizer": optimizer, "norm": late["norm"].iloc[0], "seed": seed}
        t, power, left = np.log(late["step"].to_numpy(dtype=float)), math.nan, math.nan
        if late["sure"].all():
            gap = np.log(late["gap"].to_numpy())
            power, left = slope(t, gap)[0], slope(t, gap + t / 2 - np.log(t))[0]
        rows.append(row | {"power": power, "left": left})
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """What is missing to the greatest margin in the optimizer's own norm, in parts of it, against steps of length
    ``lr t^(-1/2)``; left clean, four classes, right under an l_inf threat, two classes. Lines are geometric means over
    the draws; dashed: with a memory. Dotted: t^(-1/2).
    """
    shown = [name for name in NAMES if name in set(table["optimizer"])]
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.9), layout="constrained", sharey=True)
        for ax, robust in zip(axes, (False, True), strict=True):
            some = table[(table["robust"] == robust) & (table["step"] >= DECADE)]
            for name in shown:
                known = some[(some["optimizer"] == name) & (some["gap"] > 0)]
                mean = np.exp(np.log(known["gap"]).groupby(known["step"]).mean())
                dash, colour = "--" if name in MEMORY else "-", OF_OPTIMIZER[MEMORY.get(name, name)]
                ax.plot(mean.index, mean, dash, color=colour, lw=1, label=NAMES[name])
            t = np.array([DECADE, some["step"].max()], dtype=float)
            ax.plot(t, 1 / np.sqrt(t), ":", color="0.4", lw=1)
            title = r"robust, $\ell_\infty$, two classes" if robust else "clean, four classes"
            ax.set(xscale="log", yscale="log", xlabel="step t", title=title)
        axes[0].set_ylabel("1 - margin / greatest")
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """The bound, and that it is no better; a slope for each draw, with the t-interval over the draws."""
    found = []
    for (robust, name), some in slopes(table).groupby(["robust", "optimizer"], sort=False):
        text = f"{NAMES[str(name)]}, {some['norm'].iloc[0]}, {'robust' if robust else 'clean'}".replace("$", "")
        where, n = "ours" if robust else "rate, by summaries", len(some)
        claim = f"gap t^(1/2) / log t does not grow over the last decade ({text})"
        found.append(between(claim, where, interval(some["left"]), -math.inf, 0.0, "its slope on log t: ", n))
        claim = f"and the gap falls like t^(-1/2), no faster and no slower ({text})"
        found.append(between(claim, "ours", interval(some["power"]), -0.6, -0.4, "its slope on log t: ", n))
    return [*found, every("no run exceeds the oracle's margin", "ours", table["gap"], -1e-6, "gap: ")]
