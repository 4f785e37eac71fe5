"""Fig. 3 right: robust test accuracy of CNNs trained with GD minus that with SD, over m and eps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers import strong
from robust_erm.papers.claims import Claim, above, stated
from robust_erm.reports.style import COLUMN, style
from robust_erm.reports.tables import read_curves

LOOSE = 0.1  # the loss at which runs are reported that do not come down to their last one
KEYS = ["m", "eps", "seed"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: algorithm, m, eps, seed, and its accuracies at the first step at or below ``threshold``.

    The threshold is the loss at which training stops where all runs of that m and eps get there, else
    :data:`LOOSE` for all of them (to within the schedule of measurements); nan for a run above that too. Beside these
    what strong attacks found after the last step, see :func:`robust_erm.papers.strong.of`.
    """
    runs = runs.drop_duplicates("folder").set_index("folder")
    cells = runs.groupby(["data.m", "eps"])["status"].agg(lambda words: bool((words == "converged").all()))
    rows = []
    for folder, curve in read_curves(runs.reset_index()).sort_values("step").groupby("folder"):
        run, least = runs.loc[folder], float(runs["stop.loss"][folder])
        m, eps = run["data.m"], run["eps"]
        threshold: float = least if cells[m, eps] else max(LOOSE, least)
        below = curve[curve["log_loss"] <= math.log(threshold)]
        reached = len(below) > 0
        row = {"algorithm": str(run["optimizer"]).upper(), "m": m, "eps": eps, "seed": run["seed"]}
        row["threshold"] = threshold if reached else np.nan
        for column in ("step", "train_robust_acc", "test_robust_acc", "test_clean_acc"):
            row[column] = below[column].iloc[0] if reached else np.nan
        rows.append({**row, "log_loss": curve["log_loss"].min(), "folder": folder})
    found = pd.DataFrame(rows).sort_values(["algorithm", *KEYS]).reset_index(drop=True)
    return found.join(strong.of(found["folder"], runs.reset_index()))


def edges(table: pd.DataFrame, column: str = "test_robust_acc") -> pd.Series:
    """GD - SD of robust test accuracy, draw by draw; index m, eps, seed. Both must have been reported."""
    gd, sd = (table[table["algorithm"] == name].set_index(KEYS)[column] for name in ("GD", "SD"))
    return (gd - sd).dropna()


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Robust test accuracy of GD less that of SD, the mean over the draws, in points: blue, where GD is better. Cells
    that one of them does not fit stay empty.
    """
    sizes, radii = sorted(table["m"].unique()), sorted(table["eps"].unique())
    edge = edges(table).rename("edge").reset_index()
    mean = edge.pivot_table(index="eps", columns="m", values="edge")
    grid = 100 * mean.reindex(index=radii[::-1], columns=sizes).to_numpy(dtype=float)
    top = max(1.0, float(np.nanmax(np.abs(grid)))) if np.isfinite(grid).any() else 1.0
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.5), layout="constrained")
        image = ax.imshow(grid, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        for (i, j), value in np.ndenumerate(grid):
            text = "-" if np.isnan(value) else f"{value:.1f}"
            ax.text(j, i, text, ha="center", va="center", color="white" if abs(value) > 0.6 * top else "black")
        ax.set_xticks(range(len(sizes)), [str(m) for m in sizes])
        ax.set_yticks(range(len(radii)), [f"{e:g}" for e in radii[::-1]])
        ax.set(xlabel="training images m", ylabel=r"$\epsilon$")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        fig.colorbar(image, label="GD - SD, robust test accuracy, points")
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Sec. 5.2: GD generalizes better here, the more so the fewer the images and the larger eps."""
    where = "Sec. 5.2, Fig. 3 right"
    edge = edges(table)
    sizes, radii = sorted(table["m"].unique()), sorted(table["eps"].unique())
    per_seed = edge[edge.index.get_level_values("eps") > 0].groupby(level="seed")
    found = [above("the CNN generalizes better with GD than with SD", where, per_seed.mean(), 0.0, "GD - SD: ")]
    found.append(_ends(edge[edge.index.get_level_values("eps") > 0], "m", sizes[0], sizes[-1], "as m shrinks"))
    found.append(_ends(edge, "eps", radii[-1], radii[0], "with eps"))
    found += _trusted(table[(table["eps"] > 0)], float(runs["stop.loss"].min()))
    left = table[table["threshold"].isna()]
    loose = table[(table["threshold"] == LOOSE)]
    kinds = left.groupby(["algorithm", "m", "eps"]).size()
    names = [f"{key[0]} m = {key[1]} eps = {key[2]:g}: {n}" for key, n in zip(kinds.index, kinds, strict=True)]
    text = f"{len(loose)} of {len(table)} runs are reported at {LOOSE:g}, {len(left)} not at all"
    text += f" ({', '.join(names)})" if names else ""
    claim = "all runs come down to the loss at which the paper reports"
    return [*found, stated(claim, "App. F.2", text, not len(left) if len(table) else None)]


def _trusted(attacked: pd.DataFrame, last: float) -> list[Claim]:
    """What strong attacks leave; of GD - SD where the last step is the one that is reported."""
    if attacked["test_attacked"].isna().all():
        return []
    edge = edges(attacked[attacked["threshold"] == last], "test_attacked").rename("edge").reset_index()
    whole = edge.pivot_table(index=["m", "eps"], columns="seed", values="edge").dropna()
    cells = attacked.groupby(["m", "eps"]).ngroups
    claim = "the CNN generalizes better with GD than with SD under the strong attacks too"
    text = f"GD - SD in {len(whole)} of {cells} cells, where the last step is the one reported: "
    means = whole.mean() if len(whole) else pd.Series(dtype=float)
    near = strong.close("the attack of training is close to the strong ones", attacked, {})
    return [near, above(claim, "ours", means, 0.0, text)]


def _ends(edge: pd.Series, name: str, one: float, other: float, how: str) -> Claim:
    """Whether the edge is greater at one end of the axis ``name``: differences where both ends are known."""
    rest = "eps" if name == "m" else "m"
    wide = edge.rename("edge").reset_index().pivot_table(index=["seed", rest], columns=name, values="edge")
    known = one in wide and other in wide and one != other
    grown = (wide[one] - wide[other]).dropna() if known else pd.Series(dtype=float)
    text = f"GD - SD at {name} = {one:g} less that at {other:g}, in {len(grown)} of {len(wide)} pairs: "
    means = grown.groupby(level="seed").mean() if len(grown) else grown
    return above(f"the price grows {how}", "Sec. 5.2, Fig. 3 right", means, 0.0, text)
