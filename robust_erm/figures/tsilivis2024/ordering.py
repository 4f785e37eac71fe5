"""Table 1: which regularization generalizes better, expected beside measured, for each distribution."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.claims import Claim, above, within
from robust_erm.figures.style import COLOURS, PAGE, style
from robust_erm.figures.tsilivis2024.algorithms import difference, gaps, named_eps, over_m

SIMILAR = 0.05  # points / 100: our reading of "similar"
EXPECTED = {  # (sparse teacher, sparse points): at eps = 0, and as eps grows
    (True, True): ("similar", "l1"),
    (True, False): ("l1", "l1"),
    (False, True): ("l2", "l2"),
    (False, False): ("similar", "similar"),
}
PAIRS = {"trained": ("gd", "cd"), "limit": ("oracle2", "oracle1")}


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a distribution, eps, draw and kind: the gap of l_2 less that of l_1, averaged over m."""
    found = gaps(runs[runs["data.d"] == runs["data.d"].max()])  # without the two-dimensional example
    d = int(found["d"].iloc[0])
    parts = []
    for kind, (two, one) in PAIRS.items():
        part = over_m(difference(found, two, one)).rename("benefit").reset_index().assign(kind=kind)
        parts.append(part)
    joined = pd.concat(parts, ignore_index=True)
    joined["sparse_w"], joined["sparse_x"] = joined["k_w"] < d, joined["k_x"] < d
    words = [
        EXPECTED[w, x][int(eps > 0)]
        for w, x, eps in zip(joined["sparse_w"], joined["sparse_x"], joined["eps"], strict=True)
    ]
    return joined.assign(expected=words)


def _words(sparse_w: bool, sparse_x: bool) -> str:
    return f"{'sparse' if sparse_w else 'dense'} teacher, {'sparse' if sparse_x else 'dense'} x"


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The table: a panel a distribution, benefit of l_1 over l_2 at each eps, trained and in the limit."""
    radii = sorted(table["eps"].unique())
    with style():
        fig, axes = plt.subplots(2, 2, figsize=(PAGE, 3.8), layout="constrained", sharey=True, sharex=True)
        for ax, (w, x) in zip(axes.flat, EXPECTED, strict=True):
            some = table[(table["sparse_w"] == w) & (table["sparse_x"] == x)]
            for k, (kind, colour) in enumerate(zip(PAIRS, COLOURS, strict=False)):
                for j, eps in enumerate(radii):
                    values = 100 * some[(some["kind"] == kind) & (some["eps"] == eps)]["benefit"]
                    at = j + 0.24 * (k - 0.5)
                    ax.bar(at, values.mean(), 0.22, color=colour, alpha=0.75, label=kind if j == 0 else None)
                    ax.plot([at] * len(values), values, "o", color="black", ms=2)
            for j, word in enumerate(EXPECTED[w, x]):
                text = {"similar": "similar", "l1": r"$\ell_1$ better", "l2": r"$\ell_2$ better"}[word]
                ax.annotate(text, (j, 0.94), xycoords=("data", "axes fraction"), ha="center", fontsize=6, color="0.35")
            ax.axhspan(-100 * SIMILAR, 100 * SIMILAR, color="0.93", zorder=0)
            ax.axhline(0, color="0.5", lw=0.6)
            ax.set_title(_words(w, x))
            ax.set_xticks(range(len(radii)), [named_eps(e) for e in radii])
        for ax in axes[:, 0]:
            ax.set_ylabel(r"gap of $\ell_2$ - gap of $\ell_1$, points")
        axes[0, 0].legend(frameon=False, fontsize=6, loc="lower right", title="grey text: expected", title_fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Each cell of Table 1 at each eps, for the trained models and for their limits."""
    found = []
    for kind, (w, x) in ((kind, cell) for cell in EXPECTED for kind in PAIRS):
        some = table[(table["sparse_w"] == w) & (table["sparse_x"] == x) & (table["kind"] == kind)]
        for eps in sorted(some["eps"].unique()):
            values = some[some["eps"] == eps]["benefit"]
            word = EXPECTED[w, x][int(eps > 0)]
            name = f"{_words(w, x)}, eps = {eps:g} eps*, {kind}: "
            text = "gap of l_2 - gap of l_1: "
            if word == "similar":
                found.append(within(name + "l_1 and l_2 similar", "Table 1", values, SIMILAR, text))
            else:
                sign = 1 if word == "l1" else -1
                text = text if sign == 1 else "gap of l_1 - gap of l_2: "
                found.append(above(name + f"l_{word[1]} better", "Table 1", sign * values, 0.0, text))
    return found
