"""Normalised margins during training, under the attack of training and under a strong one: Figs 1 to 5."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import spearmanr

from robust_erm.core.statistics import interval
from robust_erm.papers.claims import Claim, above, between, every
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.reports.tables import read_curves

MARGINS = {  # of the training set; our columns, and those of the measurements
    "margin": "margin_under_train_layers",
    "margin_strong": "margin_under_strong_layers",
    "margin_worst": "margin_robust_layers",
    "margin_clean": "margin_under_clean_layers",
    "margin_theta": "margin_under_train_l2",
}
SHARES = {"own": "robust_acc_train", "strong": "robust_acc_strong", "worst": "robust_acc", "clean": "clean_acc"}
KEYS = ["attack", "eps", "radius", "seed", "folder", "step"]
LEAST = 5  # measurements from the onset on, for a claim about how the margin goes on


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement of each run.

    ``curve``: how it was trained, ``FGSM 16/255`` or ``standard``; ``attack`` and ``radius``: of the evaluation, which
    are those of training where ``eps`` > 0. ``rho``: the product of the layers' Frobenius norms. Least margins of the
    training set over rho: ``margin`` under the attack of training, ``margin_strong`` under the strong one,
    ``margin_worst`` at the worst of both and the clean point, ``margin_clean``; ``margin_theta``: that of ``margin``
    over ``||theta||_2^L``. ``train_own``, ``train_strong``, ``train_worst``, ``train_clean``, ``test_own``, ...: shares
    of points with a positive margin.
    """
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True)).reset_index(drop=True)
    found = curves[["sweep", "folder", "data", "seed", "status", "step", "log_loss"]].copy()
    whole = curves["step"].astype(float)  # where all points are seen in a step
    found["epoch"] = curves["epoch"].fillna(whole) if "epoch" in curves else whole
    found["eps"], found["radius"] = curves["eps_absolute"].astype(float), curves["eval_eps_absolute"].astype(float)
    pairs = zip(curves["attack"], curves["attack.p"], strict=True)
    found["attack"] = [{"pgd": "PGD"}.get(word, "FGSM" if math.isinf(p) else "FGM") for word, p in pairs]
    trained = [f"{word} {length(eps, word)}" for word, eps in zip(found["attack"], found["eps"], strict=True)]
    found["curve"] = np.where(found["eps"] > 0, trained, "standard")
    layers = [c for c in curves if str(c).startswith("norm_layer_")]
    found["rho"] = curves[layers].prod(axis=1)
    found[list(MARGINS)] = curves[list(MARGINS.values())].to_numpy()
    for part in ("train", "test"):
        found[[f"{part}_{k}" for k in SHARES]] = curves[[f"{part}_{k}" for k in SHARES.values()]].to_numpy()
    found = found.drop_duplicates(["folder", "step"]).sort_values(KEYS)
    return found.reset_index(drop=True)


def length(eps: float, attack: str) -> str:
    """``16/255`` in l_inf, ``8`` in l_2."""
    return f"{eps:g}" if attack == "FGM" else f"{255 * eps:.3g}/255"


def last(table: pd.DataFrame) -> pd.DataFrame:
    """The last measurement of each run."""
    return table.sort_values("step", kind="stable").groupby("folder", sort=False).tail(1)


def onset(table: pd.DataFrame) -> pd.Series:
    """By folder, the epoch of the first measurement with all training points right under the attack of training."""
    first = table[table["train_own"] == 1].groupby("folder")["epoch"].min()
    return first.reindex(table["folder"].unique())


def fitted(table: pd.DataFrame) -> pd.DataFrame:
    """Measurements from the onset on, of the runs that have one."""
    return table[table["epoch"] >= table["folder"].map(onset(table))]


