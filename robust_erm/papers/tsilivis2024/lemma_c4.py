"""Lemma C.4: as eps tends to eps*, the max-margin separators of all geometries meet."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.margins import name_of
from robust_erm.core.norms import Norm
from robust_erm.papers.claims import Claim, every, stated
from robust_erm.papers.reproduced import predictor
from robust_erm.reports.style import COLOURS, COLUMN, style


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for every separator: its angle to that of r = p* (degrees), and its robust margin per ||w||_r."""
    rows = []
    for (p, eps, seed), some in runs.groupby(["p", "eps", "seed"]):
        dual = Norm(float(str(p))).dual.p
        weights = {float(r): predictor(folder) for r, folder in zip(some["optimizer.r"], some["folder"], strict=True)}
        if dual not in weights:
            continue
        margins = {
            float(run["optimizer.r"]): run[f"w_margin_robust_{name_of(run['optimizer.r'])}"]
            for _, run in some.iterrows()
        }
        reference = weights[dual] / np.linalg.norm(weights[dual])
        for r, w in weights.items():
            unit = w / np.linalg.norm(w)
            angle = 2 * np.arctan2(np.linalg.norm(unit - reference), np.linalg.norm(unit + reference))
            rows.append({"p": p, "eps": eps, "seed": seed, "r": r, "angle": np.degrees(angle), "margin": margins[r]})
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The angle between the robust max-margin separators and that of the threat's own geometry, against how near eps is
    to eps*: lines are means over the draws, bands reach from the least to the greatest.
    """
    p = table["p"].max()
    dual = Norm(float(p)).dual.p
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        norms = sorted(r for r in table["r"].unique() if r != dual)
        for k, r in enumerate(norms):
            by_eps = table[(table["r"] == r) & (table["p"] == p)].groupby("eps")["angle"]
            name = "∞" if np.isinf(r) else f"{r:g}"
            ax.plot(1 - by_eps.mean().index, by_eps.mean(), "o-", ms=3, lw=1.2, color=COLOURS[k], label=f"r = {name}")
            ax.fill_between(1 - by_eps.mean().index, by_eps.min(), by_eps.max(), color=COLOURS[k], alpha=0.15, lw=0)
        ax.set(
            xscale="log",
            xlabel=r"$1 - \epsilon / \epsilon^*$",
            ylabel=rf"angle to the $\ell_{{{dual:g}}}$ separator, degrees",
        )
        ax.invert_xaxis()
        ax.set_ylim(0, None)
        ax.legend(frameon=False)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """The greatest robust margin vanishes for every r, and the directions approach one another."""
    found = []
    for p, some in table.groupby("p"):
        last = some[some["eps"] == some["eps"].max()].set_index(["r", "seed"])["margin"]
        first = some[some["eps"] == some["eps"].min()].set_index(["r", "seed"])["margin"]
        share = float(some["eps"].max())
        name = f"l_{p:g} threat: at eps* the greatest robust margin per ||w||_r is 0 for every r"
        text = f"1 - margin at {share:g} eps* / margin at {some['eps'].min():g} eps*: "
        found.append(every(name, "Lemma C.4", 1 - (last / first).dropna(), 0.98, text))
        angles = some.groupby("eps")["angle"].max()
        text = "largest angle " + ", ".join(f"{a:.3g}° at {e:g} eps*" for e, a in angles.items())
        meets = bool(angles.iloc[-1] < 5 and angles.iloc[-1] < 0.2 * angles.iloc[0])
        claim = f"l_{p:g} threat: the max-margin solutions of all norms become the same"
        found.append(stated(claim, "Sec. 4.1, end", text + " (asked: below 5° and a fifth of the first)", meets))
    return found
