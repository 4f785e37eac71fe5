"""The step size of App. F.2 for nets: how long GD takes with it, and what else changes the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.claims import Claim, stated, within
from robust_erm.figures.style import COLOURS, COLUMN, DASHES, style
from robust_erm.results import read_curves

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


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Robust train accuracy against steps times eta (on the sum): curves of one trajectory lie on each other."""
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True))
    curves = curves.merge(table[["folder", "on_sum", "init_scale", "reduction"]], on="folder")
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        first = curves[curves["init_scale"] == curves["init_scale"].min()]
        for k, ((reduction, eta), some) in enumerate(first.groupby(["reduction", "on_sum"])):
            seeds = some.pivot_table(index="step", columns="folder", values="train_robust_acc").ffill()
            at = seeds.index.to_series().clip(lower=0.5) * eta
            label = f"{'mean, ' if reduction == 'mean' else ''}step {eta:.2g} on the sum"
            ax.plot(at, seeds.mean(axis=1), DASHES[k % 4], color=COLOURS[k % len(COLOURS)], lw=1.2, label=label)
        ax.set(xscale="log", xlabel=r"steps times $\eta$ (on the sum)", ylabel="robust train accuracy")
        ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """How long it takes, whether steps times eta is all that counts, and what the rest moves."""
    ours = table[table["init_scale"] == table["init_scale"].min()]
    sums = ours[ours["reduction"] == "sum"]
    time = (sums["fits_at"] * sums["eta"]).dropna()
    slowest = float(time.max()) if len(time) else float("nan")
    text = ", ".join(_when(float(eta), some) for eta, some in sums.groupby("eta"))
    reached = None if not len(time) else bool(slowest / PRINTED <= 50_000)
    text += f"; in proportion, the printed 1e-5 on the sum takes {slowest / PRINTED:,.0f}" if len(time) else ""
    claim = "GD with the printed step reaches 100 % robust train accuracy in 50,000 steps"
    found = [stated(claim, "App. F.2", text, reached)]
    by_eta = (sums["fits_at"] * sums["eta"]).groupby([sums["seed"], sums["eta"]]).mean()
    spread = by_eta.groupby(level="seed").agg(lambda v: v.max() / v.min() if v.notna().sum() > 1 else np.nan).dropna()
    text = f"steps times eta to 100 %: largest over least {', '.join(f'{v:.2f}' for v in spread)} (asked: at most 1.3)"
    alike = bool((spread <= 1.3).all()) if len(spread) else None
    found.append(stated("steps times eta is what counts: training follows gradient flow", "ours", text, alike))
    means = ours[ours["reduction"] == "mean"]
    text = (
        f"mean with eta = {means['eta'].max():g}: robust train accuracy {100 * means['train_robust_acc'].mean():.1f} %"
    )
    slow = None if not len(means) or not len(time) else bool((means["on_sum"] * means["steps"] < slowest).all())
    text += " after as many steps; it is a sum with a step m times smaller"
    found.append(
        stated("with a mean instead of a sum it takes m times as long, and does not get there", "ours", text, slow)
    )
    base = _final(sums[sums["eta"] == sums["eta"].max()])
    less = _final(sums[(sums["eta"] < sums["eta"].max()) & (sums["train_robust_acc"] == 1)])
    text = "robust test accuracy, smaller steps - largest: "
    found.append(
        within("where it fits, the step size does not change the answer", "ours", (less - base).dropna(), 0.02, text)
    )
    for size, some in table[table["init_scale"] > table["init_scale"].min()].groupby("init_scale"):
        change = (_final(some) - base).dropna()
        text = f"robust test accuracy at init_scale = {size:g} less that at {table['init_scale'].min():g}: "
        found.append(
            within(f"initialisation {size:g} times PyTorch's does not change the answer", "ours", change, 0.02, text)
        )
    return found


def _when(eta: float, some: pd.DataFrame) -> str:
    """After how many steps all these runs fit."""
    fits = some["fits_at"]
    when = f"after {fits.max():,.0f} steps" if fits.notna().all() else f"not in {some['steps'].max():,.0f}"
    return f"eta = {eta:g}: {when}"


def _final(some: pd.DataFrame) -> pd.Series:
    return some.groupby("seed")["test_robust_acc"].mean()
