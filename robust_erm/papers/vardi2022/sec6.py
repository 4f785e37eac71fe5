"""What all experiments on the sphere share: how robust trained networks are, beside what robust ones would be."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.core.norms import Norm
from robust_erm.core.statistics import slope
from robust_erm.data.dataset import Dataset
from robust_erm.models.mlp import MLP
from robust_erm.oracles.boundary import across, nearest
from robust_erm.oracles.robust_net import robust_net
from robust_erm.papers.claims import Claim, converged
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

NEAR = 0.05  # a kink-aware residual up to this counts as a KKT point; above, claims of KKT points are undecided
ATTACKED = 20  # points of the explicit network that are attacked: all are alike
MEASURED = {
    "universal_distance": "c", "universal_first_median": "median", "universal_share": "flipped",
    "universal_crossings": "crossings", "on_margin_count": "on_margin", "on_margin_share": "share",
    "on_margin_spread": "spread", "nearest_median": "nearest", "nearest_least": "nearest_least",
    "nearest_cosine": "cosine", "kkt_stationarity": "kkt", "kkt_stationarity_span": "kkt_span",
    "kkt_off_span": "off_span", "kkt_stationarity_kinks": "kkt_kinks", "kkt_kink_share": "kinks", "step": "step",
}  # fmt: skip


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: its setting, the lengths of section 6.1, and those that the explicit network has on its points.

    ``c``: the vector along z that flips all points on the margin; ``median``: that for half of them; ``nearest``: the
    median least distance of a strong attack; ``sqrt_d``; ``linear``: sqrt(d / m); ``guaranteed`` and ``explicit``: the
    network of Thm 3.1, by proof and attacked; ``half_way``: half the median distance to the nearest opposite point;
    ``inner``: ``max |<x_i, x_j>| / d``; ``balance``: share of the rarer label.
    """
    rows = []
    for _, run in runs.drop_duplicates("folder").iterrows():
        row = {"sweep": run["sweep"], "alpha": run["data.alpha"], "d": int(run["data.d"]), "width": run["model.width"]}
        row |= {"seed": run["seed"], "init_scale": run["model.init_scale"], "status": run["status"]}
        row |= {name: run.get(column, math.nan) for column, name in MEASURED.items()}
        one = run_of(run["folder"])
        rows.append({**row, **of_points(one.data, one.seed), "folder": run["folder"]})
    keys = ["alpha", "d", "width", "init_scale", "seed"]
    return pd.DataFrame(rows).sort_values(keys, kind="stable").reset_index(drop=True)


@lru_cache(maxsize=1024)
def of_points(data: Any, seed: int) -> dict[str, float]:
    """What :func:`table` says of a run's training points."""
    points = draw(data, seed)
    m, d = points.x_train.shape
    rarer = float(min((points.y_train > 0).mean(), (points.y_train < 0).mean()))
    found = {"m": m, "sqrt_d": math.sqrt(d), "linear": math.sqrt(d / m), "balance": rarer}
    return {**found, **explicit(points), "half_way": half_way(points)}


def explicit(points: Dataset) -> dict[str, float]:
    """Of the network of Thm 3.1: ``inner``, the distance that is ``guaranteed``, and the median one of an attack.

    Nan where the points have other lengths than sqrt(d): it is made for those.
    """
    x, y = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train)
    d = x.shape[1]
    if float((x.norm(dim=1) / math.sqrt(d) - 1).abs().max()) > 1e-6:
        return dict.fromkeys(("inner", "guaranteed", "explicit", "explicit_least"), math.nan)
    params, guaranteed = robust_net(x, y)
    model = MLP(width=len(x), bias="first")
    some = slice(ATTACKED)
    starts = across(x[some], y[some], x, y, Norm(2))
    lengths = nearest(lambda at: model.apply(params, at), x[some], y[some], 2.0, 20, starts).norm(dim=1)
    inner = 1 - 4 * guaranteed / math.sqrt(d)
    found = {"inner": inner, "guaranteed": guaranteed}
    return {**found, "explicit": float(lengths.median()), "explicit_least": float(lengths.min())}


def half_way(points: Dataset) -> float:
    """Median over the points of half the distance to the nearest one of the other label; nan with one label only."""
    x, positive = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train > 0)
    if not 0 < int(positive.sum()) < len(x):
        return math.nan
    far = torch.cdist(x[positive], x[~positive])
    return float(torch.cat([far.amin(0), far.amin(1)]).median()) / 2


def banded(ax: Axes, some: pd.DataFrame, column: str, colour: str, dash: str, label: str = "", over: str = "d") -> None:
    """Mean over the draws, against d, in a band of one sample standard deviation, as in the paper."""
    each = some.groupby(over)[column]
    mean, sd = each.mean(), each.std(ddof=1).fillna(0)
    ax.plot(mean.index, mean, dash, color=colour, lw=1.1, label=label, marker="o", ms=2)
    ax.fill_between(mean.index, mean - sd, mean + sd, color=colour, alpha=0.15, lw=0)


REFERENCES = (
    ("sqrt_d", r"$\sqrt{d}$", "0.2", "-"),
    ("linear", r"$\sqrt{d/m}$", "0.2", ":"),
    ("explicit", "explicit net, attacked", "0.55", "-"),
    ("guaranteed", "explicit net, guaranteed", "0.55", "--"),
)
LENGTHS = (("c", "all points, c", "-"), ("median", "half of them", "--"), ("nearest", "nearest, attacked", ":"))


def references(ax: Axes, some: pd.DataFrame, over: str = "d") -> None:
    """The lines beside every length: sqrt(d), sqrt(d / m), and what the explicit network has on the same points."""
    for column, _, colour, dash in REFERENCES:
        mean = some.groupby(over)[column].mean()
        ax.plot(mean.index, mean, dash, color=colour, lw=0.8, zorder=0)


def legend(figure: Figure) -> None:
    """What :func:`references`, and the three lengths of a trained net, are drawn as; below all panels."""
    look: dict[str, Any] = {"color": "0.4", "marker": "o", "ms": 2, "lw": 1.1}
    handles = [Line2D([], [], ls=dash, label=label, **look) for _, label, dash in LENGTHS]
    handles += [Line2D([], [], color=colour, ls=dash, lw=0.8, label=label) for _, label, colour, dash in REFERENCES]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7)


def growth(some: pd.DataFrame, column: str = "c", over: str = "d") -> tuple[float, float]:
    """The slope of the logarithm of a length on that of d, with half of its 95 % interval."""
    return slope(np.log(some[over].astype(float)), np.log(some[column].astype(float)))


def fitted(table: pd.DataFrame) -> Claim:
    """Whether all runs have come down to the loss asked for: what has not was not measured."""
    name = "All runs reach the loss asked for, with all points classified correctly"
    return converged(name, "Sec. 6", table["status"])


def alphas(table: pd.DataFrame) -> list[float]:
    """The exponents of the table, in order."""
    return sorted(table["alpha"].dropna().unique())


def assumed(table: pd.DataFrame) -> pd.Series:
    """``3 m (p + 1) / (d + 1)``, at most 1 where Thm 4.1 speaks of the points; p = max |<x_i, x_j>|."""
    return 3 * table["m"] * (table["inner"] * table["d"] + 1) / (table["d"] + 1)
