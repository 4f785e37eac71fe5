"""Fig. 6: the clean benefit of the models of Fig. 2 (right); nothing is trained twice."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, above
from robust_erm.papers.tsilivis2024.fig2_right import benefits, heatmaps
from robust_erm.papers.tsilivis2024.sec51 import reached


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """See :func:`robust_erm.papers.tsilivis2024.fig2_right.benefits`."""
    return benefits(runs, "gap_clean")


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """As Fig. 2 right, for the clean generalization gap: GD's less CD's, averaged over m and over the draws, in points.
    A panel for each sparsity of the teacher, the points' sparsity across, eps upwards; below, the same of the limits.
    """
    return heatmaps(table, "benefit of CD over GD (clean generalization gap)")


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """What App. E says of Fig. 6."""
    d, eps = int(table["d"].iloc[0]), float(table["eps"].max())

    def dense(values: pd.DataFrame) -> pd.Series:
        return values[(values["k_w"] == d) & (values["k_x"] == d) & (values["eps"] == eps)].set_index("seed")["gd - cd"]

    claim = f"dense, dense, eps = {eps:g} eps*: GD generalizes better than CD in clean error"
    found = [above(claim, "App. E, Fig. 6", -dense(table), 0.0, "CD - GD: ")]
    claim = "even though it is the other way around for robustness"
    found.append(above(claim, "App. E", dense(benefits(runs, "gap")), 0.0, "robust gaps, GD - CD: "))
    return [*found, *reached(runs)]
