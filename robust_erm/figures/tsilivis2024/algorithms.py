"""The algorithms of Sec. 5.1: what runs they are, and how figures show them."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from robust_erm.figures.style import COLOURS

LABELS = {
    "gd": "GD",
    "cd": "CD",
    "diag": "diag-net GD",
    "oracle2": r"max margin, $\ell_2$",
    "oracle1": r"max margin, $\ell_1$",
}
STYLES: dict[str, dict[str, Any]] = {
    "gd": {"color": COLOURS[0], "ls": "-", "marker": "o"},
    "cd": {"color": COLOURS[1], "ls": "-", "marker": "s"},
    "diag": {"color": COLOURS[2], "ls": "-", "marker": "^"},
    "oracle2": {"color": COLOURS[0], "ls": ":", "marker": ""},
    "oracle1": {"color": COLOURS[1], "ls": ":", "marker": ""},
}
KEYS = ["k_w", "k_x", "eps", "m", "seed"]


def gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: algorithm, sparsities, m, eps (in units of eps*), seed, and its generalization gaps.

    ``gap`` is robust train minus robust test accuracy at the eps of training, ``gap_clean`` the clean one.
    """
    algorithm = runs["optimizer"].where(runs["model"] != "diagonal", "diag")
    table = pd.DataFrame(
        {"algorithm": algorithm, "d": runs["data.d"], "k_w": runs["data.k_w"], "k_x": runs["data.k_x"]}
    )
    table[["m", "eps", "seed"]] = runs[["data.m", "eps", "seed"]]
    table[["gap", "gap_clean"]] = runs[["gap_robust", "gap_clean"]]
    kept = ["train_robust_acc", "test_robust_acc", "test_clean_acc", "eps_absolute", "status", "step", "folder"]
    table[kept] = runs[kept]
    return table.drop_duplicates("folder").sort_values(["algorithm", *KEYS]).reset_index(drop=True)


def difference(table: pd.DataFrame, one: str, other: str, column: str = "gap") -> pd.Series:
    """``one`` minus ``other``, draw by draw; index: k_w, k_x, eps, m, seed."""
    a, b = (table[table["algorithm"] == name].set_index(KEYS)[column] for name in (one, other))
    return (a - b).dropna()


def over_m(values: pd.Series) -> pd.Series:
    """``1/(m_max - m_min) integral of values dm`` by the trapezoid rule; index as given, without m (Sec. 5.1)."""

    def mean(series: pd.Series) -> float:
        m = series.index.get_level_values("m").to_numpy(dtype=float)
        v = series.to_numpy()
        if len(m) == 1:
            return float(v[0])
        return float(((v[1:] + v[:-1]) / 2 * (m[1:] - m[:-1])).sum() / (m[-1] - m[0]))

    left = [name for name in values.index.names if name != "m"]
    return values.sort_index(level="m").groupby(level=left).apply(mean)


def named_eps(eps: float) -> str:
    """0, eps*/4, eps*/2 or a multiple of eps*, for titles."""
    named = {0.0: r"$\epsilon = 0$", 0.25: r"$\epsilon = \epsilon^*/4$", 0.5: r"$\epsilon = \epsilon^*/2$"}
    return named.get(eps, rf"$\epsilon = {eps:g}\,\epsilon^*$")


def against_m(ax: Axes, table: pd.DataFrame, column: str = "gap") -> None:
    """Mean over draws against m, with the band from the least to the greatest draw."""
    for name, style in STYLES.items():
        rows = table[table["algorithm"] == name]
        if len(rows):
            by_m = rows.groupby("m")[column]
            mean = by_m.mean()
            ax.plot(mean.index, mean, label=LABELS[name], lw=1.2, ms=3, **style)
            if not name.startswith("oracle"):
                ax.fill_between(mean.index, by_m.min(), by_m.max(), color=style["color"], alpha=0.15, lw=0)
    sizes = sorted(table["m"].unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [str(m) for m in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
