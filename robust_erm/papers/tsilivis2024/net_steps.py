"""The step size of App. F.2 for nets: how long GD takes with it, and what else changes the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from robust_erm.papers.claims import Claim, stated, within
from robust_erm.reports.style import COLOURS, DASHES
from robust_erm.reports.tables import read_curves

PRINTED = 1e-5


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run of GD: ``eta``, its equivalent on the sum (a mean over m divides it by m), initialisation, seed,
    ``fits_at``, the first measured step with 100 % robust train accuracy (nan: none), and its last accuracies.
    """
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True))
    rows = []
    for folder, curve in curves.sort_values("step").groupby("folder"):
        first, last = curve.iloc[0], curve.iloc[-1]
        fits = curve.loc[curve["train_robust_acc"] == 1, "step"]
        mean = first["objective.reduction"] == "mean"
        eta = float(first["optimizer.schedule.lr"])
        row = {"reduction": first["objective.reduction"], "eta": eta, "init_scale": first["model.init_scale"]}
        row |= {"on_sum": eta / first["data.m"] if mean else eta, "seed": first["seed"], "steps": last["step"]}
        row |= {"fits_at": fits.iloc[0] if len(fits) else np.nan, "train_robust_acc": last["train_robust_acc"]}
        rows.append({**row, "test_robust_acc": last["test_robust_acc"], "folder": folder})
    return pd.DataFrame(rows).sort_values(["init_scale", "reduction", "eta", "seed"]).reset_index(drop=True)


def draw(ax: Axes, table: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Robust train accuracy against steps times eta, means over the draws."""
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True))
    curves = curves.merge(table[["folder", "on_sum", "init_scale", "reduction"]], on="folder")
    first = curves[curves["init_scale"] == curves["init_scale"].min()]
    for k, ((reduction, eta), some) in enumerate(first.groupby(["reduction", "on_sum"])):
        seeds = some.pivot_table(index="step", columns="folder", values="train_robust_acc").ffill()
        at = seeds.index.to_series().clip(lower=0.5) * eta
        label = f"{'mean, ' if reduction == 'mean' else ''}step {eta:.2g} on the sum"
        ax.plot(at, seeds.mean(axis=1), DASHES[k % 4], color=COLOURS[k % len(COLOURS)], lw=1.2, label=label)
    ax.set(xscale="log", xlabel=r"GD: steps times $\eta$ (on the sum)", ylabel="robust train accuracy")
    ax.legend(frameon=False, fontsize=6, loc="upper left")


def claims(table: pd.DataFrame) -> list[Claim]:
    """How long it takes, whether steps times eta is all that counts, and what the rest moves."""
    least = table["init_scale"].min()
    ours = table[table["init_scale"] == least]
    sums, means = (ours[ours["reduction"] == reduction] for reduction in ("sum", "mean"))
    time = sums["fits_at"] * sums["eta"]
    slowest = float(time.max())  # nan where none fits
    failing = int((time.isna() & (sums["steps"] * sums["eta"] >= slowest)).sum())
    known = time.notna().any() and not failing

    text = ", ".join(_when(float(eta), some) for eta, some in sums.groupby("eta"))
    text += f"; in proportion, the printed 1e-5 on the sum takes {slowest / PRINTED:,.0f}"
    text += f"; {failing} runs had as much time and do not fit" if failing else ""
    claim = "GD with the printed step, 1e-5, reaches 100 % robust train accuracy in 50,000 steps (in proportion)"
    reached = bool(slowest / PRINTED <= 50_000) if known else None
    found = [stated(claim, "ours; App. F.2 names no number of steps", text, reached)]

    by_seed = time.groupby(sums["seed"])
    spread = (by_seed.max() / by_seed.min())[by_seed.count() > 1]
    text = f"steps times eta to 100 %: largest over least {', '.join(f'{v:.2f}' for v in spread)} (asked: at most 1.3)"
    alike = bool((spread <= 1.3).all()) if known and len(spread) == len(set(sums["seed"])) else None
    found.append(stated("steps times eta is what counts: training follows gradient flow", "ours", text, alike))

    share, eta = 100 * means["train_robust_acc"].mean(), means["eta"].max()
    text = f"eta = {eta:g}: robust train accuracy {share:.1f} % after as many steps; it is a sum with a step / m"
    claim = "with a mean instead of a sum, and the step as it is, GD does not get there"
    found.append(stated(claim, "ours", text, bool(means["fits_at"].isna().all()) if known and len(means) else None))

    fits = sums.groupby("eta")["train_robust_acc"].min() == 1
    largest = float(fits[fits].index.max()) if fits.any() else float("nan")
    base, less = _final(sums[sums["eta"] == largest]), _final(sums[sums["eta"] < largest])
    text = "robust test accuracy, smaller steps - the largest with which all fit: "
    claim = "where it fits, the step size does not change the answer"
    found.append(within(claim, "ours", (less - base).dropna(), 0.02, text))
    for size, some in table[table["init_scale"] > least].groupby("init_scale"):
        text = f"robust test accuracy at init_scale = {size:g} less that at {least:g}: "
        claim = f"initialisation {size:g} times PyTorch's does not change the answer"
        found.append(within(claim, "ours", (_final(some) - base).dropna(), 0.02, text))
    return found


def _when(eta: float, some: pd.DataFrame) -> str:
    """After how many steps all these runs fit."""
    fits = some["fits_at"]
    when = f"after {fits.max():,.0f} steps" if fits.notna().all() else f"not in {some['steps'].max():,.0f}"
    return f"eta = {eta:g}: {when}"


def _final(some: pd.DataFrame) -> pd.Series:
    """Robust test accuracy by seed, of the runs that fit."""
    return some[some["train_robust_acc"] == 1].groupby("seed")["test_robust_acc"].mean()
