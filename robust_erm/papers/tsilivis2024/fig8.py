"""Fig. 8: robust accuracy of the CNNs along training."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_erm.papers.claims import Claim, above, by_draw
from robust_erm.reports.style import OF_OPTIMIZER, PAGE, over_steps, style
from robust_erm.reports.tables import read_curves


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: algorithm, m, eps, seed, step, loss and accuracies."""
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True))
    kept = curves[["seed", "eps", "step", "log_loss", "train_robust_acc", "test_robust_acc", "folder"]].copy()
    kept.insert(0, "m", curves["data.m"])
    kept.insert(0, "algorithm", curves["optimizer"].str.upper())
    return kept.sort_values(["algorithm", "m", "eps", "seed", "step"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Robust accuracy of the net against steps under training's own PGD, on train (dotted) and test points (solid), a
    panel for each m and eps: lines are means over the seeds, bands reach from the least to the greatest.
    """
    sizes, radii = sorted(table["m"].unique()), sorted(table["eps"].unique())
    colours = {name: OF_OPTIMIZER[name.lower()] for name in sorted(table["algorithm"].unique())}
    with style():
        fig, axes = plt.subplots(
            len(radii),
            len(sizes),
            figsize=(PAGE, 1.4 * len(radii) + 0.5),
            layout="constrained",
            squeeze=False,
            sharex=True,
            sharey=True,
        )
        for row, eps in zip(axes, radii, strict=True):
            for ax, m in zip(row, sizes, strict=True):
                some = table[(table["eps"] == eps) & (table["m"] == m)]
                for name, one in some.groupby("algorithm"):
                    for column, dash in (("train_robust_acc", ":"), ("test_robust_acc", "-")):
                        seeds = one.pivot_table(index="step", columns="folder", values=column).sort_index().ffill()
                        steps = seeds.index.to_series().clip(lower=0.5)
                        ax.plot(steps, seeds.mean(axis=1), dash, color=colours[str(name)], lw=1.1)
                        low, high = seeds.min(axis=1), seeds.max(axis=1)
                        ax.fill_between(steps, low, high, color=colours[str(name)], alpha=0.15, lw=0)
                over_steps(ax)
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for ax, m in zip(axes[0], sizes, strict=True):
            ax.set_title(f"m = {m}")
        for row, eps in zip(axes, radii, strict=True):
            row[0].set_ylabel(rf"$\epsilon$ = {eps:g}")
        for ax in axes[-1]:
            ax.set_xlabel("step")
        handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
        handles += [Line2D([], [], color="0.3", ls=ls, label=label) for ls, label in (("-", "test"), (":", "train"))]
        fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Robust overfitting at the greatest eps, which the curves would show."""
    eps = table["eps"].max()
    some = table[table["eps"] == eps].sort_values("step")
    found = []
    for name, one in some.groupby("algorithm"):
        by_run = one.groupby("folder")
        lost = by_run["test_robust_acc"].max() - by_run["test_robust_acc"].last()
        seeds = by_run["seed"].first()
        text = f"best along training - last at eps = {eps:g}, mean over m: "
        claim = f"{name}: robust overfitting of the CNN"
        found.append(above(claim, "ours, of Fig. 8", by_draw(lost, seeds), 0.01, text))
    return found
