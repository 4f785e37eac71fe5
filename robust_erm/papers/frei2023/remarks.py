"""The paper's remarks, a sweep each: noise, start, balance of labels, lengths of means, n > d, beyond separability."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every, stated
from robust_erm.papers.frei2023.sec2 import NEAR
from robust_erm.papers.frei2023.sec2 import table as of_runs
from robust_erm.reports.style import COLOURS, PAGE, style

PANELS = {
    "sigma": ("sigma", r"$\sigma$"), "start": ("init_scale", "start"), "positive": ("positive", "positive clusters"),
    "noise": ("noise", "law of the noise"), "norms": ("norm_spread", "spread of the means' lengths"),
    "many": ("n", "training points n"), "beyond": ("k", "clusters k, random means"),
}  # fmt: skip


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.frei2023.sec2.table`, with what the sweeps vary."""
    found = of_runs(runs)
    own = runs.drop_duplicates("folder").set_index("folder")
    for name in ("positive", "noise", "norm_spread"):
        found[name] = found["folder"].map(own[f"data.{name}"]) if f"data.{name}" in own else np.nan
    return found


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """In units of sqrt(d / k), a mark a run, one thing varied at a time: the vector along ``sum_q y_q mu_q`` that flips
    99 % of the test points (circles) and the median best attack on them (squares). Triangles: test accuracy.
    """
    with style():
        fig, axes = plt.subplots(2, 4, figsize=(PAGE, 3.8), layout="constrained")
        for ax, (sweep, (column, label)) in zip(axes.flat, PANELS.items(), strict=False):
            some = table[table["sweep"] == sweep]
            values = sorted(some[column].dropna().unique())
            at = [values.index(value) for value in some[column]]
            for name, marker, colour in (("u99", "o", 0), ("attack", "s", 1)):
                ax.plot(at, some[name] / some["unit"], marker, color=COLOURS[colour], ms=4, mfc="none", label=name)
            ax.plot(at, some["accuracy"], "^", color=COLOURS[2], ms=3, mfc="none", label="accuracy")
            ax.set_xticks(range(len(values)), [v if isinstance(v, str) else f"{v:g}" for v in values], fontsize=6)
            ax.set(xlabel=label, ylim=(0, None))
        axes[0, 0].legend(frameon=False, fontsize=6)
        axes[-1, -1].set_axis_off()
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of runs that fit their points; near a KKT point where the paper speaks of one."""
    done = table[table["status"] == "converged"]
    by = {name: done[done["sweep"] == name] for name in PANELS}
    close = {name: some[some["kkt"] <= NEAR] for name, some in by.items()}

    def fragile(name: str, bar: float = 1.5) -> pd.Series:
        return bar - close[name]["u99"] / close[name]["unit"]

    text, accuracy = "1.5 less universal vector over sqrt(d / k): ", "test accuracy: "
    beyond = by["beyond"]
    rows = [f"k = {k:g}: {100 * some['accuracy'].mean():.0f} %, universal {(some['u99'] / some['unit']).mean():.2f}, "
            f"attack {(some['attack'] / some['unit']).mean():.2f}" for k, some in beyond.groupby("k")]  # fmt: skip
    found = "; ".join(rows) or "not run"
    tops = beyond[beyond["k"] == beyond["k"].max()]
    return [
        every("sigma -> 0: one short vector flips test points as it flips training points", "Sec. 4", fragile("sigma"),
              0.0, text),
        every("The start does not matter: accuracy", "Sec. 3", by["start"]["accuracy"], 0.99, accuracy),
        every("nor for the best attack, also far from a KKT point", "Sec. 4",
              1.2 - by["start"]["attack"] / by["start"]["unit"], 0.0, "1.2 less median attack over sqrt(d / k): "),
        every("The theorem's 1 / c is loose: few positive clusters make the vector hardly longer", "ours",
              fragile("positive", 1.25), 0.0, "1.25 less universal vector over sqrt(d / k): "),
        every("Noise need not be Gaussian: accuracy", "Sec. 2", by["noise"]["accuracy"], 0.99, accuracy),
        every("nor for the universal vector", "Sec. 2", fragile("noise"), 0.0, text),
        every("Means need not have the same length", "Sec. 2", fragile("norms"), 0.0, text),
        every("n may exceed d: no near orthogonality of points is needed", "Sec. 4.1", fragile("many"), 0.0, text),
        every("and they generalise", "Sec. 4.1", by["many"]["accuracy"], 0.99, accuracy),
        stated("Conjecture of Sec. 5: with k ~ d clusters networks still generalise", "Sec. 5", found,
               bool((tops["accuracy"] >= 0.95).all()) if len(tops) else None),
        stated("and one short vector still flips nearly all points there", "Sec. 5", found,
               bool((tops["u99"] <= 1.5 * tops["unit"]).all()) if len(tops) else None),
    ]  # fmt: skip
