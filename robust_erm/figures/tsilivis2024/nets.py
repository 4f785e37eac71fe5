"""Figs 3 left and 7: GD and SD on one-hidden-layer ReLU nets; beside them other steepest descents, and Adam."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_erm.attacks.attack import Victim
from robust_erm.attacks.pgd import PGD
from robust_erm.claims import Claim, above, every, spread, stated, within
from robust_erm.figures import strong
from robust_erm.figures.style import COLOURS, PAGE, style
from robust_erm.oracles.kkt import kkt
from robust_erm.params import Params
from robust_erm.problem import draw
from robust_erm.reproduced import parameters, run_of
from robust_erm.results import read_curves
from robust_erm.streams import torch_stream

UNIT = "GD, unit steps"  # steps of constant length: GD's path, faster where the loss is small
LONG = "SD, longer"  # SD's path, further on
ALGORITHMS = {  # by the label of the sweep: name, and the norm of its geometry
    "gd": ("GD", "l2"),
    "sd": ("SD", "linf"),
    "gd_unit": (UNIT, "l2"),
    "sd_long": (LONG, "linf"),
    "cd": ("CD", "l1"),
    "l1_5": (r"$\ell_{1.5}$", "l1_5"),
    "l3": (r"$\ell_3$", "l3"),
    "spectral": ("spectral", "spectral"),
    "adam": ("Adam", "linf"),
}
UNFIT = "not all runs have reached 100 % robust train accuracy: it is what comes after that counts"
PAPER = ("GD", "SD", UNIT, LONG)  # what Sec. 5.2 is about
PLAIN = {r"$\ell_{1.5}$": "l_1.5", r"$\ell_3$": "l_3"}  # without formulas
STARTS = 20  # random starts of PGD that the KKT residual's attacked points come from
SHOWN = 0.2  # the eps of Fig. 3
KEYS = ["algorithm", "eps", "seed"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: algorithm, eps, seed, step, accuracies, loss, and ``margin``, over the own norm squared.

    The own norm is that of the algorithm's geometry: l_2 for GD, l_inf for SD (and Adam), l_r, or the largest
    spectral norm of the layers. ``best`` is the best robust test accuracy until then; the last row of each run
    also has ``kkt``, the residual of its direction, see :func:`residual`, and what strong attacks and certificates
    found, see :func:`robust_erm.figures.strong.of`.
    """
    curves = read_curves(runs.reset_index(drop=True))
    kept = curves[["folder", "seed", "eps", "step", "log_loss"]].copy()
    labels = [ALGORITHMS[sweep.rpartition(".")[2]] for sweep in curves["sweep"]]
    kept.insert(0, "algorithm", [name for name, _ in labels])
    accuracies = [f"{part}_{kind}_acc" for part in ("train", "test") for kind in ("robust", "clean")]
    kept[accuracies] = curves[accuracies]
    rows = curves[[f"margin_robust_{norm}" for norm in {norm for _, norm in labels}]].to_dict("records")
    kept["margin"] = [row[f"margin_robust_{norm}"] for row, (_, norm) in zip(rows, labels, strict=True)]
    kept = kept.drop_duplicates(["folder", "step"]).sort_values([*KEYS, "step"]).reset_index(drop=True)
    kept["best"] = kept.groupby("folder")["test_robust_acc"].cummax()
    last = kept.groupby("folder").tail(1)
    kept["kkt"] = pd.Series({i: residual(folder) for i, folder in last["folder"].items()}, dtype=float)
    found = strong.of(last["folder"], runs)
    kept[found.columns] = found
    return kept


def residual(folder: str | Path) -> float:
    """How far a run's direction is from a KKT point of the l_2 robust max-margin problem; 0 at one.

    The worst perturbations of an adversarially trained net tie, so a single one a sample will not do: multipliers
    are found for the points that PGD reaches from :data:`STARTS` random starts, and from x itself. nan where some
    training point is not robust: there is no such problem to be near to.
    """
    run = run_of(folder)
    data = draw(run.data, run.seed)
    x, y = (torch.as_tensor(a, dtype=torch.float64) for a in (data.x_train, data.y_train))
    params = {name: value.double() for name, value in parameters(folder).items()}
    found = [x] if run.eps == 0 else attacked_points(run.model, params, x, y, run.eps, data.domain, run.seed)
    points, labels = torch.cat(found), y.repeat(len(found))
    answer = kkt(run.model, params, points, labels)
    return answer.stationarity if answer.feasible else float("nan")


