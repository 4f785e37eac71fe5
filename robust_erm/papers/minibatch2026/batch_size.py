"""Which margin an optimizer finds whose steps see some of the points: from one to all of them.

Linear models of two classes. The margin of w under a threat is ``min_i y_i <w, x_i> - eps ||w||_{p*}``; over a norm of
w it is held against the greatest there is.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_erm.core.statistics import interval
from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.papers.claims import Claim, above, every, stated
from robust_erm.papers.lyu2022.geometries import best
from robust_erm.papers.lyu2022.separators import apart
from robust_erm.papers.minibatch2026.per_sample import fixed_point
from robust_erm.papers.reproduced import predictor, signed_points
from robust_erm.reports.style import COLOURS, PAGE, style

NAMES = {"sgd": "SGD", "sd": "sign descent", "signum": "Signum", "lion": "Lion",
         "adam": "Adam", "signum, 0.9": "Signum, beta = 0.9", "adam, signs": "Adam, points of signs"}  # fmt: skip
OWN = {"sgd": "l2", "signum": "linf", "lion": "linf"}  # what they come to at any batch size
SAYS = {"sgd": "Nacson et al. 2019", "signum": "Baek et al., abstract"}  # clean; the rest is ours
THREATS = {"clean": "clean", "linf": r"$\ell_\infty$ threat", "l2": r"$\ell_2$ threat"}
SHOWN = {"l2": r"$\ell_2$", "linf": r"$\ell_\infty$"}
NEAR, AWAY = 0.95, 0.9  # of the greatest margin: come to, and left


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: ``optimizer`` of :data:`NAMES`, ``threat`` (clean, linf, l2), ``batch``, seed; ``l1``, ``l2``,
    ``linf``: the margin under the threat over that norm of w, in parts of the greatest; of Adam with one point a step
    also ``apart`` and ``apart_l2``: 1 - cos to the fixed point of :mod:`.per_sample`, nan where none was found, and to
    the l_2 separator.
    """
    clean_twice = (runs["eps"] == 0) & np.isfinite(runs["p"])
    known: dict[tuple[object, ...], dict[str, float]] = {}
    rows = []
    for _, run in runs[~clean_twice].iterrows():
        p, eps, z = float(run["p"]), float(run["eps_absolute"]), signed_points(run["folder"])
        key = run["data.scale"], run["seed"], p, eps
        if key not in known:
            known[key] = best(z, p, eps)
        threat = "clean" if eps == 0 else "linf" if math.isinf(p) else "l2"
        row = {"optimizer": _name(run), "threat": threat, "batch": int(run["batch.size"]), "seed": int(run["seed"])}
        row |= {norm: run[f"w_margin_robust_{norm}"] / most for norm, most in known[key].items()}
        if row["batch"] == 1 and row["optimizer"] == "adam":
            w, goal = predictor(run["folder"]), fixed_point(z, p, eps)
            row["apart"] = float(apart(w, goal.w)) if goal.found else math.nan
            row["apart_l2"] = float(apart(w, robust_max_margin(z, 2, p, eps).w))
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["optimizer", "threat", "batch", "seed"]).reset_index(drop=True)


