"""Numbers of minibatch2026's experiment, each from another formula; rules of verdicts on made-up runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array
from robust_erm.data.gaussian import Gaussian
from robust_erm.oracles.margin import max_margin
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.lyu2022.separators import apart
from robust_erm.papers.minibatch2026 import batch_size
from robust_erm.papers.minibatch2026.per_sample import fixed_point


def signed(scale: str, seed: int = 0) -> Array:
    drawn = Gaussian(d=10, m=5, k_w=10, k_x=10, m_test=5, scale=scale).draw(seed)
    return np.asarray(drawn.x_train * drawn.y_train[:, None])


def test_of_points_of_signs_it_is_the_l2_separator() -> None:
    """Entries of one size make D a multiple of the identity."""
    z = signed("signs")
    assert set(np.unique(z)) == {-1.0, 1.0}
    found = fixed_point(z, np.inf, 0.0)
    assert found.found
    assert apart(found.w, max_margin(z, 2).w) < 1e-12


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_it_is_where_steps_of_rms_of_single_gradients_lead(eps: float) -> None:
    """The flow that beta2 near 1 makes of Adam: all g_i over the root of the sum of their squares, an l_2 threat."""
    z = signed("none")
    found, w = fixed_point(z, 2.0, eps), np.zeros(10)
    for _ in range(6_000):
        a = z - (eps * w / np.linalg.norm(w) if w.any() else 0.0)
        r = np.exp(-(score := z @ w) + score.min())
        w += 0.01 * (r @ a) / np.sqrt((r[:, None] ** 2 * a**2).sum(0))
    assert found.found
    assert apart(w, found.w) < 1e-3 < 5e-3 < apart(max_margin(z, 2).w, found.w)


def test_rounds_that_do_not_rest_are_told() -> None:
    """Entries of w that an l_inf threat keeps at 0 have no sign."""
    z = signed("none")
    assert not fixed_point(z, np.inf, 0.6 * max_margin(z, np.inf).value).found


def made_up(adam: float, apart: float, short: float) -> pd.DataFrame:
    """Ratios of three draws: at batch sizes 1 and 2, of which 2 are all."""
    rng = numpy_stream(0, "made up")
    rows = [
        {"optimizer": name, "threat": "clean", "batch": batch, "seed": seed, "l1": 0.5, "l2": 0.97, "linf": linf,
         "apart": apart, "apart_l2": 0.01} | {"linf": linf + 1e-3 * rng.random()}
        for name in batch_size.NAMES
        for batch, linf in ((1, {"adam": adam, "sd": 0.2, "signum, 0.9": short}.get(name, 0.96)), (2, 0.98))
        for seed in range(3)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table.loc[(table["optimizer"] == "adam, signs") & (table["batch"] == 1), "linf"] = 0.6
    return table


@pytest.mark.parametrize(
    ("adam", "apart", "short", "verdict", "nearer"),
    [(0.6, 1e-4, 0.8, HOLDS, HOLDS), (0.99, 0.3, 0.99, FAILS, FAILS), (0.6, np.nan, 0.8, HOLDS, UNDECIDED)],
)
def test_the_claims_can_fail(adam: float, apart: float, short: float, verdict: str, nearer: str) -> None:
    table = made_up(adam, apart, short)
    found = {claim.claim: claim.verdict for claim in batch_size.claims(table, pd.DataFrame())}
    assert found["Adam finds less linf margin than from all points where a step sees 1 of 2 (clean)"] == verdict
    assert found["from one point a step Adam is nearer to the fixed point than to the l2 separator (clean)"] == nearer
    assert (
        found["from one point a step Signum finds more linf margin with beta = 0.98 than with 0.9 (clean)"] == verdict
    )
    assert found["Signum comes to 95 % of the greatest linf margin at every batch size (clean)"] == HOLDS
    assert found["points of signs: from one a step Adam comes to 95 % of the greatest l2 margin (clean)"] == HOLDS
    assert found["no run exceeds the oracle's margin"] == HOLDS
