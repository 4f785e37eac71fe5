from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.tsilivis2024 import fig3_right as cnn
from robust_erm.papers.tsilivis2024 import net_steps
from robust_erm.reports.curves import curves
from robust_erm.reports.style import save
from robust_erm.reports.tables import as_row, grouped, varying


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


def test_classes_and_plain_keys_tell_runs_apart() -> None:
    """Two schedules with equal fields, or more measurements of one seed, were further draws of one setting."""
    configs = [
        {"names": {"optimizer": "gd"}, "seed": seed, "measure_per_decade": k, "measure": measures,
         "optimizer": {"_target_": "robust_erm.Steepest", "schedule": {"_target_": name, "lr": 0.1}}}
        for seed in (0, 1) for k, measures, name in (
            (10, {}, "mine.Slow"), (10, {}, "mine.Fast"), (5, {}, "mine.Slow"),
            (10, {"kkt": {"_target_": "robust_erm.measures.kkt.KKTResidual"}}, "mine.Slow"),
        )
    ]  # fmt: skip
    frame = pd.DataFrame(
        [as_row(config, {"test_robust_acc": 0.5, "status": "converged"}, Path("none")) for config in configs]
    )
    assert set(varying(frame)) == {"seed", "measure_per_decade", "optimizer.schedule", "measure.kkt"}
    assert (grouped(frame, varying(frame))[0]["runs"] == 2).all()
    assert set(frame["optimizer.schedule"]) == {"mine.Slow", "mine.Fast"}


def test_what_is_null_or_has_fewer_options_has_its_line() -> None:
    data = table(4)
    data["batch.size"] = data["folder"].map({"run0": math.nan, "run1": math.nan, "run2": 8.0, "run3": 8.0})
    data["optimizer.schedule.fall"] = data["optimizer"].map({"gd": 0.5})
    figure = curves(data, ["optimizer", "batch.size", "optimizer.schedule.fall"])
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert texts == {"gd, size = null, fall = 0.5", "sd, size = null", "gd, size = 8, fall = 0.5", "sd, size = 8"}
    plt.close(figure)


# ---- claims, from tables made by hand --------------------------------------------------------------


def test_the_price_is_compared_where_both_ends_are_known() -> None:
    index = pd.MultiIndex.from_product([[100, 1000], [0.0, 0.3], range(3)], names=["m", "eps", "seed"])
    edge = pd.Series([0.06] * 3 + [0.05] * 3 + [0.01] * 3 + [math.nan] * 3, index).dropna()  # falls with eps
    claim = cnn._ends(edge, "eps", 0.3, 0.0, "with eps")
    assert claim.verdict == FAILS
    assert "in 3 of 6 pairs" in claim.measured
    assert cnn._ends(edge, "m", 100, 1000, "as m shrinks").verdict == HOLDS


def test_strong_attacks_count_where_the_last_step_is_reported() -> None:
    rows = [
        {"algorithm": name, "m": m, "eps": 0.1, "seed": k, "threshold": last, "test_after_train": 0.5,
         "test_attacked": 0.5 - (0.2 if (name, last) == ("SD", 1e-3) else 0.0) - 0.001 * k, "test_certified": math.nan,
         "train_attacked": 1.0, "warnings": 0}
        for name in ("GD", "SD") for m, last in ((10, 1e-3), (20, 0.1)) for k in range(3)
    ]  # fmt: skip
    close, edge = cnn._trusted(pd.DataFrame(rows), 1e-3)
    assert edge.verdict == HOLDS
    assert edge.measured.startswith("GD - SD in 1 of 2 cells, where the last step is the one reported: 20.0 ")
    assert close.verdict == FAILS, "judged where it misses most"
    assert "most for SD, m = 10: 20.1 " in close.measured
    assert "SD 10.1 (- to 39.9)" in close.measured
    assert "0 of 12 runs with a sign" in close.measured
    unchecked, _ = cnn._trusted(pd.DataFrame(rows).assign(warnings=math.nan), 1e-3)
    assert "a sign" not in unchecked.measured
    unknown = pd.DataFrame(rows).assign(test_attacked=math.nan)
    assert cnn._trusted(unknown, 1e-3) == []


def choice(fits: list[float], mean_fits: float = math.nan) -> pd.DataFrame:
    rows = [
        {"reduction": r, "eta": eta, "on_sum": eta / (100 if r == "mean" else 1), "seed": k, "steps": 20_000,
         "init_scale": 0.01, "fits_at": f, "train_robust_acc": 1.0 if f == f else 0.9, "test_robust_acc": 0.8}
        for r, etas, values in (("sum", (1e-3, 1e-4), fits), ("mean", (1e-3,), [mean_fits] * 3))
        for eta in etas
        for k, f in enumerate(v * (1e-3 / eta if r == "sum" else 1) for v in values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_claims_of_net_choices_follow_from_what_fits() -> None:
    slow, alike, mean, *_ = net_steps.claims(choice([900.0, 1000.0, 1100.0]))
    assert [slow.verdict, alike.verdict, mean.verdict] == [FAILS, HOLDS, HOLDS]
    assert "110,000" in slow.measured
    fast, _, fitting, *_ = net_steps.claims(choice([300.0] * 3, 3000.0))
    assert [fast.verdict, fitting.verdict] == [HOLDS, FAILS]
    never = net_steps.claims(choice([300.0, 300.0, math.nan]))
    assert {claim.verdict for claim in never[:3]} == {UNDECIDED}


def test_a_cell_has_one_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """SD does not come down to the last loss: then GD is reported at the looser one too."""
    base = {"data.m": 10, "eps": 0.1, "seed": 0, "stop.loss": 1e-3}
    runs = pd.DataFrame(
        [
            {**base, "folder": "a", "optimizer": "gd", "status": "converged"},
            {**base, "folder": "b", "optimizer": "sd", "status": "max_steps"},
        ]
    )
    curves = pd.DataFrame(
        [
            {"folder": f, "step": t, "log_loss": math.log(loss), "test_robust_acc": acc, "train_robust_acc": 1.0}
            for f, t, loss, acc in (("a", 1, 0.5, 0.1), ("a", 2, 0.09, 0.2), ("a", 3, 1e-3, 0.3), ("b", 1, 0.05, 0.4))
        ]
    ).assign(test_clean_acc=1.0)
    monkeypatch.setattr(cnn, "read_curves", lambda _: curves)
    table = cnn.table(runs).set_index("algorithm")
    assert table["threshold"].tolist() == [0.1, 0.1]
    assert table["test_robust_acc"].to_dict() == {"GD": 0.2, "SD": 0.4}
    table = cnn.table(runs.assign(status="converged")).set_index("algorithm")
    assert table["test_robust_acc"]["GD"] == 0.3


@pytest.mark.parametrize("columns", [2, 8])
def test_a_legend_is_not_cut_off(columns: int, tmp_path: Path) -> None:
    """It gets as many rows as it needs, and no more."""
    figure, ax = plt.subplots(figsize=(3, 2), layout="constrained")
    for k in range(8):
        ax.plot([0, 1], [0, k], label=f"number {k}")
    figure.legend(loc="outside lower center", ncols=columns)
    save(figure, tmp_path / "some")
    (legend,) = figure.legends
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    rows = len({round(text.get_window_extent().y0) for text in legend.get_texts()})
    assert rows == 4 if columns == 2 else 1 < rows < 8
