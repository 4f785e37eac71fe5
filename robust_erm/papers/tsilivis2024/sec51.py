"""The algorithms of Sec. 5.1: what runs they are, and how figures show them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from robust_erm.papers.claims import Claim, by_draw, stated
from robust_erm.reports.style import COLOURS, OF_OPTIMIZER

LABELS = {
    "gd": "GD",
    "cd": "CD",
    "diag": "diag-net GD",
    "oracle2": r"max margin, $\ell_2$",
    "oracle1": r"max margin, $\ell_1$",
}
STYLES: dict[str, dict[str, Any]] = {
    "gd": {"color": OF_OPTIMIZER["gd"], "ls": "-", "marker": "o"},
    "cd": {"color": OF_OPTIMIZER["cd"], "ls": "-", "marker": "s"},
    "diag": {"color": COLOURS[2], "ls": "-", "marker": "^"},
    "oracle2": {"color": OF_OPTIMIZER["gd"], "ls": ":", "marker": ""},
    "oracle1": {"color": OF_OPTIMIZER["cd"], "ls": ":", "marker": ""},
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
    """``one`` minus ``other``, draw by draw; index: k_w, k_x, eps, m, seed.

    It is nan where one of them is missing, at sparsities and radii at which both are known anywhere.
    """
    a, b = (table[table["algorithm"] == name].set_index(KEYS)[column] for name in (one, other))
    found = a - b
    return found[found.notna().groupby(level=["k_w", "k_x", "eps"]).transform("any")]


def over_m(values: pd.Series) -> pd.Series:
    """``1/(m_max - m_min) integral of values dm`` by the trapezoid rule; index as given, without m (Sec. 5.1).

    A draw that lacks some of the sizes is nan: an average over others would be another quantity.
    """
    sizes = sorted(set(values.index.get_level_values("m")))
    left = [name for name in values.index.names if name != "m"]

    def mean(series: pd.Series) -> float:
        m, v = series.index.get_level_values("m").to_numpy(dtype=float), series.to_numpy()
        if len(m) < len(sizes):
            return math.nan
        return float(v[0] if len(m) == 1 else ((v[1:] + v[:-1]) / 2 * (m[1:] - m[:-1])).sum() / (m[-1] - m[0]))

    return values.sort_index(level="m").groupby(level=left).apply(mean)


def per_draw(values: pd.Series, eps: float) -> pd.Series:
    """The plain mean over the sizes m at ``eps``, draw by draw: as a curve over log m is seen; nan where one lacks."""
    return by_draw(values[values.index.get_level_values("eps") == eps])


def furthest(values: pd.Series, eps: float) -> tuple[pd.Series, int]:
    """The draws at ``eps`` and the m where their mean is furthest from 0, and that m."""
    some = values[values.index.get_level_values("eps") == eps].dropna()
    if not len(some):
        return some, 0
    means = some.groupby(level="m").mean().abs()
    m = int(means.index[int(means.argmax())])
    return some.xs(m, level="m"), m


def reached(runs: pd.DataFrame) -> list[Claim]:
    """App. F.1's protocol: robust on all training points (sparse points at m = 2 d excepted), and L <= 1e-3."""
    trained = runs[~runs["optimizer"].str.startswith("oracle")]
    below = trained[trained["train_robust_acc"] < 1]
    elsewhere = below[(below["data.k_x"] == below["data.d"]) | (below["data.m"] < 2 * below["data.d"])]
    claim = "all runs reach 100 % robust train accuracy, but for sparse points at m = 2 d"
    least = f", the least {100 * float(below['train_robust_acc'].min()):.2f} %" if len(below) else ""
    text = f"{len(below)} of {len(trained)} runs below 100 %{least}; {len(elsewhere)} with dense points or m < 2 d"
    found = [stated(claim, "App. F.1", text, not len(elsewhere) if len(trained) else None)]
    left = trained[trained["status"] != "converged"]
    kinds = left.groupby([left["optimizer"].where(left["model"] != "diagonal", "diag"), "data.m"]).size()
    where = ", ".join(f"{key[0]} at m = {key[1]}: {n}" for key, n in zip(kinds.index, kinds, strict=True))
    text = f"{len(left)} of {len(trained)} runs stop at the last step instead" + (f" ({where})" if where else "")
    verdict = not len(left) if len(trained) else None
    return [*found, stated("all runs are stopped at the same training loss, 1e-3", "App. F.1", text, verdict)]


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
