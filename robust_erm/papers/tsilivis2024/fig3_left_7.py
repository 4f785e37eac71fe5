"""Figs 3 left and 7: GD and SD on one-hidden-layer ReLU nets; beside them other steepest descents, and Adam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_erm.attacks.attack import Victim
from robust_erm.attacks.pgd import PGD
from robust_erm.core.errors import require
from robust_erm.core.params import Params
from robust_erm.core.streams import torch_stream
from robust_erm.oracles.kkt import kkt
from robust_erm.papers import strong
from robust_erm.papers.claims import Claim
from robust_erm.papers.reproduced import parameters
from robust_erm.papers.tsilivis2024 import fig3_left_7_claims as nets_claims
from robust_erm.papers.tsilivis2024.fig3_left_7_claims import LONG, PAPER, UNIT
from robust_erm.reports.style import COLOURS, OF_OPTIMIZER, PAGE, over_steps, style
from robust_erm.reports.tables import read_curves
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

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
STARTS = 20  # random starts of PGD that the KKT residual's attacked points come from
KEYS = ["algorithm", "eps", "seed"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: algorithm, eps, seed, step, accuracies, loss, and ``margin``, over the own norm squared.

    Beside these ``eta``, the step size; status; and data.

    The own norm is that of the algorithm's geometry: l_2 for GD, l_inf for SD (and Adam), l_r, or the largest
    spectral norm of the layers. ``best`` is the best robust test accuracy until then; the last row of each run
    also has ``kkt``, the residual of its direction, see :func:`residual`, and what strong attacks and certificates
    found, see :func:`robust_erm.papers.strong.of`.
    """
    curves = read_curves(runs.reset_index(drop=True))
    kept = curves[["folder", "seed", "eps", "step", "log_loss"]].copy()
    labels = [ALGORITHMS[sweep.rpartition(".")[2]] for sweep in curves["sweep"]]
    kept.insert(0, "algorithm", [name for name, _ in labels])
    kept["eta"], kept["status"], kept["data"] = (curves[c] for c in ("optimizer.schedule.lr", "status", "data"))
    accuracies = [f"{part}_{kind}_acc" for part in ("train", "test") for kind in ("robust", "clean")]
    kept[accuracies] = curves[accuracies]
    rows = curves[[f"margin_robust_{norm}" for norm in {norm for _, norm in labels}]].to_dict("records")
    kept["margin"] = [row[f"margin_robust_{norm}"] for row, (_, norm) in zip(rows, labels, strict=True)]
    kept = kept.drop_duplicates(["folder", "step"]).sort_values([*KEYS, "step"]).reset_index(drop=True)
    kept["best"] = kept.groupby("folder")["test_robust_acc"].cummax()
    last = kept.groupby("folder").tail(1)
    twice = last[last.duplicated(KEYS)]
    several = "there are several runs of one algorithm, eps and seed: vary nothing else"
    require(twice.empty, "runs", " ".join(twice["folder"].head(1)), several)
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
    params = parameters(folder)
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
    """Robust accuracy on test (solid) and train points (dotted) against steps, under training's own PGD, a row for each
    eps: GD and SD; the other geometries; and the robust margin over the algorithm's own norm, in parts of the greatest
    that the run has had. Lines are means over the seeds, bands reach from the least to the greatest. At the end of each
    curve a dot stands where the strong attacks leave it, and a line goes down to what is certified.
    """
    radii = sorted(table["eps"].unique())
    names = list(table["algorithm"].unique())
    order = [name for name, _ in ALGORITHMS.values() if name in names and name != LONG]
    own = {name: OF_OPTIMIZER[sweep] for sweep, (name, _) in ALGORITHMS.items() if sweep in OF_OPTIMIZER}
    left = [shade for shade in COLOURS if shade not in own.values()]
    colours = own | dict(zip((name for name in order if name not in own), left, strict=False))
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
                ax.set_ylim(_floor(some), 1.02)
            without = []
            for name in order:
                one = some[some["algorithm"] == name]
                top = one.groupby("folder")["margin"].transform("max")
                without += [name] if len(one) and not (top > 0).any() else []
                one = one[top > 0]
                _band(row[-1], one.assign(margin=one["margin"] / top), "margin", colours[name], "-")
            row[-1].set_ylim(-0.2, 1.1)
            row[-1].axhline(0, color="0.7", lw=0.6, zorder=0)
            if without:
                row[-1].text(
                    0.02, 0.98, f"never > 0: {', '.join(without)}", va="top", fontsize=6, transform=row[-1].transAxes
                )
            row[0].set_ylabel(rf"$\epsilon$ = {eps:g}" + "\n(robust) accuracy")
            row[-1].set_ylabel("margin / greatest")
        for ax in axes.flat:
            over_steps(ax)
            ax.set_xlim(0.4, 1.2 * table["step"].max())
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


def _floor(some: pd.DataFrame) -> float:
    """Where the axis of accuracies begins: 40 %, or below all that is reached or certified in the end."""
    last = some.groupby("folder").tail(1)
    ends = last[["train_robust_acc", "test_robust_acc", "test_attacked", "test_certified"]].to_numpy(dtype=float)
    return max(0.0, min(0.4, float(np.nanmin(ends)) - 0.03))


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
    # the attacks see a sample of the test points: what they find beyond PGD, below the end of PGD's curve
    found = last[["test_robust_acc", "test_after_train", "test_attacked", "test_certified"]].mean()
    high = found["test_robust_acc"] - (found["test_after_train"] - found["test_attacked"])
    at, low = last["step"].max(), max(0.0, high - (found["test_attacked"] - found["test_certified"]))
    ax.plot([at, at], [low, high], "-", color=colour, lw=0.8)
    ax.plot(at, high, "o", color=colour, ms=2.5)


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """See :mod:`robust_erm.papers.tsilivis2024.fig3_left_7_claims`."""
    return nets_claims.claims(table)
