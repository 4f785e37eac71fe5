"""Which choices move the gap between SD and GD on nets: images, step of SD, length of training, box of the attack."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from robust_erm.core.statistics import bracketed, interval
from robust_erm.papers.claims import Claim, above, spread, stated, within
from robust_erm.reports.style import COLOURS
from robust_erm.reports.tables import read_curves

PRINTED = 0.0411  # Sec. 5.2: SD - GD at eps = 0.2
LAST, TIME, LOSS = "last step", "equal time", "equal loss"
RIGHT, PUBLISHED = "right box", "published box"
DIVERGED = "diverged"
ENDS = 12  # points: of the picture's axis
CHOICE = ["box", "sample", "eta", "when"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a choice and seed: ``edge``, robust test accuracy of SD less that of GD under the attack of training.

    A choice is ``box``, ``sample`` (of the images), ``eta`` (SD's step; GD's is fixed) and ``when`` they are compared:
    after as many steps as the published script takes (a third of ours), at the last step, where both have gone as far
    (steps times eta), where both have come to the loss at which the slower one ends. Beside it ``gd`` and ``sd``, the
    accuracies; ``gd_step`` and ``sd_step``; ``fit``, whether both are robust on all training points there. A pair of
    which one has diverged has one row, at the last step, without accuracies: they end at different steps. At the last
    step ``own_less_right``, the least that a net's accuracy falls by in the right box, and ``strong``, the gap that the
    strong attacks leave.
    """
    runs = runs.drop_duplicates("folder").reset_index(drop=True)
    strong = "strong.test_attacked"
    attacked = runs.set_index("folder")[strong] if strong in runs else pd.Series(dtype=float)
    curves = read_curves(runs)
    curves["box"] = np.where(curves["attack"] == "pgdpublished", PUBLISHED, RIGHT)
    for part in ("train", "test"):  # alone: with another attack beside it the accuracy is that of the worse of them
        alone = curves.get(f"{part}_robust_acc_train", pd.Series(math.nan, curves.index))
        curves[f"{part}_own"] = alone.fillna(curves[f"{part}_robust_acc"])
    curves["right"] = curves.get("test_robust_acc_right", pd.Series(math.nan, curves.index))
    curves["eta"] = curves["optimizer.schedule.lr"]
    rows = []
    for (box, sample, seed), some in curves.groupby(["box", "data.sample", "seed"]):
        gd = some[some["optimizer"] == "gd"].sort_values("step")
        for eta, own in some[some["optimizer"] == "sd"].groupby("eta"):
            sd = own.sort_values("step")
            for when, at_gd, at_sd in _ends(gd, sd):
                row = {"box": box, "sample": sample, "eta": eta, "when": when, "seed": seed}
                row |= {"gd_step": at_gd["step"], "sd_step": at_sd["step"]}
                if DIVERGED in (at_gd["status"], at_sd["status"]):
                    rows.append({**row, "fit": False})
                    continue
                row |= {"gd": at_gd["test_own"], "sd": at_sd["test_own"], "edge": at_sd["test_own"] - at_gd["test_own"]}
                row["fit"] = min(at_gd["train_own"], at_sd["train_own"]) == 1
                if when == LAST:
                    row["own_less_right"] = min(at["test_own"] - at["right"] for at in (at_gd, at_sd))
                    row["strong"] = attacked.get(at_sd["folder"], math.nan) - attacked.get(at_gd["folder"], math.nan)
                rows.append(row)
    return pd.DataFrame(rows).reindex(
        columns=[*CHOICE, "seed", "gd", "sd", "edge", "gd_step", "sd_step", "fit", "own_less_right", "strong"]
    )


