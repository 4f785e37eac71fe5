"""Theorem 4.3: the robust margin per ||w||_r of steepest descent in l_r, against the greatest there is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.core.margins import name_of
from robust_erm.papers.claims import Claim, every
from robust_erm.reports.style import COLOURS, DASHES, PAGE, over_steps, style
from robust_erm.reports.tables import read_curves

NORM = "optimizer.r"
KEYS = ["p", NORM, "eps", "seed"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: p, r, eps, seed, initialisation, step, and ``ratio`` to the oracle's robust margin."""
    limits = runs[runs["optimizer"].str.startswith("oracle")]
    best = {key: row[f"w_margin_robust_{name_of(key[1])}"] for key, row in _by_keys(limits)}
    curves = read_curves(runs[~runs["optimizer"].str.startswith("oracle")].reset_index(drop=True))
    kept = curves[[*KEYS, "model.init_scale", "step", "log_loss", "folder"]].copy()
    own = [f"w_margin_robust_{name_of(r)}" for r in curves[NORM]]
    reached = np.array([row[name] for name, (_, row) in zip(own, curves.iterrows(), strict=True)])
    kept["oracle"] = [best.get(key, np.nan) for key in curves[KEYS].itertuples(index=False, name=None)]
    kept["ratio"] = reached / kept["oracle"]
    return kept.sort_values([*KEYS, "model.init_scale", "step"]).reset_index(drop=True)


def _by_keys(runs: pd.DataFrame) -> list[tuple[tuple[float, ...], pd.Series]]:
    return [(tuple(row[key] for key in KEYS), row) for _, row in runs.iterrows()]


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """What is missing to the greatest robust margin per ||w||_r, in parts of it, against steps, a panel for each threat
    and a line for each run; colours are the geometries of descent, dashes the starts. Grey: 1 %.
    """
    threats = sorted(table["p"].unique(), reverse=True)
    norms = sorted(table[NORM].unique())
    starts = sorted(table["model.init_scale"].unique())
    with style():
        fig, axes = plt.subplots(1, len(threats), figsize=(PAGE, 2.7), layout="constrained", squeeze=False, sharey=True)
        for ax, p in zip(axes[0], threats, strict=True):
            for _, run in table[(table["p"] == p) & (table["ratio"] > 0)].groupby("folder"):
                colour = COLOURS[norms.index(run[NORM].iloc[0])]
                dash = DASHES[starts.index(run["model.init_scale"].iloc[0])]
                ax.plot(run["step"].clip(lower=0.5), (1 - run["ratio"]).clip(lower=1e-6), dash, color=colour, lw=0.9)
            ax.axhline(0.01, color="0.6", lw=0.6)
            over_steps(ax)
            ax.set(yscale="log", xlabel="step", title=rf"threat $\ell_{{{_name(p)}}}$", ylim=(None, 1.2))
        axes[0, 0].set_ylabel(r"1 - robust margin per $\|w\|_r$ / greatest")
        handles = [
            Line2D([], [], color=COLOURS[k], label=rf"r = {_name(r)}".replace(r"\infty", "∞"))
            for k, r in enumerate(norms)
        ]
        handles += [
            Line2D([], [], color="0.3", ls=DASHES[k], label=f"from {'0' if s == 0 else f'N(0, {s:g}²)'}")
            for k, s in enumerate(starts)
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def _name(p: float) -> str:
    return r"\infty" if np.isinf(p) else f"{p:g}"


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """One for each geometry and threat; a run that is below 99 % and has stopped rising refutes it."""
    last = table.sort_values("step").groupby("folder").tail(1).set_index("folder")
    early = table[table["step"] <= table["step"].max() / 10].sort_values("step").groupby("folder").tail(1)
    last["stalled"] = (last["ratio"] < 0.99) & (last["ratio"] - early.set_index("folder")["ratio"] < 1e-3)
    found = []
    for (p, r), some in last.groupby(["p", NORM]):
        name = f"l_{p:g} threat, l_{r:g} steepest descent reaches the greatest robust margin per ||w||_{r:g}"
        text = f"after {int(some['step'].max()):,} steps, ratio: "
        limit = not bool(some["stalled"].any())
        found.append(every(name, "Thm 4.3, eq. (11)", some["ratio"], 0.99, text, limit=limit))
    text = "1 - ratio, every measurement: "
    return [*found, every("no run exceeds the oracle's margin", "ours", 1 - table["ratio"].dropna(), -1e-6, text)]
