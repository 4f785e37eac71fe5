"""Rules of verdicts of vilucchio2024's experiment, on made-up accuracies."""

from __future__ import annotations

import pandas as pd
import pytest

from robust_erm.papers.claims import FAILS, HOLDS
from robust_erm.papers.vilucchio2024 import penalty


def made_up(gain: float, gap: float = 0.0) -> pd.DataFrame:
    """Three draws; from few points l_1 gains so much on l_2, from many a tenth of it."""
    rows = [
        {"sweep": sweep, "m": m, "d": 4, "eps": eps, "r": r, "seed": seed, "share": 0.1, "gap": gap}
        | dict.fromkeys(("limit", "tuned"), 0.6 + (r == 1) * (0.001 * seed - 0.01 + (eps > 0) * scale * gain))
        for sweep, m, scale in (("scarce", 8, 1.0), ("ample", 32, 0.1))
        for eps in (0.0, 0.8)
        for r in (1.0, 2.0)
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("gain", "gap", "moves", "exact"), [(0.2, 0.0, HOLDS, HOLDS), (-0.2, 1e-3, FAILS, FAILS)])
def test_the_claims_can_fail(gain: float, gap: float, moves: str, exact: str) -> None:
    found = {claim.claim: claim.verdict for claim in penalty.claims(made_up(gain, gap), pd.DataFrame())}
    assert found["without an attack l_2 is better than l_1 (tuned, 8 points in R^4)"] == HOLDS
    assert found["at eps = 0.8 eps* l_1 is better than l_2 (tuned, 8 points in R^4)"] == moves
    assert found["from eps = 0 to 0.8 eps* l_1 gains on l_2 (tuned, 8 points in R^4)"] == moves
    assert found["the fewer points, the more l_1 gains on l_2 (tuned)"] == moves
    assert found["the penalised problems are solved exactly"] == exact


def test_the_best_exponent_by_draw() -> None:
    table = made_up(0.2)
    scarce = table[table["sweep"] == "scarce"]
    assert list(penalty._best(scarce[scarce["eps"] == 0], "tuned")) == [2.0] * 3
    assert list(penalty._best(scarce[scarce["eps"] > 0], "tuned")) == [1.0] * 3