def _ends(gd: pd.DataFrame, sd: pd.DataFrame) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """Where two curves, ordered by step, are compared: when, and the measurement of each."""
    if DIVERGED in (gd["status"].iloc[-1], sd["status"].iloc[-1]):
        yield LAST, gd.iloc[-1], sd.iloc[-1]
        return
    steps = int(min(gd["step"].max(), sd["step"].max()))
    if gd["eta"].iloc[0] == sd["eta"].iloc[0]:
        yield f"{steps // 3:,} steps", _at(gd, steps // 3), _at(sd, steps // 3)
    else:
        time = min(curve["step"].max() * curve["eta"].iloc[0] for curve in (gd, sd))
        yield TIME, _at(gd, time / gd["eta"].iloc[0]), _at(sd, time / sd["eta"].iloc[0])
    yield LAST, gd.iloc[-1], sd.iloc[-1]
    losses = [float(curve["log_loss"].iloc[-1]) for curve in (gd, sd)]
    if np.isfinite(losses).all():
        loss = max(losses)
        yield LOSS, gd[gd["log_loss"] <= loss].iloc[0], sd[sd["log_loss"] <= loss].iloc[0]


def _at(curve: pd.DataFrame, step: float) -> pd.Series:
    """The last measurement by ``step``; half a step is rounding."""
    return curve[curve["step"] <= step + 0.5].iloc[-1]


def draw(ax: Axes, table: pd.DataFrame) -> None:
    """A row for each choice: mean and interval of the edge; open, of what the strong attacks leave.

    Grey where nets are not robust on all training points: far from it, what is compared is who is faster, and the gap
    may lie beyond the ends of the axis.
    """
    names = []
    for k, (label, some) in enumerate(_choices(table)):
        colour = COLOURS[0] if some["box"].iloc[0] == RIGHT else COLOURS[1]
        colour = colour if _fit(some) else "0.6"
        for column, shift, face in (("edge", 0.0, colour), ("strong", 0.3, "white")):
            mean, half = interval(100 * some[column])
            if math.isfinite(mean):
                bar = half if math.isfinite(half) else 0.0
                (points, _, _) = ax.errorbar(
                    mean, k + shift, xerr=bar, fmt="o", color=colour, ms=3.5, lw=0.9, capsize=1.5
                )
                points.set_markerfacecolor(face)
        names.append(label)
    ax.axvline(0, color="0.7", lw=0.6, zorder=0)
    ax.axvline(100 * PRINTED, color="0.3", lw=0.8, ls="--", zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=6)
    ax.set(xlim=(-ENDS, ENDS), ylim=(len(names) - 0.5, -0.5), xlabel="SD less GD, points")


def _choices(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each choice, with its name; the right box first."""
    found = []
    for (box, sample, eta, when), some in table.groupby(CHOICE, sort=False):
        found.append((f"{box}, {sample} images, SD's step {eta:g}, {when}", some))
    return sorted(found, key=lambda choice: choice[1]["box"].iloc[0] != RIGHT)


def claims(table: pd.DataFrame) -> list[Claim]:
    """The gap for each choice; under the strong attacks; what each choice moves; what the published box leaves."""
    found, where = [], "ours; Sec. 5.2"
    for label, every in _choices(table):
        claim = f"SD beats GD: {label}"
        some = every.dropna(subset="edge")
        if len(some) < len(every):
            lost = f"{len(every) - len(some)} of {len(every)} pairs have a run that diverged: not compared"
            found.append(stated(claim, where, lost, None))
            continue
        gd, sd = (f"{some[f'{name}_step'].min():,.0f}" for name in ("gd", "sd"))
        each = [f"{name.upper()} {100 * some[name].mean():.1f} %" for name in ("sd", "gd")]
        text = f"under the attack of training, {each[0]} after {sd} steps or more, {each[1]} after {gd}: "
        asked = [(claim, where, some["edge"], text)]
        if some["strong"].notna().all() and some["box"].iloc[0] == RIGHT:
            asked.append((f"SD beats GD under the strong attacks too: {label}", "ours", some["strong"], ""))
        unfit = int((~some["fit"].astype(bool)).sum())
        short = f"; {unfit} pairs have not reached 100 % robust train accuracy"
        for name, says, gaps, before in asked:
            left = stated(name, says, f"{before}{spread(gaps)}{short}", None)
            found.append(left if unfit else above(name, says, gaps, 0.0, before))
    return [*found, *_moves(table), *_published(table), *_printed(table)]


def _moves(table: pd.DataFrame) -> list[Claim]:
    """Pairs of choices that differ in one thing: the gap of one less that of the other, seed by seed.

    Judged where all nets have reached 100 % robust train accuracy: the others are on their way.
    """
    known = table.dropna(subset="edge").groupby(CHOICE)
    edges = {choice: some.set_index("seed")["edge"] for choice, some in known}
    fit = {choice: _fit(some) for choice, some in known}
    right = table[table["box"] == RIGHT]
    etas = sorted(right["eta"].unique())
    if not etas:
        return []
    same, short = etas[-1], etas[0]
    early = [when for when in table["when"].unique() if when not in (LAST, TIME, LOSS)]
    pairs = {
        "the first images instead of random ones": ((RIGHT, "first", same, LAST), (RIGHT, "random", same, LAST)),
        f"SD's step of {same:g} instead of {short:g}": ((RIGHT, "random", same, LAST), (RIGHT, "random", short, LAST)),
        "equal time instead of equal steps": ((RIGHT, "random", short, TIME), (RIGHT, "random", short, LAST)),
        "equal loss instead of equal steps": ((RIGHT, "random", same, LOSS), (RIGHT, "random", same, LAST)),
        "the published box": (
            (PUBLISHED, "random", same, LAST),
            (RIGHT, "random", same, LAST),
        ),
    } | {
        f"{when} instead of three times as many": ((RIGHT, "random", same, when), (RIGHT, "random", same, LAST))
        for when in early
    }
    found = []
    for name, (one, other) in pairs.items():
        if one != other and {one, other} <= set(edges):
            moved = (edges[one] - edges[other]).dropna()
            claim, text = f"{name} does not move the gap", "gap with it less gap without: "
            if fit[one] and fit[other]:
                found.append(within(claim, "ours", moved, 0.01, text))
            else:
                short = "; not all of these nets have reached 100 % robust train accuracy"
                found.append(stated(claim, "ours", f"{text}{spread(moved)}{short}", None))
    return found


def _fit(some: pd.DataFrame) -> bool:
    """Whether all nets of some pairs are robust on all training points."""
    return bool(some["fit"].astype(bool).all())


def _published(table: pd.DataFrame) -> list[Claim]:
    known = table[(table["box"] == PUBLISHED) & (table["when"] == LAST)].dropna(subset=["own_less_right"])
    found = []
    for sample, some in known.groupby("sample"):
        claim = f"nets trained in the published box are less robust than its own attack says: {sample} images"
        text = "accuracy after its own attack less that in the right box, the lesser of GD's and SD's: "
        found.append(above(claim, "ours", some["own_less_right"], 0.1, text))
    return found


def _printed(table: pd.DataFrame) -> list[Claim]:
    """Whether any choice gives the number of the paper, of those whose nets have all fit the training points."""
    known = [(label, some.dropna(subset="edge")) for label, some in _choices(table)]
    rows = [(label, *interval(some["edge"])) for label, some in known if _fit(some)]
    rows = [row for row in rows if math.isfinite(row[2])]
    if not rows:
        return []
    holding = [(label, mean, half) for label, mean, half in rows if abs(mean - PRINTED) <= half]
    label, mean, half = min(rows, key=lambda row: abs(row[1] - PRINTED))
    near = bracketed(100 * mean, 100 * half, ".1f", " points")
    text = f"nearest: {near} ({label}); {len(holding)} of {len(rows)} intervals hold 4.11"
    narrow = any(mean > half and half <= PRINTED / 2 for _, mean, half in holding)  # wide ones hold many numbers
    holds = True if narrow else None if holding else False
    return [stated("one of these choices gives the 4.11 points of the paper", "Sec. 5.2", text, holds)]
