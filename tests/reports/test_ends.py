"""Comparisons at unequal loss are said to be such; means are printed with the interval that decides."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from shell import ROOT

from robust_erm.core.statistics import LEGEND, bracketed, interval
from robust_erm.papers.claims import above, within
from robust_erm.reports.ends import differ, loss, losses
from robust_erm.reports.style import over_steps, save
from robust_erm.reports.tables import grouped
from robust_erm.reports.terminal import show


def runs(*ends: tuple[str, str, float]) -> pd.DataFrame:
    """A row a run: optimizer, status, loss."""
    rows = [
        {"optimizer": name, "seed": k, "status": status, "log_loss": math.log(at), "test_robust_acc": 0.1 * k}
        for k, (name, status, at) in enumerate(ends)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (
            [("gd", "converged", 5e-4), ("sd", "max_steps", 0.36)],
            ["1 of 2", "at losses of 0.36", "at 0.0005"],
        ),
        ([("gd", "max_steps", 2e-3), ("sd", "max_steps", 0.36)], ["2 of 2", "losses of 0.002 to 0.36"]),
        ([("gd", "converged", 1e-3), ("sd", "diverged", 9.0)], ["1 of 2 runs diverged"]),
        ([("gd", "converged", 1e-3), ("sd", "converged", 1e-4)], []),
        ([("gd", "max_steps", 1e-3), ("sd", "max_steps", 1.5e-3)], []),
        ([("gd", "max_steps", 1e-3)], []),
        ([("gd", "converged", 1e-3), ("oracle2", "max_steps", 0.3)], []),
    ],
)
def test_ends_that_differ_are_said(
    ends: list[tuple[str, str, float]], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    frame = runs(*ends)
    line = differ(frame)
    assert bool(line) == bool(said)
    assert all(part in line for part in said), line
    show(frame, ["optimizer"], line)
    printed = capsys.readouterr().out
    assert ("loss" in printed.split("accuracies")[0]) == bool(said), "a column of losses, where they matter"
    assert ("not compared at equal loss" in printed) == bool(said)


def test_losses_however_small() -> None:
    assert [loss(x) for x in (0.0, math.log(0.36), math.log(2e-3), -1000.0, math.nan)] == [
        *("1", "0.36", "0.002", "5.1e-435", "nan")
    ]
    assert losses([math.log(0.36), math.nan, math.log(2e-3)]) == "0.002 to 0.36"


def test_the_interval_is_that_of_the_test() -> None:
    x = [0.71, 0.64, 0.9, 0.77]
    mean, half = interval(x)
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)
    frame = pd.DataFrame({"optimizer": "gd", "seed": range(4), "status": "converged", "test_robust_acc": x})
    table, _ = grouped(frame, ["seed"])
    assert table["test_robust_acc_half"][0] == pytest.approx(half)
    assert bracketed(100 * mean, 100 * half, ".1f") == f"75.5 [{100 * low:.1f}, {100 * high:.1f}]"


def test_claims_and_tables_print_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The figure in brackets is what the verdict follows from, and never a standard deviation."""
    x = [-0.029, -0.033, -0.037]
    low, high = (100 * end for end in stats.ttest_1samp(x, 0).confidence_interval(0.95))
    for claim in (above("c", "w", x), within("c", "w", x, 0.05)):
        assert f"-3.3 points [{low:.1f}, {high:.1f}] over 3 draws" in claim.measured
    frame = pd.DataFrame(
        {"optimizer": "gd", "seed": range(3), "status": "converged", "test_robust_acc": [0.5, 0.6, 0.7]}
    )
    show(*grouped(frame, ["seed"]))
    printed = capsys.readouterr().out
    assert LEGEND in printed
    assert re.search(r"60\.0\s*\n.*\[35\.2, 84\.8\]", printed)
    assert "±" not in printed


def test_axes_say_which_lines_they_cut_off(tmp_path: Path) -> None:
    figure, ax = plt.subplots()
    for end in (0.1, 0.2, 0.9, math.nan):
        ax.plot([1, 2, 3], [0.5, 0.6, end])
    ax.plot([1, 2, 3, 4], [0.1] * 4, "o", ls="None")
    ax.axhline(0)
    ax.set_ylim(0.4, 1)
    save(figure, tmp_path / "figure")
    assert [text.get_text() for text in ax.texts] == ["2 of 4 lines end below"]
    figure, ax = plt.subplots()
    ax.plot(np.arange(3), np.arange(3))
    save(figure, tmp_path / "figure")
    assert not ax.texts


def test_step_0_is_labelled() -> None:
    for last, labels in ((1, ["0", "1"]), (300, ["0", "1", "10", "$10^{2}$"]), (10**5, ["0", "1", "", "$10^{2}$"])):
        figure, ax = plt.subplots()
        ax.plot([0.5, 1, last], [0, 1, 2])
        over_steps(ax)
        assert ax.get_xticks()[0] == 0.5
        assert [label.get_text() for label in ax.get_xticklabels()][: len(labels)] == labels
        plt.close(figure)


def test_no_sign_ends_a_command_on_a_plain_terminal() -> None:
    line = "from robust_erm.reports.terminal import say, show_claims; from robust_erm.papers.claims import stated;"
    line += "say('5\u00b0 \u221e'); show_claims([stated('a', 'b', '5\u00b0', True)])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert "5\\xb0 \\u221e" in done.stdout


def test_other_targets_are_said() -> None:
    """Runs that all reached their loss of stop, which was another one for some."""
    both = runs(("gd", "converged", 1e-3), ("sd", "converged", 1e-9)).assign(**{"stop.loss": [1e-3, 1e-9]})
    assert "to end at 2 different losses" in differ(both)
    assert "not compared at equal loss" in differ(both)
    assert not differ(both.assign(**{"stop.loss": 1e-3}))
    assert not differ(both.assign(**{"stop.log_loss": -9.0})), "which counts instead, and is the same"
    assert "to end at 2" in differ(both.assign(**{"stop.loss": 1e-3, "stop.log_loss": [math.nan, -20.0]}))
