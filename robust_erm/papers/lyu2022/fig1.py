"""Fig. 1: ten classes of MNIST, FGSM and PGD, adversarial and standard training."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim
from robust_erm.papers.lyu2022 import margins
from robust_erm.papers.lyu2022.margins import table as table


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Least margin of the training set over rho, the product of the layers' Frobenius norms, against the epoch: of
    FGSM (a) and PGD training (b) beside standard training (grey), judged under the same attack; of adversarial training
    from the onset on, where all training points are right (c). Last: the share of training points that are right.
    Solid: under the attack of training. Dashed: at the worst of it and a strong PGD. Lines are means over the seeds,
    bands reach from the least to the greatest.
    """
    return margins.panels(
        table, {f"({k}) {attack}": some for k, (attack, some) in zip("ab", table.groupby("attack"), strict=True)}
    )


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of Sec. 4, and what the strong attack leaves of them."""
    return [
        *margins.fits(table, "Assumption 4"),
        *margins.rises(table, "Sec. 4, Fig. 1a, b"),
        *margins.rises(_late(table), "Sec. 4, Fig. 1c", under=", in the last half of the longest training,"),
        *margins.beats(table, "Sec. 4, Fig. 1a, b"),
        *margins.positive(table),
        *margins.agrees(table),
        *margins.worse_on_others(table),
        *margins.costs(table),
    ]


def _late(table: pd.DataFrame) -> pd.DataFrame:
    """The last half of the longest runs under FGSM."""
    own = table[(table["attack"] == "FGSM") & (table["eps"] > 0)]
    longest = own[own.groupby("folder")["epoch"].transform("max") == own["epoch"].max()]
    late: pd.DataFrame = longest[longest["epoch"] >= longest["epoch"].max() / 2]
    return late