def attacked_points(
    model: object,
    params: Params,
    x: torch.Tensor,
    y: torch.Tensor,
    eps: float,
    domain: tuple[float, float] | None,
    seed: int,
) -> list[torch.Tensor]:
    """X' of PGD from x, and from random starts."""
    victim = Victim(lambda z: model.apply(params, z), x, y, domain, None)  # type: ignore[attr-defined]
    n, d = x.shape
    radius, generator = torch.tensor(eps, dtype=x.dtype), torch_stream(seed, "kkt")
    plain, random = PGD(steps=20, relative_step=0.1), PGD(steps=20, relative_step=0.1, random_start=True)
    found = [plain.perturb(victim, radius, plain.draw(n, d, generator))]
    return found + [random.perturb(victim, radius, random.draw(n, d, generator)) for _ in range(STARTS)]


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """A row for each eps: GD and SD; the other geometries; and the margins of all, each over its own norm, in parts
    of the greatest that the run has had (runs without a positive one are left out). At the end of each curve a dot
    for what the strong attacks leave, and a line down to what is certified, means over the seeds.
    """
    radii = sorted(table["eps"].unique())
    names = list(table["algorithm"].unique())
    order = [name for name, _ in ALGORITHMS.values() if name in names and name != LONG]
    colours = dict(zip(order, COLOURS, strict=False))
    colours[LONG] = colours.get("SD", "0.5")  # one path
    papers = [name for name in PAPER if name in names]
    others = [name for name in order if name not in papers]
    with style():
        columns = 3 if others else 2
        fig, axes = plt.subplots(
            len(radii), columns, figsize=(PAGE, 1.9 * len(radii) + 0.5), layout="constrained", squeeze=False
        )
        for row, eps in zip(axes, radii, strict=True):
            some = table[table["eps"] == eps]
            for ax, shown in zip(row[:-1], (papers, others), strict=False):
                for name in shown:
                    _band(ax, some[some["algorithm"] == name], "train_robust_acc", colours[name], ":")
                    _band(ax, some[some["algorithm"] == name], "test_robust_acc", colours[name], "-")
                    _strong(ax, some[some["algorithm"] == name], colours[name])
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
                ax.set_ylim(0.4, 1.02)
            for name in order:
                one = some[some["algorithm"] == name]
                top = one.groupby("folder")["margin"].transform("max")
                one = one[top > 0]
                _band(row[-1], one.assign(margin=one["margin"] / top), "margin", colours[name], "-")
            row[-1].set_ylim(-0.2, 1.1)
            row[-1].axhline(0, color="0.7", lw=0.6, zorder=0)
            row[0].set_ylabel(rf"$\epsilon$ = {eps:g}" + "\n(robust) accuracy")
            row[-1].set_ylabel("margin / greatest")
        for ax in axes.flat:
            ax.set(xscale="log", xlim=(0.4, 1.2 * table["step"].max()))
        for ax in axes[-1]:
            ax.set_xlabel("step")
        titles = ["GD and SD", "other geometries", "robust margin over own norm"]
        for ax, title in zip(axes[0], titles if others else [titles[0], titles[2]], strict=True):
            ax.set_title(title, fontsize=8)
        handles = [Line2D([], [], color=colours[name], label=name) for name in order]
        handles += [Line2D([], [], color="0.3", ls=ls, label=label) for ls, label in (("-", "test"), (":", "train"))]
        handles.append(Line2D([], [], color="0.3", marker="o", ms=2.5, lw=0, label="strong attacks"))
        fig.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)), frameon=False, fontsize=7)
    return fig


def _band(ax: Axes, some: pd.DataFrame, column: str, colour: str, dash: str) -> None:
    """Mean over seeds, with the band from the least to the greatest where the line is solid."""
    if not len(some):
        return
    seeds = some.pivot_table(index="step", columns="folder", values=column).sort_index().ffill()
    steps = seeds.index.to_series().clip(lower=0.5)
    ax.plot(steps, seeds.mean(axis=1), dash, color=colour, lw=1.1)
    if dash == "-":
        ax.fill_between(steps, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, lw=0)


