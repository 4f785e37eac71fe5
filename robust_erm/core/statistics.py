"""Means over independent draws, with the interval that decides verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy import special

LEGEND = "in brackets: the 95 % t-interval of the mean over the draws"


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean, and half the width of the 95 % t-interval of the mean over independent draws; inf for one draw.

    ``mean +- t_{0.975, n-1} s / sqrt(n)``, s the sample standard deviation. Where a value is not finite, neither is
    the interval.
    """
    x = np.asarray(list(values), dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        return (float(x.mean()) if len(x) else math.nan), math.inf
    return float(x.mean()), float(special.stdtrit(len(x) - 1, 0.975) * x.std(ddof=1) / math.sqrt(len(x)))


def bracketed(mean: float, half: float, number: str = ".3g", unit: str = "", between: str = " ") -> str:
    """``-3.3 [-8.7, 2.1]``; the mean alone where the interval has no end, or all draws agree."""
    shown = f"{mean:{number}}{unit}"
    if half == 0 or not math.isfinite(half):
        return shown
    return f"{shown}{between}[{mean - half:{number}}, {mean + half:{number}}]"
