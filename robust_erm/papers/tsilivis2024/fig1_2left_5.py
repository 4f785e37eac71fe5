"""Figs 1, 2 (left) and 5: the (robust) generalization gap against m, for each algorithm and its limit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robust_erm.data.dataset import Array
from robust_erm.papers.claims import Claim, above, within
from robust_erm.papers.reproduced import predictor
from robust_erm.papers.tsilivis2024.sec51 import against_m, difference, furthest, gaps, named_eps, per_draw, reached
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.store.reading import run_of

TOY = "toy"  # the sweep of the two-dimensional example


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """See :func:`gaps`; the two-dimensional example is no part of it."""
    return gaps(runs[runs["sweep"] != TOY])


def _settings(table: pd.DataFrame) -> list[tuple[int, int, float]]:
    found = (
        table[["k_w", "k_x", "eps"]].drop_duplicates().sort_values(["k_x", "k_w", "eps"], ascending=[True, False, True])
    )
    return [(int(w), int(x), float(e)) for w, x, e in found.itertuples(index=False)]


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Generalization gaps (train less test accuracy, robust where eps > 0) against the number of training points, a row
    for each distribution, a panel for each eps: lines are means over the draws, bands reach from the least to the
    greatest; dotted: the max-margin separators that the algorithms tend to. In the example above, where there is one,
    boxes are the threat around test points, filled where it crosses the separator.
    """
    settings = _settings(table)
    toy = runs[runs["sweep"] == TOY]
    pairs = list(dict.fromkeys((w, x) for w, x, _ in settings))
    radii = sorted({eps for *_, eps in settings})
    rows = len(pairs) + (len(toy) == 2)
    with style():
        fig, axes = plt.subplots(rows, len(radii), figsize=(PAGE, 2.5 * rows), layout="constrained", squeeze=False)
        for k, (w, x) in enumerate(pairs):
            shared = axes[k + rows - len(pairs)]
            for ax, eps in zip(shared, radii, strict=True):
                one = table[(table["k_w"] == w) & (table["k_x"] == x) & (table["eps"] == eps)]
                against_m(ax, one)
                ax.set_title(f"{_words(w, x, int(one['d'].iloc[0]))}, {named_eps(eps)}")
                ax.set_xlabel("training points m")
            low = min(ax.get_ylim()[0] for ax in shared)
            high = max(ax.get_ylim()[1] for ax in shared)
            for ax in shared:
                ax.set_ylim(min(low, 0), high)
            shared[0].set_ylabel("(robust) generalization gap")
        if len(toy) == 2:
            examples(axes[0], toy)
        handles, labels = axes[-1, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return fig


def _words(w: int, x: int, d: int) -> str:
    return f"{'dense' if w == d else f'{w}-sparse'} teacher, {'dense' if x == d else f'{x}-sparse'} x"


def examples(axes: list[Axes], toy: pd.DataFrame) -> None:
    """Two-dimensional max-margin separators of the same points, for l_2 and for l_inf distances (Fig. 1, top)."""
    folders = toy.sort_values("optimizer.r", ascending=False)["folder"]
    drawn = run_of(folders.iloc[0]).data.draw(int(toy["seed"].iloc[0]))
    weights = {norm: predictor(folder) for norm, folder in zip((r"$\ell_2$", r"$\ell_\infty$"), folders, strict=True)}
    teacher = drawn.law.w_star if drawn.law is not None else None
    _, w_inf = weights.values()
    radius = 0.9 * float(np.min(drawn.y_train * (drawn.x_train @ w_inf))) / np.abs(w_inf).sum()
    x_test, y_test = drawn.x_test, drawn.y_test
    if teacher is not None:  # points that the teacher itself labels robustly
        kept = y_test * (x_test @ teacher) > radius * np.abs(teacher).sum()
        x_test, y_test = x_test[kept][:14], y_test[kept][:14]
    for ax, (norm, w) in zip(axes, weights.items(), strict=False):
        _example(ax, w, drawn.x_train, drawn.y_train, x_test, y_test, radius)
        ax.set_title(f"largest {norm} distance to the training points", fontsize=8)
    axes[0].set_ylabel("one draw, chosen of 150", fontsize=7, color="0.4")


def _example(ax: Axes, w: Array, x: Array, y: Array, x_test: Array, y_test: Array, radius: float) -> None:
    colours = {1.0: COLOURS[0], -1.0: COLOURS[1]}
    wrong = y_test * (x_test @ w) - radius * np.abs(w).sum() <= 0
    limit = 1.1 * max(np.abs(x).max(), np.abs(x_test).max())
    for label, colour in colours.items():
        ax.plot(*x[y == label].T, "o", color=colour, ms=4)
        ax.plot(*x_test[y_test == label].T, "*", color=colour, ms=5, alpha=0.6, mec="none")
    for point, bad in zip(x_test, wrong, strict=True):
        box = Rectangle(point - radius, 2 * radius, 2 * radius, fill=bool(bad), lw=0.5)
        box.set(edgecolor=COLOURS[6] if bad else "0.7", facecolor="0.85", zorder=0)
        ax.add_patch(box)
    across = np.array([-w[1], w[0]]) / np.linalg.norm(w) * 3 * limit
    ax.plot([-across[0], across[0]], [-across[1], across[1]], color=COLOURS[6], lw=1)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
    ax.set_xlabel(f"{wrong.sum()} of {len(wrong)} test points (stars) can be pushed across", fontsize=7)


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """What captions and Secs 3.2 and 5.1 say: "similar" at the m where the difference is greatest, "better" on average.

    Averages are over the sizes m as the axis shows them, not the integral that Sec. 5.1 takes for the heatmaps.
    """
    found: list[Claim] = []
    d = int(table["d"].iloc[0])
    for w, x in dict.fromkeys((w, x) for w, x, _ in _settings(table)):
        found += _of_distribution(table[(table["k_w"] == w) & (table["k_x"] == x)], w, x, d)
    return [*found, *reached(runs[runs["sweep"] != TOY])]


def _of_distribution(one: pd.DataFrame, w: int, x: int, d: int) -> list[Claim]:
    name = _words(w, x, d)
    cd, diag = difference(one, "gd", "cd"), difference(one, "gd", "diag")
    both = (("CD", cd), ("diag-net GD", diag))
    found: list[Claim] = []
    if w == d and x == d:
        where = "Fig. 1, caption"
        for other, values in both:
            found.append(
                _similar(f"{name}: in ERM GD and {other} generalize similarly", where, values, 0.0, f"GD - {other}")
            )
        better = f"{name}: in ERM l_2 generalizes better, by little"
        found.append(above(better, "Sec. 3.2, case 1", -per_draw(cd, 0.0), 0.0, "CD - GD, mean over m: "))
        for other, values in both:
            claim = f"{name}: in robust ERM {other} has the smaller robust gap"
            found.append(above(claim, where, per_draw(values, 0.25), 0.0, f"GD - {other}, mean over m: "))
        least = int(one["m"].min())
        for other, values in both:
            few = values[(values.index.get_level_values("eps") == 0.25) & (values.index.get_level_values("m") == least)]
            claim = f"{name}: the difference exceeds 20 % in the case of few training data"
            found.append(above(claim, "Sec. 5.1", few, 0.2, f"GD - {other} at m = {least}: "))
    elif w < d and x == d:
        where = "Sec. 5.1, Fig. 2 left"
        for other, values in both:
            text = f"GD - {other}, mean over m: "
            claim = f"{name}: {other} outperforms GD already in ERM"
            found.append(above(claim, where, per_draw(values, 0.0), 0.0, text))
            grown = per_draw(values, 0.25) - per_draw(values, 0.0)
            claim = f"{name}: the difference between {other} and GD grows in robust ERM"
            found.append(above(claim, where, grown.dropna(), 0.0, f"growth of {text}"))
    elif w == d:
        for eps, claim in ((0.0, "in ERM l_2 generalizes better"), (0.25, "and it can still do so in robust ERM")):
            text = "CD - GD, mean over m: "
            found.append(above(f"{name}: {claim}", "Fig. 5, caption; Table 1", -per_draw(cd, eps), 0.0, text))
    else:
        where = "Sec. 3.2, case 4; Table 1"
        found.append(_similar(f"{name}: in ERM l_1 and l_2 behave similarly", where, cd, 0.0, "GD - CD"))
        claim = f"{name}: in robust ERM l_1 is better"
        trivial = "" if one["gap"].max() > 1e-3 else "no algorithm leaves a gap at this sparsity, ties drawn again; "
        found.append(above(claim, where, per_draw(cd, 0.25), 0.0, f"{trivial}GD - CD, mean over m: "))
    for a, b in (("gd", "oracle2"), ("cd", "oracle1"), ("diag", "oracle1")):
        for eps in sorted(one["eps"].unique()):
            claim = (
                f"{name}, eps = {eps:g} eps*: {a} stopped at L = 1e-3 is close to its limit, the l_{b[-1]} max margin"
            )
            found.append(_similar(claim, "ours", difference(one, a, b), eps, f"{a} - limit"))
    return found


def _similar(claim: str, where: str, values: pd.Series, eps: float, what: str) -> Claim:
    some, m = furthest(values, eps)
    return within(claim, where, some, 0.05, f"{what}, where it is greatest, m = {m}: ")
