"""Where SD and GD are compared, and what follows for each choice, from curves and tables made by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.tsilivis2024 import net_gap
from robust_erm.papers.tsilivis2024.net_gap import LAST, LOSS, PUBLISHED, RIGHT, TIME


def curve(eta: float, losses: list[float]) -> pd.DataFrame:
    """Measurements each 100 steps."""
    return pd.DataFrame(
        {"step": [100 * k for k in range(len(losses))], "log_loss": losses, "eta": eta, "status": "max_steps"}
    )


def test_where_two_runs_are_compared() -> None:
    """As many steps as the script, as far, and where both have the loss at which the slower one ends."""
    gd, sd = curve(1e-4, [5.0, 4, 3, 2, 1, 0, -1]), curve(1e-4, [5.0, 1, -1, -2, -3, -4, -5])
    ends = {when: (int(one["step"]), int(other["step"])) for when, one, other in net_gap._ends(gd, sd)}
    assert ends == {"200 steps": (200, 200), LAST: (600, 600), LOSS: (600, 200)}
    slow = curve(3e-5, [5.0, 4, 3, 2, 1, 0.5, 0.1])
    ends = {when: (int(one["step"]), int(other["step"])) for when, one, other in net_gap._ends(gd, slow)}
    assert ends == {TIME: (100, 600), LAST: (600, 600), LOSS: (500, 600)}, "180 steps: measured at 100"
    never = {when for when, *_ in net_gap._ends(gd, sd.assign(log_loss=math.nan))}
    assert never == {"200 steps", LAST}
    left = [when for when, *_ in net_gap._ends(gd.iloc[:3].assign(status="diverged"), sd)]
    assert left == [LAST], "not at a third of the steps after which one of them was lost"


def rows(box: str, sample: str, eta: float, when: str, edges: list[float], fit: bool = True) -> list[dict[str, object]]:
    more = {"fit": fit, "own_less_right": 0.3 if box == PUBLISHED and when == LAST else math.nan}
    strong = [edge - 0.01 if when == LAST and box == RIGHT else math.nan for edge in edges]
    return [
        {"box": box, "sample": sample, "eta": eta, "when": when, "seed": k, "gd": 0.7, "sd": 0.7 + edge, "edge": edge,
         "gd_step": 600, "sd_step": 600, "strong": strong[k], **more}
        for k, edge in enumerate(edges)
    ]  # fmt: skip


@pytest.fixture
def table() -> pd.DataFrame:
    """The right box gives 4 points on the first images, 1 on random ones; the published one nothing."""
    return pd.DataFrame([
        *rows(RIGHT, "first", 1e-4, LAST, [0.040, 0.041, 0.043]),
        *rows(RIGHT, "random", 1e-4, "200 steps", [0.01, 0.02, 0.03], fit=False),
        *rows(RIGHT, "random", 1e-4, LAST, [0.010, 0.011, 0.012]),
        *rows(RIGHT, "random", 3e-5, LAST, [0.009, 0.011, 0.012]),
        *rows(PUBLISHED, "random", 1e-4, LAST, [-0.010, -0.011, -0.012]),
    ])  # fmt: skip


def test_claims_say_what_each_choice_moves(table: pd.DataFrame) -> None:
    found = {claim.claim: claim for claim in net_gap.claims(table)}
    assert found["SD beats GD: right box, first images, SD's step 0.0001, last step"].verdict == HOLDS
    unfit = found["SD beats GD: right box, random images, SD's step 0.0001, 200 steps"]
    assert unfit.verdict == UNDECIDED
    assert "2.0 points [" in unfit.measured
    assert "3 pairs have not reached 100 %" in unfit.measured
    assert found["SD beats GD: published box, random images, SD's step 0.0001, last step"].verdict == FAILS
    strong = found["SD beats GD under the strong attacks too: right box, random images, SD's step 0.0001, last step"]
    assert strong.verdict == UNDECIDED
    assert "0.1 points [-0.1, 0.3]" in strong.measured
    assert found["the first images instead of random ones does not move the gap"].verdict == FAILS
    assert "3.0 points [" in found["the first images instead of random ones does not move the gap"].measured
    assert found["SD's step of 0.0001 instead of 3e-05 does not move the gap"].verdict == HOLDS
    assert found["the published box does not move the gap"].verdict == FAILS
    broken = "nets trained in the published box are less robust than its own attack says: random images"
    assert found[broken].verdict == HOLDS
    printed = found["one of these choices gives the 4.11 points of the paper"]
    assert printed.verdict == HOLDS
    assert "1 of 4 intervals hold 4.11" in printed.measured


def test_nets_that_are_on_their_way_decide_nothing(table: pd.DataFrame) -> None:
    """However wide or clear their gaps are: not under strong attacks, not of what a choice moves, not of 4.11."""
    wide = pd.DataFrame(rows(RIGHT, "first", 3e-5, LAST, [0.02, 0.04, 0.06], fit=False))
    found = {claim.claim: claim for claim in net_gap.claims(pd.concat([table, wide]))}
    for name in ("SD beats GD: ", "SD beats GD under the strong attacks too: "):
        claim = found[f"{name}right box, first images, SD's step 3e-05, last step"]
        assert claim.verdict == UNDECIDED
        assert "points [" in claim.measured
        assert "3 pairs have not reached 100 %" in claim.measured
    shorter = found["200 steps instead of three times as many does not move the gap"]
    assert shorter.verdict == UNDECIDED
    assert "not all of these nets have reached" in shorter.measured
    assert "of 4 intervals" in found["one of these choices gives the 4.11 points of the paper"].measured


def test_a_pair_that_diverged_is_counted_and_not_compared(table: pd.DataFrame) -> None:
    at = (table["box"] == PUBLISHED) & (table["seed"] == 1)
    table.loc[at, ["gd", "sd", "edge", "own_less_right"]] = math.nan
    found = {claim.claim: claim for claim in net_gap.claims(table)}
    claim = found["SD beats GD: published box, random images, SD's step 0.0001, last step"]
    assert (claim.verdict, claim.measured) == (
        UNDECIDED,
        "1 of 3 pairs have a run that diverged: not compared",
    )
    assert "over 2 draws" in found["the published box does not move the gap"].measured
    assert "of 4 intervals" in found["one of these choices gives the 4.11 points of the paper"].measured


def test_a_number_that_no_choice_gives_fails(table: pd.DataFrame) -> None:
    (printed,) = net_gap._printed(table[table["sample"] == "random"].query("fit"))
    assert printed.verdict == FAILS
    assert net_gap._printed(table.groupby(net_gap.CHOICE).head(1)) == [], "one draw has no interval"
