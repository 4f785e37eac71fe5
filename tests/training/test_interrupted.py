"""What an interruption, a fault or a divergence in the middle of a measurement leaves: nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robust_erm.core.errors import ConfigError
from robust_erm.reports.tables import read_metrics
from robust_erm.store.config import Run
from robust_erm.store.run_folder import folder_of
from robust_erm.training import module
from robust_erm.training.pack import train_pack
from robust_erm.training.runs import Runs

SMALL = ["model.width=8", "data.m=20", "eps=0.01", "measure_per_decade=10"]
BATCHES = ["optimizer=adam", "optimizer.schedule.lr=0.01", "batch.size=8", "model.width=32", "stop.steps=400"]
BATCHES += ["eps=0.01"]


def left(run: Run) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    folder = folder_of(run)
    summary = json.loads((folder / "summary.json").read_text())
    return {k: summary[k] for k in ("status", "step", "log_loss", "test_robust_acc")}, read_metrics(folder).to_pydict()


@pytest.mark.parametrize("where", ["look", "measure"])
@pytest.mark.parametrize(
    "given",
    [[*BATCHES, "stop.loss=0.3"], [*BATCHES, "stop.loss=null"], [*SMALL, "stop.steps=60", "snapshots=true"]],
    ids=["batches", "batches to the last step", "whole"],
)
def test_the_same_line_makes_up_for_it(
    given: list[str], where: str, resolved: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went straight past: a row was missing, and a run of mini-batches ended at a later epoch than uninterrupted."""
    whole, run = (resolved(*given, f"output_dir={tmp_path / name}") for name in ("whole", "cut"))
    (summary,) = train_pack([whole])
    at = int(summary["step"]) if "batch.size=8" in given else 10
    assert summary["status"] == ("converged" if "stop.loss=0.3" in given else "max_steps")
    armed = [True]

    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(runs: Runs, *rest: Any) -> Any:
            if runs.t == at and armed.pop() if armed else False:
                raise RuntimeError("killed")
            return function(runs, *rest)

        return inner

    place, name = (Runs, "look") if where == "look" else (module, "measure")
    monkeypatch.setattr(place, name, once(getattr(place, name)))
    with pytest.raises(RuntimeError, match="killed"):
        train_pack([run])
    train_pack([run])
    assert left(run) == left(whole)
    if "snapshots=true" in given:
        kept = [torch.load(folder_of(r) / "checkpoint.pt", weights_only=True)["snapshots"] for r in (whole, run)]
        assert kept[0]["steps"] == kept[1]["steps"]
        assert torch.equal(kept[0]["theta"], kept[1]["theta"])


def test_what_a_diverged_run_reports_does_not_depend_on_when_it_was_measured(
    resolved: Callable[..., Run], tmp_path: Path
) -> None:
    """The best state, which is kept: where the step had been measured it was nan, and 0 % right."""
    given = ["model.width=8", "data.m=20", "eps=0.01", "optimizer/schedule=constant", "optimizer.schedule.lr=1e20"]
    runs = [resolved(*given, f"measure_per_decade={k}", "snapshots=true", f"output_dir={tmp_path}") for k in (10, 1)]
    found = [train_pack([run])[0] for run in runs]
    assert {one["status"] for one in found} == {"diverged"}
    assert math.isfinite(found[0]["log_loss"])
    for key in ("step", "log_loss", "test_clean_acc", "test_robust_acc", "margin_robust"):
        assert found[0][key] == found[1][key]
    kept = torch.load(folder_of(runs[0]) / "checkpoint.pt", weights_only=True)
    assert kept["values"][-1][kept["columns"].index("log_loss")] == found[0]["log_loss"]
    assert torch.equal(kept["snapshots"]["theta"][-1], kept["run"]["theta"])


def test_names_that_a_measure_gives_now_and_then_are_refused(
    resolved: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = module.measure

    def sometimes(runs: Runs, *rest: Any) -> list[dict[str, float]]:
        return [{**row, **({"late": 1.0} if runs.t >= 5 else {})} for row in true(runs, *rest)]

    monkeypatch.setattr(module, "measure", sometimes)
    with pytest.raises(ConfigError, match=r"measure = late: is not measured at every step"):
        train_pack([resolved(*SMALL, "stop.steps=20", f"output_dir={tmp_path}")])
