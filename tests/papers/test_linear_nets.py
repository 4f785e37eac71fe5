"""Rules of verdicts of lyu2025's, sun2022's and melamed2023's experiments, on made-up tables."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.lyu2025 import architectures
from robust_erm.papers.melamed2023 import subspace
from robust_erm.papers.sun2022 import mirror


def margins(own: float, other: float, third: float, kkt: float) -> pd.DataFrame:
    """Three draws, clean under two exponents and robust; ratios of a net's own norm and of others, residuals."""
    rows = []
    for sweep in architectures.NAMES:
        for p, eps in ((math.inf, 0.0), (2.0, 0.0), (math.inf, 0.5), (2.0, 0.5)):
            for seed in range(3):
                mine = architectures.OWN.get(sweep)
                found = {n: (own if n == mine else other) - 1e-3 * seed for n in architectures.NORMS}
                found |= {"quasi": third if sweep == "diagonal_3" else 1.0, "kkt": kkt + 1e-3 * seed}
                found["quasi_fourier"] = third if sweep == "conv_3" else 1.0
                setting = {"sweep": sweep, "p": p, "eps": eps, "seed": seed}
                rows += [{**setting, "norm": norm, "ratio": ratio} for norm, ratio in found.items()]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("given", "expected"), [((0.99, 0.8, 1.5, 0.01), HOLDS), ((0.7, 0.8, 0.5, 0.2), FAILS)], ids=str
)
def test_claims_of_architectures_can_fail(given: tuple[float, float, float, float], expected: str) -> None:
    *all_of_it, last = architectures.claims(margins(*given), pd.DataFrame())
    assert last.verdict == HOLDS
    of_kkt = [claim for claim in all_of_it if "KKT" in claim.claim]
    assert {claim.verdict for claim in all_of_it if claim not in of_kkt} == {expected}
    assert {claim.verdict for claim in of_kkt} == {HOLDS if expected == HOLDS else UNDECIDED}, "it may not be there yet"
    assert len(all_of_it) == 3 * (2 * 5 + 2) + 2 * 7, "under l_inf no KKT point is asked for"
    beyond = {c.claim: c.verdict for c in architectures.claims(margins(1.01, 0.8, 1.5, 0.01), pd.DataFrame())}
    assert beyond["no run exceeds the oracle's margin"] == FAILS


def test_clean_margins_are_shown_once() -> None:
    panels = architectures._parts(margins(0.9, 0.8, 1.0, 0.0))
    assert list(panels) == ["clean", r"$\ell_2$, half the margin", r"$\ell_\infty$, half the margin"]
    assert all(len(some) == len(architectures.NAMES) * 3 * 6 for some in panels.values())


@pytest.mark.parametrize(("own", "other", "expected"), [(0.97, 0.8, HOLDS), (0.7, 0.8, FAILS)])
def test_claims_of_mirror_descent_can_fail(own: float, other: float, expected: str) -> None:
    rows = [
        {"sweep": sweep, "eps": eps, "seed": seed, "norm": norm}
        | {"ratio": (own if norm == mirror.OWN[sweep] else other) - 1e-3 * seed}
        for sweep in mirror.NAMES
        for eps in (0.0, 0.5)
        for seed in range(3)
        for norm in mirror.RADII
    ]
    *found, last = mirror.claims(pd.DataFrame(rows), pd.DataFrame())
    assert {claim.verdict for claim in found} == {expected}
    assert len(found) == 2 * 2 * len(mirror.NAMES)
    assert last.verdict == HOLDS


def ways(cured: float, slope: float, off: float) -> pd.DataFrame:
    """Three draws; what the cures change by a factor, and what is found without one."""
    rows = []
    for sweep in subspace.NAMES:
        factor = cured if sweep in subspace.CURES else 0.3 if sweep == "wide" and cured > 1 else 1.0
        for seed in range(3):
            away = off * factor * (1 + 1e-3 * seed)
            found = {"off": away, "within": 0.9, "slope": slope, "gradient": 1 / factor + 1e-3 * seed}
            rows.append({"sweep": sweep, "seed": seed, "acc": 1.0, **found})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("given", "expected"), [((5.0, 0.7, 0.8), HOLDS), ((0.9, 0.1, 0.95), FAILS)], ids=str)
def test_claims_of_the_subspace_can_fail(given: tuple[float, float, float], expected: str) -> None:
    found = {claim.claim: claim.verdict for claim in subspace.claims(ways(*given), pd.DataFrame())}
    assert found["the gradient off the subspace is large (standard)"] == expected
    assert found["it is nearer off the subspace than in it (standard)"] == expected
    for cure in subspace.CURES:
        name = subspace.NAMES[cure]
        assert found[f"{name}: the boundary is farther off the subspace than after standard training"] == expected
        assert found[f"{name}: less of the gradient is off the subspace"] == expected
        assert found[f"{name}: the boundary is no nearer off the subspace than in it"] == expected
    larger = "the larger the subspace, the nearer the boundary off it, in lengths of the point"
    assert (found[larger] == HOLDS) == (expected == HOLDS)
    far = {claim.claim: claim.verdict for claim in subspace.claims(ways(5.0, 0.7, 1.2), pd.DataFrame())}
    assert far["the boundary off the subspace is nearer than the point's own length (standard)"] == FAILS
