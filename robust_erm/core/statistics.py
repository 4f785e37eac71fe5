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


def slope(x: Iterable[float], y: Iterable[float]) -> tuple[float, float]:
    """Least-squares slope of y on x, and half the width of its 95 % t-interval (n - 2 degrees of freedom).

    ``b = S_xy / S_xx``, half width ``t_{0.975, n-2} sqrt((S_yy - b S_xy) / ((n - 2) S_xx))``; inf for fewer than three
    points or two places, and (nan, inf) where a value is not finite.
    """
    u, v = np.asarray(list(x), dtype=float), np.asarray(list(y), dtype=float)
    if not (np.isfinite(u).all() and np.isfinite(v).all()) or len(set(u)) < 2:
        return math.nan, math.inf
    u, v = u - u.mean(), v - v.mean()
    b = float(u @ v / (u @ u))
    if len(u) < 3:
        return b, math.inf
    rest = max(0.0, float(v @ v - b * (u @ v)))
    return b, float(special.stdtrit(len(u) - 2, 0.975) * math.sqrt(rest / (len(u) - 2) / (u @ u)))


def bracketed(mean: float, half: float, number: str = ".3g", unit: str = "", between: str = " ") -> str:
    """``-3.3 [-8.7, 2.1]``; the mean alone where the interval has no end, or all draws agree."""
    shown = f"{mean:{number}}{unit}"
    if half == 0 or not math.isfinite(half):
        return shown
    return f"{shown}{between}[{mean - half:{number}}, {mean + half:{number}}]"
