"""Lemma 3.1: how nearly orthogonal points drawn on the sphere are, against the bounds on it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.streams import numpy_stream
from robust_erm.papers.claims import Claim, every
from robust_erm.reports.style import COLOURS, COLUMN, style

DRAWS = 1000
POWERS = (0.5, 1.0)  # k: m = d^k


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each d of the runs and k: shares of 1,000 draws of ``m = floor(d^k)`` points, and the bounds.

    ``half``: of draws with all ``|<x_i, x_j>| <= 1/2`` on the unit sphere, ``half_bound = 1 - d^(2k+1)
    (3/4)^((d-3)/2)``; ``log``: with all at most ``log(d) / sqrt(d)``, ``log_bound = 1 - d^(2k+1-ln(d)/4)``;
    ``median``: of ``max |<x_i, x_j>|``; ``allowed``: the median over the draws of the greatest m' for which the first
    m' points satisfy the assumption of Thm 4.1.
    """
    return pd.DataFrame([_row(int(d), k) for d in sorted(runs["data.d"].unique()) for k in POWERS])


def _row(d: int, k: float) -> dict[str, float]:
    m, rng = math.floor(d**k + 1e-9), numpy_stream(d, f"lemma31 {k:g}")
    largest, allowed = np.empty(DRAWS), np.empty(DRAWS)
    for draw in range(DRAWS):
        x = rng.standard_normal((m, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        inner = np.abs(np.tril(x @ x.T, -1)).max(1)  # of each point with those before it
        largest[draw] = inner.max()
        running = d * np.maximum.accumulate(inner)
        allowed[draw] = (3 * np.arange(1, m + 1) * (running + 1) <= d + 1).sum()
    found = {"d": d, "k": k, "m": m, "median": float(np.median(largest)), "allowed": float(np.median(allowed))}
    found |= {"half": float((largest <= 0.5).mean()), "half_bound": 1 - d ** (2 * k + 1) * 0.75 ** ((d - 3) / 2)}
    bar = math.log(d) / math.sqrt(d)
    found |= {"log": float((largest <= bar).mean()), "log_bound": 1 - d ** (2 * k + 1 - math.log(d) / 4)}
    return {**found, "bar": bar}


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The median over 1,000 draws of the largest inner product of two of m = d^k points on the unit sphere, against d;
    grey: 1/2 (dashed) and log(d) / sqrt(d) (dotted), which the lemma bounds it by.
    """
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.4), layout="constrained")
        for colour, (k, some) in zip(COLOURS, table.groupby("k"), strict=False):
            ax.plot(some["d"], some["median"], "o-", color=colour, ms=3, lw=1.1, label=rf"$m = d^{{{k:g}}}$")
        some = table.drop_duplicates("d")
        ax.plot(some["d"], some["bar"], ":", color="0.4", lw=0.9, label=r"$\log(d) / \sqrt{d}$")
        ax.axhline(0.5, color="0.4", ls="--", lw=0.9, label="1/2")
        ax.set(xlabel="d", ylabel=r"$\max |\langle x_i, x_j \rangle|$", ylim=(0, 1))
        ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """The bounds hold where they say something, and much more is true."""
    where, text = "Lemma 3.1", "frequency less bound, where that is positive: "
    half, log = (table.loc[table[f"{name}_bound"] > 0] for name in ("half", "log"))
    few, large = table[table["k"] == 0.5], table[table["d"] >= 100]
    return [
        every("All |<x_i, x_j>| <= 1/2, at least as often as the lemma says", where,
              half["half"] - half["half_bound"], 0.0, text),
        every("All are at most log(d) / sqrt(d), at least as often", where,
              log["log"] - log["log_bound"], 0.0, text),
        every("All are at most 1/2 in 99 % of draws, for d of at least 100, whatever the bound", "ours",
              large["half"], 0.99, "frequency: "),
        every("and at most log(d) / sqrt(d)", "ours", large["log"], 0.99, "frequency: "),
        every("m = sqrt(d) points satisfy the assumption of Thm 4.1", "Sec. 6.1", few["allowed"] / few["m"], 1.0,
              "median number of points that do, over sqrt(d): "),
    ]  # fmt: skip
