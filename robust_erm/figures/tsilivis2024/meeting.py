"""Lemma C.4: as eps tends to eps*, the max-margin separators of all geometries meet."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.claims import Claim, every, stated
from robust_erm.figures.style import COLOURS, COLUMN, style
from robust_erm.norms import Norm
from robust_erm.oracles.margin import norm
from robust_erm.reproduced import predictor, signed_points


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for every separator: its angle to that of r = p* (degrees), and its l_p margin relative to eps*."""
    rows = []
    for (p, eps, seed), some in runs.groupby(["p", "eps", "seed"]):
        dual = Norm(float(str(p))).dual.p
        z = signed_points(some["folder"].iloc[0])
        weights = {float(r): predictor(folder) for r, folder in zip(some["optimizer.r"], some["folder"], strict=True)}
        reference = weights[dual] / np.linalg.norm(weights[dual])
        for r, w in weights.items():
            unit = w / np.linalg.norm(w)
            angle = 2 * np.arctan2(np.linalg.norm(unit - reference), np.linalg.norm(unit + reference))
            share = float((z @ w).min()) / norm(w, dual) / float(some["eps_absolute"].iloc[0] / eps if eps else np.nan)
            rows.append({"p": p, "eps": eps, "seed": seed, "r": r, "angle": np.degrees(angle), "margin": share})
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The angle against the distance of eps from eps*, for the first threat, mean and range over draws."""
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
    """The margins approach eps* and the directions one another."""
    found = []
    for p, some in table.groupby("p"):
        last = some[some["eps"] == some["eps"].max()]
        angles = some.groupby("eps")["angle"].max()
        share = float(last["eps"].iloc[0])
        margins = last["margin"]
        name = f"l_{p:g} threat, eps = {share:g} eps*: every r has an l_{p:g} margin of at least eps"
        found.append(every(name, "Lemma C.4", margins, share * (1 - 1e-9), "margin / eps*: "))
        text = "largest angle " + ", ".join(f"{a:.3g}° at {e:g} eps*" for e, a in angles.items())
        meets = bool(angles.iloc[-1] < 5 and angles.iloc[-1] < 0.2 * angles.iloc[0])
        claim = f"l_{p:g} threat: the separators of all geometries meet in one direction"
        found.append(stated(claim, "Sec. 4.1, Lemma C.4", text + " (asked: below 5° and a fifth of the first)", meets))
    return found