def _strong(ax: Axes, some: pd.DataFrame, colour: str) -> None:
    """Robust test accuracy after training as an interval: attacked, and down to certified."""
    last = some.groupby("folder").tail(1)
    if last["test_attacked"].isna().all() or float(last["eps"].iloc[0]) == 0:
        return
    at, high, low = last["step"].max(), last["test_attacked"].mean(), last["test_certified"].mean()
    ax.plot([at, at], [low, high], "-", color=colour, lw=0.8)
    ax.plot(at, high, "o", color=colour, ms=2.5)


def _by_algorithm(values: pd.Series) -> pd.DataFrame:
    """A column for each algorithm, a row for each seed."""
    return values.rename("value").reset_index().pivot_table(index="seed", columns="algorithm", values="value")


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """What Sec. 5.2 says of GD and SD, at each eps; then what the theory says of every geometry."""
    last = table.groupby("folder").tail(1).set_index(KEYS)
    found: list[Claim] = []
    for eps in sorted(table["eps"].unique()):
        some = pd.DataFrame(last.xs(eps, level="eps"))
        final = _by_algorithm(some["test_robust_acc"])
        if {"GD", "SD"} <= set(final):
            found += _at_zero(final) if eps == 0 else _robust(some, final, eps)
            found.append(_fitted(some, eps))
        if eps > 0 and some["test_attacked"].notna().any():
            found += _trusted(some, eps)
    found += _easier(last["train_robust_acc"])
    for name in table["algorithm"].unique():
        found.append(_rises(PLAIN.get(name, name), table[table["algorithm"] == name]))
    return [*found, *_nearest(last["kkt"])]


def _at_zero(final: pd.DataFrame) -> list[Claim]:
    """Standard training: no difference."""
    claim = "in ERM the choice of the algorithm does not affect the generalization error much"
    edge = (final["SD"] - final["GD"]).dropna()
    return [within(claim, "Sec. 5.2, Fig. 3 left top", edge, 0.02, "SD - GD at the last step: ")]


def _robust(some: pd.DataFrame, final: pd.DataFrame, eps: float) -> list[Claim]:
    """SD against GD, and what either loses after its best step; ``some`` and ``final`` are those of the last step."""
    found = []
    after = some.groupby("algorithm")["step"].max()
    fits = _by_algorithm(some["train_robust_acc"]).min() == 1
    for one, other in (("SD", "GD"), (LONG, "GD"), ("SD", UNIT)):
        if {one, other} <= set(final):
            where = "ours" if other == UNIT else "Sec. 5.2, Fig. 3 left" if eps == SHOWN else "Fig. 7"
            number = "(paper: 4.11) " if eps == SHOWN and other == "GD" else ""
            claim = f"eps = {eps:g}: {one} significantly outperforms {other}"
            edge = (final[one] - final[other]).dropna()
            text = f"{one} after {after[one]:,} steps - {other} after {after[other]:,}: {number}"
            if fits[one] and fits[other]:
                found.append(above(claim, where, edge, 0.0, text))
            else:
                found.append(stated(claim, where, f"{text}{spread(edge)}; {UNFIT}", None))
    lost = _by_algorithm(some["best"] - some["test_robust_acc"])
    text = "best along training - last: "
    for name in (n for n in PAPER if n in final):
        where, steepest = "ours" if name == UNIT else "Sec. 5.2", name in ("SD", LONG)
        says = "avoids" if steepest else "shows"
        claim = f"eps = {eps:g}: {name} {says} robust overfitting"
        if not fits[name]:
            found.append(stated(claim, where, UNFIT, None))
        elif steepest:
            found.append(within(claim, where, lost[name], 0.01, text))
        else:
            found.append(above(claim, where, lost[name], 0.01, text))
    return found


def _fitted(some: pd.DataFrame, eps: float) -> Claim:
    trained = _by_algorithm(some["train_robust_acc"])
    both = pd.concat([trained["GD"], trained["SD"]])
    claim = f"eps = {eps:g}: GD and SD reach 100 % robust train accuracy"
    return every(claim, "Sec. 5.2", both, 1.0, "robust train accuracy: ")


