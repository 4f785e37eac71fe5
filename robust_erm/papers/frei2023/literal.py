"""All claims where Assumption 2.2 holds as it is printed."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.frei2023 import sec2
from robust_erm.papers.frei2023.sec2 import LABELS, close
from robust_erm.papers.reproduced import parameters
from robust_erm.reports.style import COLOURS, COLUMN, style
from robust_erm.store.reading import run_of


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.frei2023.sec2.table`, with ``population``, a certified bound on the population error,
    and ``allowed_error``, ``4 n / d^(ln(d) / 2)``: the least eps that Thm 3.1 lets one ask for with n points.
    """
    found = sec2.table(runs)
    errors = []
    for folder in found["folder"]:
        one = run_of(folder)
        errors.append(sec2.population_error(parameters(folder), one.data, one.seed))
    allowed = 4 * found["n"] / found["d"].map(lambda d: d ** (math.log(d) / 2))
    return found.assign(population=errors, allowed_error=allowed)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """In sizes that satisfy Assumption 2.2 as printed: the vector that flips 99 % of the test points (circles), the
    median best attack (squares) and what is certified of it (triangles), in units of sqrt(d / k), a mark a run. Dashes:
    the length that the proof of Thm 4.2 allows, constants ours.
    """
    cells = sorted({(d, k) for d, k in zip(table["d"], table["k"], strict=True)})
    with style():
        fig, ax = plt.subplots(figsize=(COLUMN, 2.6), layout="constrained")
        for column, marker, colour in (("u99", "o", 0), ("attack", "s", 1), ("certified", "v", 2), ("allowed", "_", 7)):
            at = [cells.index((d, k)) for d, k in zip(table["d"], table["k"], strict=True)]
            if column in table:
                ax.plot(
                    at,
                    table[column] / table["unit"],
                    marker,
                    color=COLOURS[colour],
                    ms=5,
                    mfc="none",
                    label=LABELS[column],
                )
        ax.set_xticks(range(len(cells)), [f"d = {d:,}\nk = {k}" for d, k in cells])
        ax.set(ylabel=r"length / $\sqrt{d/k}$", ylim=(0, None))
        ax.legend(frameon=False, fontsize=6)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """The theorems themselves; but that each cluster has as many training points, where the paper draws them."""
    known = table.reindex(columns=[*table.columns, *({"allowed"} - set(table.columns))])
    near = close(known)
    wanted = known["k"] * known["d"].map(math.log) ** 2
    return [
        every("Assumption 2.2 holds as printed, and n >= k ln(d)^2", "Ass. 2.2",
              ((known["kind"] == "literal") & (known["n"] >= wanted)).astype(float), 1.0, "1 where so: "),
        every("Training comes near a KKT point", "Thm 2.1", sec2.NEAR - known["kkt"], 0.0, "0.1 less the residual: ",
              limit=True),
        every("The test points are classified correctly", "Thm 3.1", near["accuracy"], 1.0, "test accuracy: "),
        every("The population error is at most 4 n / d^(ln(d) / 2), certified: no sample shows so little", "Thm 3.1",
              near["allowed_error"] - near["population"], 0.0,
              f"{known['allowed_error'].max():.0e} or less is allowed; that less the bound: "),
        every("One vector along sum_q y_q mu_q flips 99 % of the test points, within the proof's constants", "Thm 4.2",
              near["allowed"] / near["u99"], 1.0, "bound over length: "),
        every("it is as long as sqrt(d / k), to 5 %", "ours", 0.05 - (near["u99"] / near["unit"] - 1).abs(), 0.0,
              "5 % less the relative difference: "),
        every("and flips all of them at 1.1 times that", "Thm 4.2", 1.1 - near["u100"] / near["unit"], 0.0,
              "1.1 less length over sqrt(d / k): "),
        every("No attack on single points does better, by more than 5 %", "ours", near["attack"] / near["u99"], 0.95,
              "median best attack over the universal vector: "),
    ]  # fmt: skip