def adversarial(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that were trained under attack."""
    return table[table["eps"] > 0]


# ---- claims --------------------------------------------------------------------------------------------------------


def fits(table: pd.DataFrame, where: str) -> list[Claim]:
    """For each way of adversarial training, whether all points are right at some time, under the attack of training."""
    found = []
    for curve, some in adversarial(table).groupby("curve", sort=False):
        first, most = onset(some), some.groupby("folder")["train_own"].max()
        epochs = f"reached in epochs {_list(first.dropna())}; " if first.notna().any() else ""
        text = f"{epochs}at the end {100 * last(some)['train_own'].mean():.1f} % on average; greatest share: "
        name = f"{curve}: the adversarial training accuracy reaches 100 %"
        found.append(every(name, where, most, 1.0, text, limit=True))
    return found


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in sorted(values))


def rises(table: pd.DataFrame, where: str, column: str = "margin", under: str = "") -> list[Claim]:
    """For each attack of training, whether the normalised margin keeps increasing from the onset on.

    Judged by last / greatest and by Spearman's correlation with the epoch, in every run with an onset and
    :data:`LEAST` measurements from there on.
    """
    found = []
    for attack, some in adversarial(table).groupby("attack", sort=False):
        known = fitted(some)
        each = [run[column].to_numpy() for _, run in known.groupby("folder", sort=False)]
        ratio = [float(m[-1] / m.max()) if len(m) >= LEAST and m.max() > 0 else math.nan for m in each]
        order = [_order(m) for m in each]
        runs = f"{len(each)} of {some['folder'].nunique()} runs have an onset; "
        claim = f"{attack}: from the onset on the normalised adversarial margin{under}"
        found.append(every(f"{claim} ends where it is greatest", where, ratio, 0.99, f"{runs}last / greatest: "))
        steps = np.concatenate([np.diff(m) for m in each]) if each else np.zeros(0)
        falls = f"it falls in {int((steps < 0).sum())} of {len(steps)} intervals between measurements; "
        text = f"{runs}{falls}Spearman's correlation with the epoch: "
        found.append(every(f"{claim} keeps increasing", where, order, 0.95, text))
    return found


def _order(m: np.ndarray[Any, Any]) -> float:
    """Spearman's correlation with time; nan where there is too little to say, 0 for a constant."""
    if len(m) < LEAST:
        return math.nan
    return 0.0 if np.ptp(m) == 0 else float(spearmanr(np.arange(len(m)), m).statistic)


def paired(table: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """By way of adversarial training, its last measurements and those of standard training at the same attack and
    radius, by seed.
    """
    ends, found = last(table), {}
    standard = ends[ends["eps"] == 0]
    for curve, own in adversarial(ends).groupby("curve", sort=False):
        same = (standard["attack"] == own["attack"].iloc[0]) & np.isclose(standard["radius"], own["radius"].iloc[0])
        if same.any():
            found[str(curve)] = own.set_index("seed"), standard[same].set_index("seed")
    return found


def beats(table: pd.DataFrame, where: str) -> list[Claim]:
    """Whether adversarial training ends with the greater adversarial margin, under its own attack and the worst."""
    found = []
    for curve, (own, standard) in paired(table).items():
        for column, under, place, per in (
            ("margin", "the same attack", where, "rho"),
            ("margin_theta", "the same attack, over ||theta||^L", "ours", "||theta||^L"),
            ("margin_worst", "the strong attack too", "ours", "rho"),
        ):
            means = " and ".join(f"{side[column].mean():.3g}" for side in (own, standard))
            edge = (own[column] - standard[column]).dropna()
            claim = f"{curve}: a greater normalised margin than standard training under {under}"
            text = f"{means} over {per}; difference: "
            found.append(above(claim, place, edge, 0.0, text, percent=False))
    return found


def positive(table: pd.DataFrame) -> list[Claim]:
    """Whether the nets that are robust to the attack of training on all points are so to the strong one."""
    found = []
    for curve, some in adversarial(table).groupby("curve", sort=False):
        ends = last(fitted(some))
        if ends.empty:
            continue
        share = f"strong accuracy on training points {100 * ends['train_worst'].mean():.1f} %; margin over rho: "
        claim = f"{curve}: the margin under the strong attack is positive at the end too"
        found.append(above(claim, "ours", ends["margin_worst"], 0.0, share, percent=False))
    return found


def agrees(table: pd.DataFrame, share: float = 0.1) -> list[Claim]:
    """Whether the strong attack finds little more than the attack of training, in the runs that are robust to that."""
    found = []
    for curve, some in adversarial(table).groupby("curve", sort=False):
        ends = last(fitted(some))
        ends = ends[ends["margin"] > 0]
        if ends.empty:
            continue
        lost = 1 - ends["margin_worst"] / ends["margin"]
        claim = f"{curve}: the strong attack takes at most a tenth off the margin under the attack of training"
        found.append(between(claim, "ours", interval(lost), -math.inf, share, "share that it takes: ", len(lost)))
    return found


def worse_on_others(table: pd.DataFrame) -> list[Claim]:
    """Whether nets that were trained with one step, and are robust to it, do worse under many."""
    found = []
    for curve, some in adversarial(table[table["attack"] != "PGD"]).groupby("curve", sort=False):
        ends = last(fitted(some))
        if ends.empty:
            continue
        lost = ends["margin"] - ends["margin_strong"]
        claim = f"{curve}: the trained model performs worse on another perturbation, PGD"
        text = f"{ends['margin'].mean():.3g} and {ends['margin_strong'].mean():.3g} over rho; difference: "
        found.append(above(claim, "Sec. 3.2", lost, 0.0, text, percent=False))
    return found


def leaks(table: pd.DataFrame, least: float = 0.05) -> list[Claim]:
    """Whether attacked training points are classified better than clean ones: the labels leak."""
    found = []
    for curve, some in adversarial(table).groupby("curve", sort=False):
        later = some[some["step"] > 0]
        most = (later["train_own"] - later["train_clean"]).groupby(later["folder"]).max()
        text = f"at the end {100 * (last(some)['train_own'] - last(some)['train_clean']).mean():.1f}; at most "
        claim = f"{curve}: labels leak, attacked training points are classified better than clean ones at some time"
        found.append(above(claim, "ours", most, least, text))
    return found


def costs(table: pd.DataFrame) -> list[Claim]:
    """Eq. (20): whether adversarial training ends with the lower clean test accuracy, where it has an onset."""
    found = []
    for curve, (every_one, standard) in paired(table).items():
        own = every_one[every_one["folder"].isin(fitted(table)["folder"])]
        lost = (standard["test_clean"] - own["test_clean"]).dropna()
        if lost.empty:
            continue
        text = f"{100 * own['test_clean'].mean():.1f} and {100 * standard['test_clean'].mean():.1f} %; difference: "
        claim = f"{curve}: robustness costs clean test accuracy, against standard training"
        found.append(above(claim, "Sec. 3.2, eq. (20)", lost, 0.0, text))
    return found


# ---- figures -------------------------------------------------------------------------------------------------------


def band(ax: Axes, some: pd.DataFrame, column: str, colour: str, dash: str, over: str = "epoch") -> None:
    """Mean over the seeds; where the line is solid, in a band from the least to the greatest."""
    seeds = some.pivot_table(index=over, columns="folder", values=column).sort_index()
    ax.plot(seeds.index, seeds.mean(axis=1), dash, color=colour, lw=1.1)
    if dash == "-":
        ax.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, lw=0)


def panels(table: pd.DataFrame, groups: Mapping[str, pd.DataFrame], clean: bool = False) -> Figure:
    """A panel of margins for each of ``groups``; one, of the runs with an onset, from there on; one of accuracies.

    ``clean``: there also clean accuracies, dotted.
    """
    names = sorted(dict.fromkeys(table["curve"]), key=lambda name: name == "standard")
    colours = dict(zip(names, COLOURS, strict=False)) | {"standard": COLOURS[-1]}
    with style():
        count = len(groups) + 2
        columns = 2 if count == 4 else count
        size = (PAGE, 2.4 * (count // columns) + 0.3)
        fig, axes = plt.subplots(count // columns, columns, figsize=size, layout="constrained", squeeze=False)
        *whole, late, share = axes.flat
        for ax, (title, some) in zip(whole, groups.items(), strict=True):
            _margins(ax, some, colours)
            ax.set(title=title, ylabel=r"margin / $\rho$")
        known = fitted(adversarial(table))
        _margins(late, table[table["folder"].isin(known["folder"])], colours)
        late.set(title="from the onset on", ylabel=r"margin / $\rho$")
        _zoom(late, known)
        for curve, some in adversarial(table).groupby("curve", sort=False):
            band(share, some, "train_own", colours[str(curve)], "-")
            band(share, some, "train_worst", colours[str(curve)], "--")
            if clean:
                band(share, some, "train_clean", colours[str(curve)], ":")
        share.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        share.set(title="robust training accuracy", ylim=(-0.02, 1.04), xlim=(0, None))
        for ax in axes.flat:
            ax.title.set_fontsize(8)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_xlabel("epoch")
        handles = [Line2D([], [], color=colours[name], label=name) for name in names]
        handles += [Line2D([], [], color="0.3", ls="-", label="attack of training")]
        handles += [Line2D([], [], color="0.3", ls="--", label="and strong attack")]
        handles += [Line2D([], [], color="0.3", ls=":", label="clean")] if clean else []
        columns = len(handles) if len(handles) <= 6 else 4
        fig.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=7)
    return fig


def _margins(ax: Axes, some: pd.DataFrame, colours: Mapping[str, str]) -> None:
    for (curve, _), own in some.groupby(["curve", "radius"], sort=False):
        band(ax, own, "margin", colours[str(curve)], "-")
        band(ax, own, "margin_worst", colours[str(curve)], "--")
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    ax.set_xlim(0, None)


def _zoom(ax: Axes, known: pd.DataFrame) -> None:
    """Onto the measurements ``known``, those from the onset on."""
    if known.empty:
        ax.text(0.5, 0.6, "no run has an onset", ha="center", fontsize=7, transform=ax.transAxes)
        return
    values = known[["margin", "margin_worst"]].to_numpy()
    low, high = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
    edge = 0.06 * (high - low) or 1e-3
    start, end = float(known["epoch"].min()), float(known["epoch"].max())
    ax.set(ylim=(low - edge, high + edge), xlim=(start, end) if end > start else (0, None))
