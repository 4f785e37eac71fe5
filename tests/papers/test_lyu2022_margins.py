"""Claims about margins along training: from the onset on, and never of a dead net."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.lyu2022 import margins


def run(folder: str, own: list[float], margin: list[float], eps: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Measurements of one run, one an epoch."""
    n = len(own)
    return pd.DataFrame(
        {
            "folder": folder, "seed": seed, "step": range(n), "epoch": [float(e) for e in range(n)], "eps": eps,
            "radius": 0.1, "attack": "FGSM", "curve": "FGSM" if eps else "standard", "train_own": own,
            "train_clean": 1.0, "train_worst": own, "test_clean": 0.9, "margin": margin, "margin_theta": margin,
            "margin_worst": margin, "margin_strong": margin,
        }
    )  # fmt: skip


RISE = run("rise", [0, 0.5, 1, 1, 1, 1, 1], [-1, -8, 0.1, 0.2, 0.3, 0.4, 0.5])
DEAD = run("dead", [0] * 7, [-1, -0.5, 0, 0, 0, 0, 0], seed=1)
FALL = run("fall", [0, 0.5, 1, 1, 1, 1, 1], [-1, -8, 0.5, 0.4, 0.3, 0.2, 0.1], seed=2)


def test_onset() -> None:
    both = pd.concat([RISE, DEAD])
    assert margins.onset(both)["rise"] == 2
    assert math.isnan(margins.onset(both)["dead"])
    assert set(margins.fitted(both)["folder"]) == {"rise"}
    assert margins.fitted(both)["epoch"].min() == 2


@pytest.mark.parametrize(
    ("runs", "verdicts"),
    [([RISE], [HOLDS, HOLDS]), ([RISE, FALL], [FAILS, FAILS]), ([DEAD], [UNDECIDED] * 2), ([RISE, DEAD], [HOLDS] * 2)],
)
def test_rises_from_the_onset_on_alone(runs: list[pd.DataFrame], verdicts: list[str]) -> None:
    """What falls before the onset does not count, and a dead net satisfies nothing."""
    found = margins.rises(pd.concat(runs), "")
    assert [claim.verdict for claim in found] == verdicts
    said = "nothing was measured" if verdicts[0] == UNDECIDED else f"of {len(runs)} runs have an onset"
    assert all(said in claim.measured for claim in found)


def test_too_few_measurements_decide_nothing() -> None:
    short = run("short", [0, 0, 1, 1], [-1, -8, 0.1, 0.2])
    assert {claim.verdict for claim in margins.rises(short, "")} == {UNDECIDED}


def test_a_dead_net_has_not_fitted_and_agrees_with_nothing() -> None:
    (claim,) = margins.fits(DEAD, "")
    assert claim.verdict == UNDECIDED
    assert not margins.agrees(DEAD)
    assert not margins.positive(DEAD)


def test_pairs_are_of_one_attack_and_radius() -> None:
    standard = run("standard", [0] * 7, [-1.0] * 7, eps=0.0)
    both = pd.concat([RISE, standard])
    ((own, other),) = margins.paired(both).values()
    assert own["margin"].iloc[0] == 0.5
    assert other["margin"].iloc[0] == -1
    assert not margins.paired(pd.concat([RISE, standard.assign(radius=0.2)]))