def _easier(trained: pd.Series) -> list[Claim]:
    """How many runs of each algorithm fit; Adam is no steepest descent."""
    fits = (trained == 1).groupby(level="algorithm").agg(["sum", "count"])
    fits = fits.drop(index=[n for n in ("GD", UNIT, LONG, "Adam") if n in fits.index])
    if "SD" not in fits.index or len(fits) < 2:
        return []
    share = fits["sum"] / fits["count"]
    others = share.drop("SD")
    holds = None if (others == share["SD"]).any() else bool((others < share["SD"]).all())
    each = [f"{PLAIN.get(str(n), n)} {k} of {total}" for n, (k, total) in fits.iterrows()]
    text = f"runs that reach 100 % robust train accuracy: {', '.join(each)}"
    claim = "it is easier to train with SD than with any other steepest descent besides GD"
    return [stated(claim, "Sec. 5.2", text, holds)]


def _trusted(last: pd.DataFrame, eps: float) -> list[Claim]:
    """What the strong attacks leave of all this at one eps."""
    found = [strong.close(f"eps = {eps:g}: ", last.reset_index(), {str(k): v for k, v in PLAIN.items()})]
    final = _by_algorithm(last["test_attacked"])
    edge = (final["SD"] - final["GD"]).dropna()
    claim = f"eps = {eps:g}: SD outperforms GD under the strong attacks too"
    if (_by_algorithm(last["train_robust_acc"])[["GD", "SD"]] == 1).all(axis=None):
        found.append(above(claim, "ours", edge, 0.0, "SD - GD: "))
    else:
        found.append(stated(claim, "ours", f"SD - GD: {spread(edge)}; {UNFIT}", None))
    trained = _by_algorithm(last["train_attacked"])
    both = pd.concat([trained["GD"], trained["SD"]])
    claim = f"eps = {eps:g}: GD and SD are robust on all training points under the strong attacks too"
    return [*found, every(claim, "ours", both, 1.0, "robust train accuracy: ")]


def _rises(word: str, some: pd.DataFrame) -> Claim:
    """Whether the margin over the own norm ends where it is greatest, in the runs where it ever is positive."""
    margins = some.sort_values("step").groupby("folder")["margin"]
    greatest = margins.max()
    ever = greatest > 0
    claim = f"{word}: the robust margin over its own norm squared ends where it is greatest"
    where = "ours; lyu2022 Thm 4" if word == "GD" else "ours"
    if not ever.any():
        return stated(claim, where, f"all {len(ever)} runs never have a positive one", None)
    never = "" if ever.all() else f"{int((~ever).sum())} of {len(ever)} runs never have a positive one; "
    ratios = (margins.last() / greatest)[ever]
    return every(claim, where, ratios, 0.99, f"{never}last / greatest: ")


def _nearest(residuals: pd.Series) -> list[Claim]:
    """GD's stationarity residual against the least of the others', at each eps and seed where all are feasible.

    Left out are the further runs of GD and SD, and algorithms that are feasible in less than half of these.
    """
    values = residuals.rename("value").reset_index()
    each = values.pivot_table(index=["eps", "seed"], columns="algorithm", values="value", dropna=False)
    each = each.drop(columns=[UNIT, LONG], errors="ignore").dropna(axis=1, thresh=-(-len(each) // 2))
    if "GD" not in each or each.shape[1] < 2:
        return []
    paired = each.dropna()
    means = ", ".join(f"{PLAIN.get(str(n), n)} {v:.2f}" for n, v in paired.mean().sort_values().items())
    text = f"mean residuals {means}, of {len(paired)} of {len(each)} pairs of eps and seed where all are robust; "
    edge = (paired.drop(columns="GD").min(axis=1) - paired["GD"]).groupby(level="seed").mean()
    claim = "of all algorithms GD ends nearest to stationarity in the l_2 robust max-margin problem"
    return [above(claim, "ours; lyu2022 Thm 5", edge, 0.0, f"{text}least of the others - GD, in hundredths: ")]
