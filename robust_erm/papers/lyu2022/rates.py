"""How fast gradient descent turns to the l_2 separator u: with clean points, and with an l_2 threat of radius eps.

Known for linear models and constant steps. Clean training: ``1 - gamma(w)/gamma* = O(1/log T)`` (Soudry et al. 2018).
Li, Fang, Xu & Zhao 2020: for a fixed number of steps T and a proper eps, that depends on T, the direction is within
``O~(1/sqrt(T))``. Charles et al. 2019: the robust loss falls like ``ln(T)^2 / T``, and a margin near eps takes
polynomially many steps, clean training exponentially many.

What is bounded is ``gap = 1 - gamma(w)/gamma*``, gamma(w) the clean l_2 margin of w. It is no less than 1 - cos(w, u),
as ``cos(w, u) >= gamma(w)/gamma*``. A w that stands the threat has gamma(w) >= eps, so that gap <= 1 - eps/gamma*: with
``eps = (1 - c/sqrt(T)) gamma*`` this is ``c/sqrt(T)``. At an eps that stays the same there is no such argument: in the
limit w = u ln(T) / (gamma* - eps) + O(1), and the gap is of order 1/ln T again (ours).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.core.statistics import interval, slope
from robust_erm.data.dataset import Array
from robust_erm.papers.claims import Claim, above, between, by_draw, every, stated
from robust_erm.papers.lyu2022.separators import apart, of_draws, path
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.reports.tables import read_curves

FIXED = "fixed"  # the sweep whose eps does not depend on the number of steps
TUNED = 20.0  # c of eps = (1 - c / sqrt(T)) gamma*, in the other sweeps
DECADES = 2.0  # of steps: the last ones of a run are fitted, where it stands the threat throughout
NEAR = 0.9  # of gamma*: the margin whose first step is compared


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement after step 0: ``tuned``, eps (in gamma*), seed, step, ``last`` (of its run), ``log_loss``,
    ``margin`` under the threat over ``||w||_2``, ``gap`` and ``away`` = 1 - cos(w, u), see above.
    """
    runs = runs.drop_duplicates("folder").reset_index(drop=True)
    known = of_draws(runs)
    rows = []
    for folder, curve in read_curves(runs).groupby("folder", sort=False):
        one, by_step = curve.iloc[0], curve.set_index("step")
        goal = known[float(one["p"]), float(one["eps"]), int(one["seed"])]
        best = goal.value + float(one["eps_absolute"])  # the robust margin of u is gamma* - eps
        for step, w in zip(*path(str(folder)), strict=True):
            if step == 0:
                continue
            at = by_step.loc[step]
            row = {"tuned": one["sweep"] != FIXED, "eps": one["eps"], "seed": one["seed"], "step": step}
            row |= {"last": step == by_step.index.max(), "log_loss": at["log_loss"]}
            row |= {"margin": at["w_margin_under_train_l2"], "gap": 1 - at["w_margin_under_clean_l2"] / best}
            rows.append(row | {"away": float(apart(w, goal.plain))})
    return pd.DataFrame(rows).sort_values(["tuned", "eps", "seed", "step"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Against steps T of gradient descent on a linear model: the missing part of the l_2 margin, 1 - cos to the l_2
    separator, and the worst-case loss of training (the threat is exact). Lines are runs of one eps, a line a draw.
    Black marks are the last steps of runs with eps = (1 - 20 / sqrt(T)) gamma*. Dotted: 20 / sqrt(T), and 1 / T on the
    right.
    """
    radii = sorted(table.loc[~table["tuned"], "eps"].unique())
    columns = {"gap": r"$1 - \gamma(w)/\gamma^*$", "away": "1 - cos", "loss": "worst-case loss"}
    shown = table.assign(loss=np.exp(table["log_loss"]))
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.7), layout="constrained")
        for ax, (column, name) in zip(axes, columns.items(), strict=True):
            for (eps, _), some in shown[~shown["tuned"]].groupby(["eps", "seed"]):
                ax.plot(some["step"], some[column], "-", color=COLOURS[radii.index(eps)], lw=0.7)
            if column != "loss":
                ends = shown[shown["tuned"] & shown["last"]]
                ax.plot(ends["step"], ends[column], "o", color="k", ms=2.5, mfc="none", mew=0.6)
            over = np.array([shown["step"].max() / 300, shown["step"].max()], dtype=float)
            ax.plot(over, TUNED / np.sqrt(over) if column != "loss" else 1 / over, ":", color="0.4", lw=1)
            ax.set(xscale="log", yscale="log", xlabel="steps T", ylabel=name, xlim=(9, None))
        handles = [
            Line2D([], [], color=COLOURS[k], label=rf"$\epsilon = {e:g}\,\gamma^*$") for k, e in enumerate(radii)
        ]
        handles += [Line2D([], [], color="k", ls="", marker="o", ms=2.5, mfc="none", label=r"$\epsilon$ chosen for T")]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def _law(x: Array, y: Array) -> tuple[float, float]:
    """Slope of y on x, and the root mean square of what the line leaves."""
    b = slope(x, y)[0]
    return b, float(np.std(y - b * x))


def fits(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each eps and draw of :data:`FIXED`, over the last :data:`DECADES` of steps.

    ``decades``: how many lie after ``first``, the measurement from which on the run stands the threat; fits are nan
    where they are fewer. ``power``, ``power_rest``: slope and rms residual of log gap on log T, a power law; ``log``,
    ``log_rest``: on log log T, a power of log T; ``final``: slope on log T over the last decade alone; ``robust_loss``:
    slope of log(L / ln(T)^2) on log T.
    """
    rows = []
    for (eps, seed), some in table[~table["tuned"]].sort_values("step").groupby(["eps", "seed"]):
        never = some.loc[~(some["margin"] > 0), "step"].max()
        first, end = some.loc[~(some["step"] <= never), "step"].min(), some["step"].max()
        decades = math.log10(end / first) if first > 0 else 0.0
        row = {"eps": eps, "seed": seed, "first": first, "decades": decades}
        if decades >= DECADES:
            after = some[some["step"] >= 0.99 * end / 10**DECADES]
            t, gap = np.log(after["step"].to_numpy(dtype=float)), np.log(after["gap"].to_numpy())
            row["power"], row["power_rest"] = _law(t, gap)
            row["log"], row["log_rest"] = _law(np.log(t), gap)
            decade = after["step"].to_numpy() >= end / 10
            row["final"] = slope(t[decade], gap[decade])[0]
            row["robust_loss"] = slope(t, after["log_loss"].to_numpy() - 2 * np.log(t))[0]
        rows.append(row)
    columns = ["eps", "seed", "first", "decades", "power", "power_rest", "log", "log_rest", "final", "robust_loss"]
    return pd.DataFrame(rows, columns=columns)


def _first(table: pd.DataFrame, eps: float) -> pd.Series:
    """Step from which the clean margin is :data:`NEAR` gamma* or more, by draw; nan: not within the run."""
    some = table[~table["tuned"] & (table["eps"] == eps)]
    there = some["step"].where(some["gap"] <= 1 - NEAR)
    return there.groupby(some["seed"]).min()


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Slopes are one for each draw, with the t-interval over the draws: points of one curve are not independent."""
    ends, fitted = table[table["tuned"] & table["last"]], fits(table)
    found = [
        every("With eps = (1 - 20 / sqrt(T)) gamma*, T steps suffice to stand the threat: gap below 20 / sqrt(T)",
              "Li et al. 2020; Charles et al. 2019", 1 - ends["eps"] - ends["gap"], 0.0, "20 / sqrt(T) less gap: ")
    ]  # fmt: skip
    ends = ends.assign(chord=np.sqrt(2 * ends["away"]))
    for column, name in (("gap", "gap"), ("away", "1 - cos"), ("chord", "||w/||w|| - u||")):
        slopes = [
            slope(np.log(some["step"].astype(float)), np.log(some[column]))[0] if _wide(some["step"]) else math.nan
            for _, some in ends.groupby("seed")
        ]
        text = f"slope of log({name}) on log T, T = {ends['step'].min():,} to {ends['step'].max():,}: "
        claim = f"{name} at step T falls like 1 / sqrt(T) or faster, without logarithms, eps chosen for T"
        found.append(between(claim, "Li et al. 2020", interval(slopes), -math.inf, -0.5, text, len(ends)))
    for eps in sorted(fitted["eps"].unique()):
        some = fitted[fitted["eps"] == eps]
        name = "Clean training" if eps == 0 else f"Adversarial training at {eps:g} gamma* for all T"
        where = "Soudry et al. 2018" if eps == 0 else "ours"
        if some["decades"].min() < DECADES:
            text = f"{some['decades'].min():.1f} to {some['decades'].max():.1f} decades of steps stand the threat"
            text += f" (asked: {DECADES:g})"
            found.append(stated(f"{name}: the run is long enough to tell laws apart", where, text, None))
            continue
        n, better = len(some), some["power_rest"] - some["log_rest"]
        text = f"rms residual of log(gap), power of T ({some['power_rest'].mean():.3f}) less power of log T: "
        found += [
            above(f"{name}: a power of log T fits the gap better than a power of T", where, better, 0.0, text, False),
            between(f"{name}: the gap falls like 1 / log T or faster", where, interval(some["log"]), -math.inf, -1.0,
                    "slope of log(gap) on log log T: ", n),
            between(f"{name}: over the last decade it falls more slowly than 1 / sqrt(T)", where,
                    interval(some["final"]), -0.5, math.inf, "slope of log(gap) on log T there: ", n),
        ]  # fmt: skip
        if eps > 0:
            text = "slope of log(L / ln(T)^2) on log T: "
            claim = f"{name}: the robust loss falls like ln(T)^2 / T or faster"
            found.append(between(claim, "Charles et al. 2019", interval(some["robust_loss"]), -math.inf, -1.0, text, n))
    return [*found, *_sooner(table)]


def _wide(steps: pd.Series) -> bool:
    return math.log10(steps.max() / steps.min()) >= DECADES


def _sooner(table: pd.DataFrame) -> list[Claim]:
    """Adversarial against clean training of the same draw."""
    last = table[~table["tuned"] & table["last"]].set_index(["eps", "seed"])["away"]
    found = []
    for eps in sorted(last.index.get_level_values("eps").unique())[1:]:
        text = f"log10 of 1 - cos of clean training ({last[0.0].mean():.2g}) over its own ({last[eps].mean():.2g}): "
        claim = f"At {eps:g} gamma*, adversarial training is nearer to u than clean training after as many steps"
        found.append(above(claim, "Remark to Thm 2; ours", np.log10(last[0.0] / last[eps]), 0.0, text, percent=False))
    plain = table[~table["tuned"] & (table["eps"] == 0)].set_index(["seed", "step"])["gap"]
    tuned = table[table["tuned"] & table["last"]].set_index(["seed", "step"])["gap"]
    sooner = (plain / tuned).dropna().map(math.log10)
    text = "log10 of clean training's gap over its own, mean over T: "
    claim = "With eps chosen for T, the gap after T steps is smaller than that of clean training"
    found.append(above(claim, "Li et al. 2020", by_draw(sooner), 0.0, text, percent=False))
    clean, own = _first(table, 0.0), _first(table, NEAR)
    longest = table.loc[~table["tuned"], "step"].max()
    never = int(clean.isna().sum())
    text = f"log10 of steps of clean training ({never} of {len(clean)} runs not within {longest:,}) over its own: "
    claim = f"Adversarial training at {NEAR:g} gamma* reaches a clean margin of {NEAR:g} gamma* in fewer steps"
    return [
        *found,
        above(claim, "Charles et al. 2019", np.log10(clean.fillna(longest) / own), 0.0, text, percent=False),
    ]
