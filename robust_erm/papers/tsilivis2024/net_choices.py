"""What App. F.2 leaves open for nets: the step size, and which of its choices move the gap between SD and GD."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim
from robust_erm.papers.tsilivis2024 import net_gap, net_steps
from robust_erm.reports.style import PAGE, style

STEPS = ("steps", "mean", "scale")  # sweeps of GD alone


def _parts(runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    alone = runs["sweep"].isin(STEPS)
    return runs[alone], runs[~alone]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`net_steps.table`, then those of :func:`net_gap.table`; ``part`` says which."""
    alone, gap = _parts(runs)
    found = {"steps": net_steps.table(alone), "gap": net_gap.table(gap)}
    return pd.concat([rows.assign(part=part) for part, rows in found.items()], ignore_index=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left: robust train accuracy of GD against steps times eta, means over the draws; curves of one trajectory, taken
    in steps of another size, lie on each other. Right: robust test accuracy of SD less that of GD, mean and 95 %
    t-interval over the draws, for each choice of images, step of SD and end; filled: the attack of training, under
    which all test points are seen; open: the strong attacks. Grey: nets that are not robust on all training points;
    some of these gaps, and of the strong attacks' intervals, end beyond the axis. The dashed line is the paper's 4.11.
    """
    alone, _ = _parts(runs)
    with style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.4), layout="constrained", width_ratios=(2, 3))
        net_steps.draw(left, table[table["part"] == "steps"], alone)
        net_gap.draw(right, table[table["part"] == "gap"])
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """How long training takes; then what each choice moves."""
    steps, gap = (table[table["part"] == part] for part in ("steps", "gap"))
    return [*net_steps.claims(steps), *net_gap.claims(gap)]
