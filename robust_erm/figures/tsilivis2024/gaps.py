"""Figs 1, 2 (left) and 5: the (robust) generalization gap against m, for each algorithm and its limit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robust_erm.claims import Claim, above, every, within
from robust_erm.data.dataset import Array
from robust_erm.figures.style import COLOURS, PAGE, style
from robust_erm.figures.tsilivis2024.algorithms import against_m, difference, gaps, named_eps, over_m
from robust_erm.reproduced import predictor, run_of

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
    """A row for each distribution: the gap at eps = 0 and at eps*/4; above, the example, where there is one."""
    settings = _settings(table)
    toy = runs[runs["sweep"] == TOY]
    pairs = list(dict.fromkeys((w, x) for w, x, _ in settings))
    radii = sorted({eps for *_, eps in settings})
    rows = len(pairs) + bool(len(toy))
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
        if len(toy):
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
        ax.set_title(f"largest {norm} distance to the training points")


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
    ax.set_xlabel(f"{wrong.sum()} of {len(wrong)} test points (stars) can be pushed across")


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """What the captions and Sec. 5.1 say of the figure at hand; averages over m are integrals as in Sec. 5.1."""
    found: list[Claim] = []
    d = int(table["d"].iloc[0])
    for w, x in dict.fromkeys((w, x) for w, x, _ in _settings(table)):
        one = table[(table["k_w"] == w) & (table["k_x"] == x)]
        found += _of_distribution(one, w, x, d)
    trained = table[~table["algorithm"].str.startswith("oracle")]
    what = "robust train accuracy: "
    found.append(
        every("all runs reach 100 % robust train accuracy", "App. F.1", trained["train_robust_acc"], 1.0, what)
    )
    return found


def _of_distribution(one: pd.DataFrame, w: int, x: int, d: int) -> list[Claim]:
    name = _words(w, x, d)
    gd_cd, gd_diag = difference(one, "gd", "cd"), difference(one, "gd", "diag")

    def per_draw(values: pd.Series, eps: float) -> pd.Series:
        return over_m(values.xs(eps, level="eps"))

    what = "GD - CD, averaged over m: "
    found: list[Claim] = []
    if w == d and x == d:
        where = "Fig. 1, caption"
        found.append(
            within(f"{name}: in ERM the algorithms generalize similarly", where, per_draw(gd_cd, 0.0), 0.05, what)
        )
        claim = f"{name}: in robust ERM GD has the larger robust gap than CD"
        found.append(above(claim, where, per_draw(gd_cd, 0.25), 0.0, what))
        claim = f"{name}: and than GD on the diagonal net"
        found.append(above(claim, where, per_draw(gd_diag, 0.25), 0.0, "GD - diag-net GD, averaged over m: "))
        least = int(one["m"].min())
        few = gd_diag.xs(0.25, level="eps").xs(least, level="m")
        claim = f"{name}: the difference exceeds 20 % in the case of few training data"
        found.append(above(claim, "Sec. 5.1", few, 0.2, f"GD - diag-net GD at m = {least}: "))
        few = gd_cd.xs(0.25, level="eps").xs(least, level="m")
        found.append(above(claim, "Sec. 5.1", few, 0.2, f"GD - CD at m = {least}: "))
    elif w < d and x == d:
        where = "Sec. 5.1, Fig. 2 left"
        found.append(above(f"{name}: CD outperforms GD already in ERM", where, per_draw(gd_cd, 0.0), 0.0, what))
        diag = "GD - diag-net GD, averaged over m: "
        found.append(above(f"{name}: so does GD on the diagonal net", where, per_draw(gd_diag, 0.0), 0.0, diag))
        grown = per_draw(gd_cd, 0.25) - per_draw(gd_cd, 0.0)
        found.append(above(f"{name}: the difference grows in robust ERM", where, grown, 0.0, "growth of GD - CD: "))
    elif w == d:
        where = "Fig. 5, caption"
        found.append(above(f"{name}: in ERM l_2 generalizes better", where, -per_draw(gd_cd, 0.0), 0.0, "CD - GD: "))
        claim = f"{name}: and still in robust ERM, at eps*/4"
        found.append(above(claim, where, -per_draw(gd_cd, 0.25), 0.0, "CD - GD: "))
    else:
        where = "Sec. 3.2, case 4; Table 1"
        found.append(within(f"{name}: in ERM l_1 and l_2 behave similarly", where, per_draw(gd_cd, 0.0), 0.05, what))
        found.append(above(f"{name}: in robust ERM l_1 is better", where, per_draw(gd_cd, 0.25), 0.0, what))
    for a, b in (("gd", "oracle2"), ("cd", "oracle1"), ("diag", "oracle1")):
        far = difference(one, a, b)
        if len(far):
            claim = f"{name}: {a} stopped at L = 1e-3 is close to its limit, the l_{b[-1]} max-margin separator"
            found.append(
                within(claim, "ours", over_m(far.xs(0.25, level="eps")), 0.05, f"gap of {a} - gap of the limit: ")
            )
    return found
