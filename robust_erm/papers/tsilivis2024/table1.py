"""Table 1: which regularization generalizes better, expected beside measured, for each distribution."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above, within
from robust_erm.papers.tsilivis2024.sec51 import difference, furthest, gaps, named_eps, per_draw
from robust_erm.reports.style import COLOURS, PAGE, style

SIMILAR = 0.05  # points / 100: our reading of "similar"
EXPECTED = {  # (sparse teacher, sparse points): at eps = 0, and as eps grows
    (True, True): ("similar", "l1"),
    (True, False): ("l1", "l1"),
    (False, True): ("l2", "l2"),
    (False, False): ("similar", "similar"),
}
PAIRS = {"trained": ("gd", "cd"), "limit": ("oracle2", "oracle1")}


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a distribution, m, eps, draw and kind: the gap of l_2 less that of l_1."""
    found = gaps(runs[runs["data.d"] == runs["data.d"].max()])  # without the two-dimensional example
    d = int(found["d"].iloc[0])
    parts = []
    for kind, (two, one) in PAIRS.items():
        parts.append(difference(found, two, one).rename("benefit").reset_index().assign(kind=kind))
    joined = pd.concat(parts, ignore_index=True).assign(d=d)
    cells = zip(joined["k_w"] < d, joined["k_x"] < d, joined["eps"] > 0, strict=True)
    return joined.assign(expected=[EXPECTED[w, x][int(more)] for w, x, more in cells])


def _distributions(table: pd.DataFrame) -> list[tuple[int, int]]:
    """(k_w, k_x), sparse ones first."""
    return sorted({(int(w), int(x)) for w, x in zip(table["k_w"], table["k_x"], strict=True)})


def _words(w: int, x: int, d: int) -> str:
    return f"{'dense' if w == d else f'{w}-sparse'} teacher, {'dense' if x == d else f'{x}-sparse'} x"


def _of(table: pd.DataFrame, w: int, x: int, kind: str) -> pd.Series:
    some = table[(table["k_w"] == w) & (table["k_x"] == x) & (table["kind"] == kind)]
    return some.set_index(["eps", "m", "seed"])["benefit"]


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Robust generalization gap of the l_2 algorithm (or limit) less that of the l_1 one, averaged over m, a panel for
    each distribution, in points: bars are means over the draws, dots the draws. Grey: what counts as similar. Above:
    what Table 1 of the paper expects.
    """
    radii, d = sorted(table["eps"].unique()), int(table["d"].iloc[0])
    places = _distributions(table)
    columns = min(3, len(places))
    rows = -(-len(places) // columns)
    with style():
        fig, axes = plt.subplots(
            rows, columns, figsize=(PAGE, 2.1 * rows), layout="constrained", sharey=True, squeeze=False
        )
        for ax, (w, x) in zip(axes.flat, places, strict=False):
            for k, (kind, colour) in enumerate(zip(PAIRS, COLOURS, strict=False)):
                for j, eps in enumerate(radii):
                    values = 100 * per_draw(_of(table, w, x, kind), eps)
                    at = j + 0.24 * (k - 0.5)
                    ax.bar(at, values.mean(), 0.22, color=colour, alpha=0.75, label=kind if j == 0 else None)
                    ax.plot([at] * len(values), values, "o", color="black", ms=2)
            ax.axhspan(-100 * SIMILAR, 100 * SIMILAR, color="0.93", zorder=0)
            ax.axhline(0, color="0.5", lw=0.6)
            ax.set_title(_words(w, x, d), fontsize=8, pad=14)
            names = {"similar": "similar", "l1": r"$\ell_1$ better", "l2": r"$\ell_2$ better"}
            for j, eps in enumerate(radii):
                text = f"expected: {names[EXPECTED[w < d, x < d][int(eps > 0)]]}"
                ax.annotate(text, (j, 1.02), xycoords=("data", "axes fraction"), ha="center", fontsize=6, color="0.35")
            ax.set_xticks(range(len(radii)), [named_eps(e) for e in radii])
        for ax in list(axes.flat)[len(places) :]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel(r"gap of $\ell_2$ - gap of $\ell_1$, points")
        axes[0, 0].legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Each cell of Table 1 at each eps, trained and in the limit.

    "Similar": within five points at the m where they differ most; "better": on average over the sizes m.
    """
    found = []
    d = int(table["d"].iloc[0])
    for w, x in _distributions(table):
        for kind in PAIRS:
            values = _of(table, w, x, kind)
            for eps in sorted(table["eps"].unique()):
                word = EXPECTED[w < d, x < d][int(eps > 0)]
                name = f"{_words(w, x, d)}, eps = {eps:g} eps*, {kind}: "
                text = "gap of l_2 - gap of l_1"
                if word == "similar":
                    some, m = furthest(values, eps)
                    text = f"{text}, where it is greatest, m = {m}: "
                    found.append(within(name + "l_1 and l_2 similar", "Table 1", some, SIMILAR, text))
                else:
                    sign = 1 if word == "l1" else -1
                    text = f"{text if sign == 1 else 'gap of l_1 - gap of l_2'}, mean over m: "
                    found.append(above(f"{name}l_{word[1]} better", "Table 1", sign * per_draw(values, eps), 0.0, text))
    return found
