"""Numbers of fan2025's experiments, by hand; rules of verdicts on made-up runs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.fan2025 import rates


def made_up(power: float, unknown: float = 0.0) -> pd.DataFrame:
    """Three draws whose gaps are powers of t."""
    steps = np.unique(np.logspace(0, 4, 41).astype(int))
    each = [pd.DataFrame({"seed": seed, "step": steps, "gap": (1 + seed) * steps**power}) for seed in range(3)]
    table = pd.concat(each).assign(optimizer="gd", robust=False, norm="l2")
    return table.assign(sure=table["gap"] > rates.SURE * unknown)


def test_slopes_of_powers() -> None:
    found = rates.slopes(made_up(-0.5))
    assert len(found) == 3
    assert list(found["power"]) == pytest.approx([-0.5] * 3)
    late = np.log(np.array([1e3, 1e4]))
    drift = -np.diff(np.log(late))[0] / np.diff(late)[0]  # of -log log t
    assert list(found["left"]) == pytest.approx([drift] * 3, rel=0.05)


@pytest.mark.parametrize(
    ("power", "unknown", "bound", "no_faster"),
    [
        (-0.5, 0.0, HOLDS, HOLDS),
        (-0.3, 0.0, FAILS, FAILS),
        (-0.9, 0.0, HOLDS, FAILS),
        (-0.5, 0.1, UNDECIDED, UNDECIDED),
    ],
)
def test_the_rate_can_fail(power: float, unknown: float, bound: str, no_faster: str) -> None:
    found = [claim.verdict for claim in rates.claims(made_up(power, unknown), pd.DataFrame())]
    assert found == [bound, no_faster, HOLDS]
    assert math.isnan(rates.slopes(made_up(power, unknown))["power"].iloc[0]) == (unknown > 0)
