"""Theorem 3.1: the explicit robust network, beside the trained ones of Fig. 1(a) on the same points."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.models.mlp import MLP
from robust_erm.oracles.rays import flips
from robust_erm.oracles.robust_net import robust_net
from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.vardi2022.sec6 import alphas, banded
from robust_erm.papers.vardi2022.sec6 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.vardi2022.sec6.table`, with what the explicit network says of the run's points.

    ``off_one``: the largest ``|y_i f(x_i) - 1|``; ``strict``: the least c along ``z = sum_i y_i x_i`` at which all its
    points are strictly flipped, inf where none is; ``ratio``: the trained network's nearest distance over its own.
    """
    found = of_runs(runs)
    more = [_of_points(one.data, one.seed) for one in map(run_of, found["folder"])]
    found = found.join(pd.DataFrame(more, index=found.index))
    return found.assign(ratio=found["nearest"] / found["explicit"])


@lru_cache(maxsize=1024)
def _of_points(data: Any, seed: int) -> dict[str, float]:
    points = draw(data, seed)
    x, y = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train)
    params, _ = robust_net(x, y)
    model = MLP(width=len(x), bias="first")
    z = (y.unsqueeze(1) * x).sum(0)
    strict = flips(model, params, x, y, -y.unsqueeze(1) * z / z.norm(), level=-1e-9).common  # below 0, not at it
    return {"off_one": float((y * model.apply(params, x) - 1).abs().max()), "strict": strict}


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Median distances to the nearest point of another label, against d, a panel for each m = d^alpha: of trained
    networks (colour), of the explicit network of Thm 3.1, attacked (grey) and guaranteed (dashed), half the distance to
    the nearest training point of the other label (dotted; no classifier can have more at that point and its partner),
    and sqrt(d) (black). Means over the draws, in bands of a standard deviation.
    """
    values = alphas(table)
    with style():
        fig, axes = plt.subplots(1, len(values), figsize=(PAGE, 2.4), layout="constrained", squeeze=False, sharey=True)
        for k, (ax, alpha) in enumerate(zip(axes[0], values, strict=True)):
            some = table[table["alpha"] == alpha]
            banded(ax, some, "nearest", COLOURS[k], "-", "trained")
            banded(ax, some, "explicit", "0.5", "-", "explicit, attacked")
            for column, dash, label in (("guaranteed", "--", "explicit, guaranteed"), ("half_way", ":", "half way"),
                                        ("sqrt_d", "-", r"$\sqrt{d}$")):  # fmt: skip
                mean = some.groupby("d")[column].mean()
                ax.plot(mean.index, mean, dash, color="0.2" if column == "sqrt_d" else "0.5", lw=0.8, label=label)
            ax.set(title=rf"$\alpha$ = {alpha:g}", xlabel="d")
        axes[0, 0].set(ylabel="distance", ylim=(0, None))
        handles, labels = axes[0, 0].get_legend_handles_labels()
        handles[0] = Line2D([], [], color="0.2", marker="o", ms=2)
        fig.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Thm 3.1 holds in every case; where its network is more robust than a trained one is a question of d.

    Of the explicit network 20 points are attacked, and a margin of 0 counts as a flip.
    """
    where, half = "Thm 3.1", 0.5 * (1 - table["inner"]) * table["d"].map(math.sqrt)
    found = [
        every("The explicit network has y f(x) = 1 at every point", where, 1e-9 - table["off_one"], 0.0,
              "1e-9 less the largest deviation: "),
        every("No attack flips a point within (1 - max|<x_i, x_j>| / d) sqrt(d) / 4", where,
              table["explicit_least"] / table["guaranteed"], 1.0, "least found over guaranteed: "),
        every("Its points stand twice as far: until their own unit dies", "ours",
              0.01 - (table["explicit_least"] / half - 1).abs(), 0.0, "1 % less the relative difference: "),
        every("It is sqrt(d)-robust: the distance is at least sqrt(d) / 8, where |<x_i, x_j>| <= d / 2", where,
              (8 * table["explicit_least"] / table["sqrt_d"])[table["inner"] <= 0.5], 1.0, "distance over that: "),
        every("The direction that flips trained networks is not its own: z is longer there, or flips nothing", "ours",
              table["strict"] / table["c"], 1.0, "strict flips of the explicit network over the trained one's: "),
    ]  # fmt: skip
    done = table[table["status"] == "converged"]
    for alpha in alphas(done):
        some = done[done["alpha"] == alpha]
        last = some[some["d"] == some["d"].max()]
        text = f"1 less trained over explicit nearest distance, at d = {last['d'].max():g}: "
        name = f"alpha = {alpha:g}: training converges to networks that are less robust than the explicit one"
        found.append(above(name, "Sec. 4", 1 - last["ratio"], 0.0, text, percent=False))
    return found
