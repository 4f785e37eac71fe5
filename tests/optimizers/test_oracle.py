"""optimizer=oracle: the limit as a run among runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.store.config import Run
from robust_erm.store.run_folder import folder_of
from robust_erm.sweeps.datasets import find_margins
from robust_erm.sweeps.plan import pack_key
from robust_erm.sweeps.sweep import train_all
from robust_erm.training.pack import train_pack
from robust_erm.training.problem import radii

SMALL = ["experiment=tsilivis2024/linear", "data.d=30", "data.m=12", "eps=0.5", "logger=none"]


@pytest.mark.parametrize("r", [1, 1.5, 2, 3, "inf"])
@pytest.mark.parametrize("p", ["inf", 2])
def test_its_margin_is_the_greatest_there_is(r: float | str, p: float | str, resolved: Callable[..., Run]) -> None:
    run = resolved(*SMALL, "optimizer=oracle", f"optimizer.r={r}", f"p={p}")
    summary = train_pack([run])[0]
    assert isinstance(summary, dict)
    drawn = run.data.draw(0)
    exact = robust_max_margin(drawn.x_train * drawn.y_train[:, None], float(r), float(p), radii(run)[0])
    name = f"w_margin_robust_l{r}".replace(".", "_")
    assert summary[name] == pytest.approx(exact.value, rel=1e-9)
    assert summary["margin_robust"] == pytest.approx(1, rel=1e-9)  # eq. (12)'s scale
    assert (summary["step"], summary["status"], summary["train_robust_acc"]) == (0, "converged", 1.0)


def test_descent_stays_below_and_comes_near(resolved: Callable[..., Run]) -> None:
    runs = [resolved(*SMALL, *o) for o in (["optimizer=oracle"], ["optimizer=gd", "stop.loss=1e-9"])]
    limit, gd = train_all(runs, 0, None)
    assert isinstance(limit, dict)
    assert isinstance(gd, dict)
    assert 0.9 * limit["w_margin_robust_l2"] < gd["w_margin_robust_l2"] < limit["w_margin_robust_l2"]


def test_without_an_attack_it_is_the_clean_limit(resolved: Callable[..., Run]) -> None:
    none, zero = (resolved(*SMALL, "optimizer=oracle", o) for o in ("attack=none", "eps=0"))
    a, b = (train_pack([run])[0] for run in (none, zero))
    weights = [torch.load(folder_of(run) / "checkpoint.pt", weights_only=True)["run"]["theta"] for run in (none, zero)]
    assert torch.equal(*weights)
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    assert a["test_robust_acc"] < a["test_clean_acc"] == b["test_clean_acc"]  # evaluated at eps, trained at 0


def test_beyond_the_margin_it_says_so_and_takes_nobody_along(resolved: Callable[..., Run]) -> None:
    runs = [resolved(*SMALL, "optimizer=oracle", f"eps={eps}") for eps in (0.5, 1.1)]
    assert pack_key(runs[0]) != pack_key(runs[1])
    good, bad = train_all(runs, 0, None)
    assert isinstance(good, dict)
    assert "no linear model is robust on the training points of seed 0 at eps = " in bad.cause  # type: ignore[union-attr]
    assert "convex combination" in bad.cause  # type: ignore[union-attr]


def test_its_schedule_is_of_no_meaning(resolved: Callable[..., Run]) -> None:
    lines = ([], ["optimizer/schedule=bounded_loss"])
    assert len({resolved(*SMALL, "optimizer=oracle", *line).id for line in lines}) == 1


def test_the_same_result_from_a_finished_folder(resolved: Callable[..., Run]) -> None:
    run = resolved(*SMALL, "optimizer=oracle")
    first = train_pack([run])[0]
    assert train_pack([run])[0] == json.loads((folder_of(run) / "summary.json").read_text())
    assert isinstance(first, dict)


def test_margins_found_by_several_processes(resolved: Callable[..., Run], tmp_path: Path) -> None:
    from robust_erm.training.problem import MARGINS

    runs = [resolved(*SMALL, f"seed={seed}") for seed in range(50, 56)]
    told: list[tuple[int, int]] = []
    find_margins(runs, 2, lambda n, of: told.append((n, of)))
    assert told[-1] == (6, 6)
    for run in runs:
        drawn = run.data.draw(run.seed)
        found = MARGINS[run.data, run.seed, np.inf]
        exact = robust_max_margin(drawn.x_train * drawn.y_train[:, None], 1, np.inf, 0).value
        assert found == pytest.approx(exact, rel=1e-12)