def _name(run: pd.Series) -> str:
    short = run["sweep"] == "signum" and run["optimizer.accumulator.beta"] < 0.95
    return f"{run['sweep']}{', 0.9' if short else ''}{', signs' if run['data.scale'] == 'signs' else ''}"


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least margin on the training set, after the worst perturbation, over ||w||_2 (above) and ||w||_inf (below),
    in parts of the greatest there is, against the number of points that a step sees; the last is all of them. Clean and
    under two threats of half the exact margin. Means over the draws with their 95 % intervals. What lies below 0.4 is
    not shown.
    """
    with style():
        fig, axes = plt.subplots(2, 3, figsize=(PAGE, 3.9), layout="constrained", sharex=True, sharey=True)
        for i, norm in enumerate(SHOWN):
            for j, threat in enumerate(THREATS):
                _panel(axes[i, j], table[table["threat"] == threat], norm)
                axes[0, j].set_title(THREATS[threat])
                axes[1, j].set_xlabel("points of a step")
            axes[i, 0].set_ylabel(f"margin over {SHOWN[norm]} / greatest")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def _panel(ax: Axes, some: pd.DataFrame, norm: str) -> None:
    colour = dict(zip(NAMES, COLOURS, strict=False))
    for k, (name, label) in enumerate(NAMES.items()):
        by_batch = some[some["optimizer"] == name].groupby("batch")[norm]
        if not len(by_batch):
            continue
        found = {float(str(size)): interval(ratios) for size, ratios in by_batch}
        x = np.array([*found]) * 1.03 ** (k - 4)
        means, halves = np.array([*found.values()]).T
        dash, own = "--" if "," in name else "-", colour[name.partition(",")[0]]
        ax.errorbar(x, means, halves, ls=dash, marker="o", ms=2, lw=1, elinewidth=0.6, color=own, label=label)
    sizes = sorted(some["batch"].unique())
    ax.axhline(1, color="0.6", lw=0.6)
    ax.set(xscale="log", ylim=(0.4, 1.04))
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """What the abstracts say clean, and the same under attack."""
    found = []
    for threat in (t for t in THREATS if t in set(table["threat"])):
        some = table[table["threat"] == threat]
        for name, norm in ((n, norm) for n, norm in OWN.items() if n in set(some["optimizer"])):
            least = some[some["optimizer"] == name].groupby("seed")[norm].min()
            claim = (
                f"{NAMES[name]} comes to {100 * NEAR:g} % of the greatest {norm} margin at every batch size ({threat})"
            )
            where = SAYS.get(name, "ours") if threat == "clean" else "ours"
            found.append(above(claim, where, least, NEAR, "least over the sizes: "))
        found += _of_adam(some, threat) + _of_memory(some, threat)
    most = table[["l1", "l2", "linf"]].max(axis=1)
    return [*found, every("no run exceeds the oracle's margin", "ours", 1 - most, -1e-6, "1 - ratio: ")]


def _of_adam(some: pd.DataFrame, threat: str) -> list[Claim]:
    """Where its bias changes, and to what."""
    *parts, points = sorted(some["batch"].unique())
    whole, where = _ratio(some, "adam", points), "Baek et al., abstract" if threat == "clean" else "ours"
    claim = f"Adam comes to {100 * NEAR:g} % of the greatest linf margin from all points ({threat})"
    found = [above(claim, "Zhang et al. 2024" if threat == "clean" else "ours", whole["linf"], NEAR)]
    for batch in parts:
        lost = whole["linf"] - _ratio(some, "adam", batch)["linf"]
        claim = f"Adam finds less linf margin than from all points where a step sees {batch} of {points} ({threat})"
        found.append(above(claim, where if batch == 1 else "ours", lost, 0.0, "all - part: "))
    one = some[(some["optimizer"] == "adam") & (some["batch"] == 1)]
    claim = f"from one point a step Adam is nearer to the fixed point than to the l2 separator ({threat})"
    if missing := int(one["apart"].isna().sum()):
        found.append(stated(claim, where, f"no fixed point was found for {missing} of {len(one)} draws", None))
    else:
        text = f"median 1 - cos {one['apart'].median():.2g} to it, {one['apart_l2'].median():.2g} to the separator; "
        ratio = np.log10(one["apart_l2"] / one["apart"])
        found.append(above(claim, where, ratio, 0.0, f"{text}log10 of their ratio: ", percent=False))
    signs = _ratio(some, "adam, signs", 1)
    claim = f"points of signs: from one a step Adam comes to {100 * NEAR:g} % of the greatest l2 margin ({threat})"
    found.append(above(claim, where, signs["l2"], NEAR))
    claim = f"points of signs: and it is nearer to that than to the greatest linf margin ({threat})"
    return [*found, above(claim, where, signs["l2"] - signs["linf"], 0.0, "l2 - linf: ")]


def _of_memory(some: pd.DataFrame, threat: str) -> list[Claim]:
    """What it is needed for."""
    one, clean, found = _ratio(some, "sd", 1)["linf"], threat == "clean", []
    if len(one):
        claim = (
            f"sign descent from one point a step stays below {100 * AWAY:g} % of the greatest linf margin ({threat})"
        )
        found = [above(claim, "Li et al., abstract" if clean else "ours", AWAY - one, 0.0, f"{100 * AWAY:g} - ratio: ")]
    longer = _ratio(some, "signum", 1)["linf"] - _ratio(some, "signum, 0.9", 1)["linf"]
    claim = f"from one point a step Signum finds more linf margin with beta = 0.98 than with 0.9 ({threat})"
    return [*found, above(claim, "Baek et al., abstract" if clean else "ours", longer, 0.0, "0.98 - 0.9: ")]


def _ratio(some: pd.DataFrame, name: str, batch: int) -> pd.DataFrame:
    """The ratios of one optimizer at one batch size, by draw."""
    own = some[(some["optimizer"] == name) & (some["batch"] == batch)]
    return own.set_index("seed")[["l1", "l2", "linf"]]
