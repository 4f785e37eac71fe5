"""Fig. 2: 3 against 8, logistic loss, FGSM and PGD of several radii."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim
from robust_erm.papers.lyu2022 import margins
from robust_erm.papers.lyu2022.margins import table as table


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Least margin of the training set over rho, the product of the layers' Frobenius norms, against the epoch: all of
    training (a), and from the onset on, where all points are right under the attack of training. Right (b): the share
    of training points that are right. Solid: under the attack of training. Dashed: at the worst of it and a strong PGD.
    Lines are means over the seeds, bands reach from the least to the greatest. Grey: standard training under FGSM.
    """
    return margins.panels(table, {"all of training": table})


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of App. C.1, and what the strong attack leaves of them."""
    return [
        *margins.fits(table, "App. C.1, Fig. 2b; Assumption 4"),
        *margins.rises(table, "App. C.1, Fig. 2a"),
        *margins.beats(table, "Sec. 4"),
        *margins.positive(table),
        *margins.agrees(table),
        *margins.worse_on_others(table),
        *margins.costs(table),
    ]
