"""What the remedies share: distances over sqrt(d) against one option, beside sqrt(d / k) and sqrt(d / 2)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from robust_erm.reports.style import COLOURS

HALF = math.sqrt(0.5)  # of sqrt(d): half the distance of two orthogonal means
LOOKS = (
    ("attack", "s", "best attack, median"),
    ("certified", "v", "certified, median"),
    ("u99", "o", "universal, 99 %"),
)


def distances(ax: Axes, some: pd.DataFrame, at: pd.Series, dash: str = "-", named: bool = True) -> None:
    """Means over the draws at ``at``, in bands from the least to the greatest, with marks; and both lines."""
    for k, (column, marker, label) in enumerate(LOOKS):
        each = some[column].replace([np.inf], np.nan).groupby(at)
        mean = each.mean()
        ax.plot(mean.index, mean, dash, color=COLOURS[k], marker=marker, ms=3, lw=1.0, label=label if named else None)
        ax.fill_between(mean.index, each.min(), each.max(), color=COLOURS[k], alpha=0.15, lw=0)
    for value, style in ((float(some["unit"].mean()), ":"), (HALF, "-")):
        ax.axhline(value, color="0.4", ls=style, lw=0.8, zorder=0)
