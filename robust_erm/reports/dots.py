"""Comparisons as a dot plot: what each has, and the differences, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_erm.reports.compare import is_share, where
from robust_erm.reports.style import PAGE, colour, rendered, style

MOST = 30  # comparisons in a figure; more cannot be read


def dots(compared: pd.DataFrame, metric: str, setting: Sequence[str]) -> Figure:
    """A row for each comparison, at most :data:`MOST`: on the left the mean of both, on the right their difference.

    Bars are 95 % t-intervals over the seeds; a difference whose bar does not meet the line at 0 would be decided if it
    were the only one.

    Args:
        compared: from :func:`robust_erm.reports.compare.compare`.
        metric: what was compared.
        setting: the columns that a setting is named by.
    """
    shown = compared.head(MOST).reset_index(drop=True)
    scale, unit = (100, "points") if is_share(metric) else (1, "")
    words = list(dict.fromkeys([*shown["first"], *shown["second"]]))
    colours = {word: colour(word, words) for word in words}
    with style():
        height = 0.9 + 0.26 * len(shown)
        fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, height), layout="constrained", sharey=True)
        for k, row in shown.iterrows():
            for name, shift in (("first", -0.12), ("second", 0.12)):
                at = float(k) + shift  # type: ignore[arg-type]
                _dot(left, scale * row[f"mean_{name}"], scale * row[f"half_{name}"], at, colours[row[name]])
            _dot(right, scale * row["difference"], scale * row["half"], float(k), "0.2")  # type: ignore[arg-type]
        right.axvline(0, color="0.7", lw=0.6, zorder=0)
        left.set_yticks(range(len(shown)), [_label(row, setting) for _, row in shown.iterrows()])
        left.invert_yaxis()
        left.set_xlabel(metric + (" (%)" if unit else ""))
        right.set_xlabel("difference" + (f" ({unit})" if unit else ""))
        for word, shade in colours.items():
            left.plot([], [], "o", ms=3.5, color=shade, label=word)
        fig.legend(loc="outside lower center", ncols=min(4, len(words)), frameon=False)
    return fig


def picture(compared: pd.DataFrame, metric: str, setting: Sequence[str], kind: str) -> bytes:
    """:func:`dots` as a ``png``, ``pdf`` or ``svg``."""
    figure = dots(compared, metric, setting)
    found = rendered(figure, kind)
    plt.close(figure)
    return found


def _label(row: pd.Series, setting: Sequence[str]) -> str:
    return "\n".join([f"{row['first']} - {row['second']}", *([", ".join(where(row, setting))] if setting else [])])


def _dot(ax: Axes, mean: float, half: float, at: float, shade: str) -> None:
    ax.errorbar(mean, at, xerr=half if math.isfinite(half) else 0.0, fmt="o", color=shade, ms=3.5, lw=1.0, capsize=1.5)
