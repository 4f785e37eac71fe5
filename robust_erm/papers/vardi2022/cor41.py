"""Corollary 4.1: only the points on the margin must be nearly orthogonal; there may be any number of others."""

from __future__ import annotations

import numpy as np
import pandas as pd

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.vardi2022 import thm41
from robust_erm.papers.vardi2022.sec6 import NEAR

table, figure = thm41.table, thm41.figure


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of orthogonal points together with copies of them, 1.5 to 3 times as long and of the same label."""
    known = table.reindex(columns=[*table.columns, *({"bound"} - set(table.columns))])
    close, where = known["kkt"] <= NEAR, "Cor. 4.1"
    bound = np.where(close, known["bound"] / known["beyond"], np.nan)
    points = ", ".join(sorted({f"{m} of {n}" for m, n in zip(known["m"], known["n"], strict=True)}))
    return [
        every("Training has come near a KKT point", "Thm 2.1", NEAR - known["kkt"], 0.0,
              f"{NEAR:g} less the residual, slopes at kinks free: ", limit=True),
        every(f"The points on the margin are just the orthogonal ones, {points}", "ours",
              known["own"].astype(float).where(close), 1.0, "1 where so: "),
        every("These satisfy the assumption, all points together do not", where,
              ((known["assumed"] <= 1 + 1e-9) & (3 * known["n"] > known["d"] + 1)).astype(float), 1.0, "1 where so: "),
        every("One vector brings all points on the margin to -1, within the theorem's constants", where, bound, 1.0,
              "bound over length: "),
        every("Its length is O(sqrt(d / (c^2 m))), m the points on the margin: at most 2 sqrt(d / m) / c", where,
              np.where(close, 2 * known["linear"] / known["balance"] / known["beyond"], np.nan), 1.0,
              "bound over length: "),
        every("They flip where the linear max-margin classifier does, at sqrt(d / m)", "ours",
              np.where(close, 0.01 - (known["flip"] / known["linear"] - 1).abs(), np.nan), 0.0,
              "1 % less the relative distance: "),
    ]  # fmt: skip
