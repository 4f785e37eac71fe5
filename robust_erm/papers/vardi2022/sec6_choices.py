"""What Sec. 6 leaves open: reduction, growth of the step, precision, loss, distribution of the points, start."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every, spread, stated
from robust_erm.papers.vardi2022.sec6 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style

NAMES = {
    "base": "mean, float64", "sum": "sum", "faster": "step grows faster", "slower": "step grows slower",
    "single": "float32", "logistic": "logistic loss", "gaussian": "Gaussian points", "small_start": "start 0.01",
}  # fmt: skip
PRINTED = ("printed_sum", "printed_mean")


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.vardi2022.sec6.table`; ``sweep`` names the choice; ``scaled``, c in units of the
    points' length over sqrt(d), so that Gaussian points can be compared.
    """
    found = of_runs(runs)
    scale = np.where(found["sweep"] == "gaussian", found["sqrt_d"], 1.0)
    found = found.assign(scaled=found["c"] * scale, scaled_median=found["median"] * scale)
    return found.assign(log_loss=found["folder"].map(runs.drop_duplicates("folder").set_index("folder")["log_loss"]))


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The length c that flips all points on the margin, a mark a run, a colour a draw of the points, for each choice
    that Sec. 6 leaves open; Gaussian points scaled to a mean length of sqrt(d). Triangles: the median flip along z.
    Grey: sqrt(d).
    """
    known = [name for name in NAMES if name in set(table["sweep"])]
    with style():
        fig, ax = plt.subplots(figsize=(PAGE, 2.6), layout="constrained")
        for _, run in table[table["sweep"].isin(known)].iterrows():
            at, colour = known.index(run["sweep"]), COLOURS[int(run["seed"]) % len(COLOURS)]
            ax.plot(at, run["scaled"], "o", color=colour, ms=4, mfc="none")
            ax.plot(at, run["scaled_median"], "^", color=colour, ms=3, mfc="none")
        ax.axhline(table.loc[table["sweep"] == "base", "sqrt_d"].mean(), color="0.6", lw=0.8)
        ax.set_xticks(range(len(known)), [NAMES[name] for name in known], fontsize=6)
        ax.set(ylabel="length", ylim=(0, None))
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Pairs on the same points and from the same start."""
    done = table[table["status"] == "converged"].set_index("seed")
    base = done[done["sweep"] == "base"]["c"]

    def close(name: str, claim: str, where: str, tolerance: float) -> Claim:
        own = done[done["sweep"] == name]["c"]
        text = f"{100 * tolerance:g} % less the relative difference of c: "
        return every(claim, where, (tolerance - (own / base - 1).abs()).dropna(), 0.0, text)

    found = [
        close("sum", "Sum (eq. 1) or mean: no difference, where both can be trained", "ours", 0.01),
        close("faster", "How fast the step grows makes no difference, down to where it is stable", "ours", 0.01),
        close("slower", "nor does a slower growth", "ours", 0.01),
        close("single", "float32 makes no difference", "ours", 0.01),
        close("logistic", "The logistic loss gives similar results", "Sec. 6", 0.02),
    ]
    for name, claim, where in (
        ("gaussian", "Gaussian points: one vector shorter than sqrt(d) flips all points there too", "Sec. 6"),
        ("small_start", "A start of 0.01: c stays below sqrt(d)", "ours"),
    ):
        own = done[done["sweep"] == name]
        text = f"c over that of the base: {spread((own['scaled'] / base).dropna(), percent=False)}; "
        text += f"share on the margin {own['share'].mean():.2f}; sqrt(d) over c: "
        found.append(every(claim, where, own["sqrt_d"] / own["scaled"], 1.0, text))
    return [*found, *_printed(*(table[table["sweep"] == name] for name in PRINTED))]


def _printed(summed: pd.DataFrame, averaged: pd.DataFrame) -> list[Claim]:
    """Of the first steps as they are printed."""
    if summed.empty or averaged.empty:
        return []
    first = summed.iloc[0]
    words = [", ".join(sorted(set(some["status"]))) for some in (summed, averaged)]
    text = f"d = {first['d']:,}, m = {first['m']:,}, width {first['width']:,}: with the sum {words[0]} at step "
    text += f"{first['step']:g}, with the mean {words[1]} at step {averaged.iloc[0]['step']:g}"
    works = bool((summed["status"] == "diverged").all() and (averaged["status"] != "diverged").all())
    claim = "With eq. (1)'s sum the printed step of 1e-5 diverges at once at the paper's sizes, with the mean not"
    return [stated(claim, "ours", text, works)]
