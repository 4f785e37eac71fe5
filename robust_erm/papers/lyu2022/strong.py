"""How much of "100 % adversarial accuracy" strong attacks leave, in the runs of Figs 1, 2 and 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_erm.papers import strong
from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.lyu2022.margins import last, length
from robust_erm.papers.lyu2022.margins import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style

PARTS = ("train", "test")


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run, its last measurement as in :func:`robust_erm.papers.lyu2022.margins.table`.

    ``algorithm``: figure, way of training, and what judges it. ``train_after_train``, ``test_after_train``: shares of
    the evaluated points that are right both clean and under the attack of training; ``train_attacked``,
    ``test_attacked``: what all attacks leave of these.
    """
    ends = last(of_runs(runs)).reset_index(drop=True)
    found = strong.of(ends["folder"], runs)
    after = runs.drop_duplicates("folder").set_index("folder").get("strong.train_after_train")
    ends["train_after_train"] = ends["folder"].map(after) if after is not None else float("nan")
    ends["figure"] = ends["sweep"].str.partition(".")[0]
    ends["algorithm"] = [_name(row) for row in ends.to_dict("records")]
    return pd.concat([ends, found], axis=1)


def _name(row: Mapping[Any, Any]) -> str:
    """``fig2: FGSM 16/255``; of standard training with the attack that judges it."""
    judged = "" if row["eps"] > 0 else f" under {row['attack']} {length(row['radius'], row['attack'])}"
    return f"{row['figure']}: {row['curve']}{judged}"


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Accuracies at the end of training, on training points (left) and test points (right), a row for each kind of run:
    of clean points (squares); of points that are right both clean and under the attack of training (circles); and what
    strong attacks leave of these (triangles). Filled: means over the seeds. Open: a run. Blue: adversarial training.
    Grey: standard training under that attack.
    """
    names = list(dict.fromkeys(table["algorithm"]))[::-1]
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 0.24 * len(names) + 1.0), layout="constrained", sharey=True)
        for ax, part in zip(axes, PARTS, strict=True):
            for place, name in enumerate(names):
                own = table[table["algorithm"] == name]
                colour = COLOURS[0] if (own["eps"] > 0).all() else COLOURS[-1]
                for column, marker in ((f"{part}_clean", "s"), (f"{part}_after_train", "o"), (f"{part}_attacked", "^")):
                    ax.plot(own[column], [place] * len(own), marker, color=colour, ms=3.5, mfc="none", lw=0)
                    ax.plot(own[column].mean(), place, marker, color=colour, ms=4.5, lw=0)
            ax.set(title=f"{part} points", xlim=(-0.03, 1.03), xlabel="accuracy")
            ax.title.set_fontsize(8)
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes[0].set_yticks(range(len(names)), names, fontsize=6)
        words = (("s", "clean"), ("o", "attack of training"), ("^", "strong attacks"))
        handles = [Line2D([], [], color="0.3", marker=m, lw=0, ms=4, label=word) for m, word in words]
        fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Ours: the paper judges every run by the attack that it was trained with."""
    trained = table[table["eps"] > 0]
    found = []
    for word, some in trained.groupby("attack"):
        if some["test_attacked"].notna().any():
            claim = f"{word}: on test points the attack of training is close to the strong ones"
            found.append(strong.close(claim, some.drop(columns="eps"), {}))
    for name, some in trained.groupby("algorithm", sort=False):
        own = some[some["train_own"] == 1]
        if len(own):
            claim = f"{name}: robust on all training points under strong attacks too"
            found.append(every(claim, "ours; Assumption 4", own["train_attacked"], 1.0, "robust training accuracy: "))
    for (_, attack, radius), some in table.groupby(["figure", "attack", "radius"], sort=False):
        standard = some[some["eps"] == 0].set_index("seed")["test_attacked"]
        for label, own in some[some["eps"] > 0].groupby("algorithm", sort=False):
            same = standard.reindex(own["seed"]).to_numpy()
            edge = pd.Series(own["test_attacked"].to_numpy() - same).dropna()
            if len(edge):
                claim = f"{label}: more robust on test points than standard training, under strong attacks"
                text = f"{attack} at {radius:.3g}, {100 * own['test_attacked'].mean():.1f} %; difference: "
                found.append(above(claim, "Sec. 4", edge, 0.0, text))
    return found
