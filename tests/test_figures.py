from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from robust_erm.figures.curves import curves
from robust_erm.figures.style import save
from robust_erm.results import varying


def table(n: int) -> pd.DataFrame:
    """n runs of five measurements; the first margins are nan, as at w = 0."""
    parts = []
    for k in range(n):
        part = pd.DataFrame({"step": [0, 1, 10, 100, 1000], "train_robust_acc": np.linspace(0.5, 1, 5)})
        part["test_robust_acc"] = part["train_robust_acc"] - 0.01 * k
        part["margin_robust_l2"] = [np.nan, -3.0, -0.1, 0.01, 0.02]
        parts.append(part.assign(folder=f"run{k}", optimizer=("gd", "sd")[k % 2], eps=0.1 * (k // 2), seed=k))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("n", [1, 4, 40])
def test_one_line_for_each_run(n: int, tmp_path: Path) -> None:
    data = table(n)
    figure = curves(data, ["optimizer", "eps"])
    accuracy, _, margin, empty = figure.axes
    lines = [line for line in accuracy.lines if len(line.get_xdata()) == 5]
    assert len(lines) == n
    for line in lines:
        assert list(line.get_ydata()) == list(np.linspace(0.5, 1, 5))
    assert margin.get_ylim()[0] == pytest.approx(-0.25 * 0.02)
    assert not empty.axison
    png, pdf = save(figure, tmp_path / "curves")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert not plt.get_fignums()


def test_what_tells_runs_apart() -> None:
    frame = pd.DataFrame(
        {
            "optimizer": ["gd", "gd", "sd"],
            "optimizer.schedule.lr": [0.1, 0.2, 0.3],
            "optimizer.r": [2.0, 2.0, np.inf],
            "seed": [0, 1, 2],
            "eps": [0.2, 0.2, 0.2],
        }
    )
    assert varying(frame) == ["optimizer", "optimizer.schedule.lr", "seed"]
