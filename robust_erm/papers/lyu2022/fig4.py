"""Fig. 4: 2 against 8 under the l_2-FGM, adversarial and standard training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim
from robust_erm.papers.lyu2022 import margins
from robust_erm.papers.lyu2022.margins import table as table


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Least margin of the training set over rho, the product of the layers' Frobenius norms, against the epoch, a panel
    for each radius of the l_2-FGM (a): adversarial training beside standard training (grey) judged at the same radius;
    then adversarial training from the onset on, where all training points are right. Last (b): the share of training
    points that are right; dotted, of clean ones. Solid: under the FGM. Dashed: at the worst of it and a strong PGD.
    Lines are means over the seeds, bands reach from the least to the greatest.
    """
    groups = {rf"(a) $\epsilon$ = {radius:g}": some for radius, some in table.groupby("radius")}
    return margins.panels(table, groups, clean=True)


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of App. C.2, and what the strong attack leaves of them."""
    return [
        *margins.fits(table, "App. C.2, Fig. 4b; Assumption 4"),
        *margins.rises(table, "App. C.2, Fig. 4a"),
        *margins.beats(table, "App. C.2, Fig. 4a"),
        *margins.positive(table),
        *margins.agrees(table),
        *margins.worse_on_others(table),
        *margins.leaks(table),
        *margins.costs(table),
    ]
