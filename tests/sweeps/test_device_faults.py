"""What fails on a device takes no other run along, and holds no memory that the next pack needs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faulty
import pandas as pd
import pytest
import torch

from robust_erm.reports.report import Failure
from robust_erm.store.config import Run
from robust_erm.store.run_folder import folder_of
from robust_erm.sweeps.sweep import Sweep
from robust_erm.sweeps.workers import Event, Pool, warm_up
from robust_erm.training.callbacks import Interrupted
from robust_erm.training.pack import train_pack
from robust_erm.training.runs import Runs

SMALL = ["data=gaussian", "data.d=20", "data.m=10", "model=linear", "attack=exact", "stop.steps=40", "stop.loss=null"]


@pytest.fixture(scope="module", autouse=True)
def quick() -> None:
    """Workers that have imported what they need."""
    warm_up(["robust_erm.training.pack", "robust_erm.training.kernels.dense"])


@pytest.fixture
def breaking(resolved: Callable[..., Run], tmp_path: Path) -> Callable[..., list[Run]]:
    """breaking(fault, times, count) -> runs of one pack that meet a fault at step 10 or later, so often."""

    def of(fault: str, times: int = 1, count: int = 1) -> list[Run]:
        measure = {"_target_": "faulty.Breaks", "folder": tmp_path, "fault": fault, "times": times}
        own = [f"+measure.breaks.{key}={value}" for key, value in measure.items()]
        return [resolved(*SMALL, *own, f"seed={seed}") for seed in range(count)]

    return of


def processes(run: Run) -> list[int]:
    """Those that have trained ``run``, in order."""
    table = pd.read_parquet(folder_of(run) / "metrics.parquet")
    return [int(pid) for pid in table["my_process"].unique()]


# ---- a device that fails --------------------------------------------------------------------------


@pytest.mark.turns
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("count", [1, 2])
def test_after_an_error_of_the_device_another_process_goes_on_from_the_checkpoints(
    breaking: Callable[..., list[Run]], workers: int, count: int
) -> None:
    runs = breaking("device", count=count)
    results = Sweep(runs, workers, None).train()
    for run in runs:
        result = results[run.id]
        assert isinstance(result, dict), result
        assert result["status"] == "max_steps"
        first, second = processes(run)
        assert first != second
        said = (folder_of(run) / "run.log").read_text()
        assert said.count("started at step 0") == 1
        assert "resumed at step 10" in said
    assert len({processes(run)[0] for run in runs}) == 1


def test_a_device_that_always_fails_is_named(breaking: Callable[..., list[Run]]) -> None:
    (run,) = breaking("device", times=99)
    failure = Sweep([run], 1, None).train()[run.id]
    assert isinstance(failure, Failure)
    assert failure.cause.startswith("the device failed (")
    assert "CUDA error: an illegal memory access" in failure.cause
    assert "CUDA error: an illegal memory access" in failure.traceback


def jobs(pool: Pool, *given: str) -> list[Event]:
    """How worker 0 ended each of these jobs of :func:`faulty.holds`."""
    found = []
    for job in given:
        pool.give(0, job)
        while pool.jobs:
            found += list(pool.events(10))
    return found


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(faulty.holds, 1)
    yield made
    made.close()


def test_who_met_an_error_of_the_device_is_replaced_and_nobody_else(pool: Pool) -> None:
    events = jobs(pool, "", "memory", "own", "", "device", "")
    assert [event.kind for event in events] == ["done", "failed", "failed", "done", "broken", "done"]
    first, same, another = (event.value[0] for event in events if event.kind == "done")
    assert first == same != another
    assert [event.value["fault"] for event in events if event.kind != "done"] == ["memory", "", "device"]


# ---- memory of a device ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_alone_that_had_too_little_memory_gets_one_more_try_in_a_fresh_process(
    breaking: Callable[..., list[Run]], workers: int
) -> None:
    (run,) = breaking("memory")
    result = Sweep([run], workers, None).train()[run.id]
    assert isinstance(result, dict), result
    assert len(processes(run)) == 2
    assert "resumed at step 10" in (folder_of(run) / "run.log").read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_and_fails_by_name_after_it(breaking: Callable[..., list[Run]], workers: int, tmp_path: Path) -> None:
    (run,) = breaking("memory", times=99)
    failure = Sweep([run], workers, None).train()[run.id]
    assert isinstance(failure, Failure)
    assert "CUDA out of memory" in failure.cause
    assert len(list(tmp_path.glob("broken*"))) == 2, "two tries, not three"


def test_other_faults_are_not_tried_again(breaking: Callable[..., list[Run]], tmp_path: Path) -> None:
    (run,) = breaking("own", times=99)
    failure = Sweep([run], 1, None).train()[run.id]
    assert isinstance(failure, Failure)
    assert len(list(tmp_path.glob("broken*"))) == 1


def test_a_worker_frees_what_a_job_held_before_it_says_how_it_went(pool: Pool) -> None:
    last = jobs(pool, "", "memory", "own", "")[-1]
    assert last.value[1] == [False, False, False]


def test_what_was_there_before_is_set_aside(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that trains packs itself, freeing each must not cost a look at all of torch."""
    frozen: list[int] = []
    collect = gc.collect
    monkeypatch.setattr(gc, "collect", lambda: frozen.append(gc.get_freeze_count()) or collect())
    Sweep([resolved(*SMALL, f"seed={seed}") for seed in range(2)], 0, 1).train()
    assert len(frozen) == 2
    assert min(frozen) > 100_000
    assert gc.get_freeze_count() == 0


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many packs were in memory whenever one was made; the collector comes only when it is called."""
    made: list[weakref.ref[Runs]] = []
    counts: list[int] = []
    init = Runs.__post_init__

    def counted(self: Runs) -> None:
        counts.append(sum(ref() is not None for ref in made))
        made.append(weakref.ref(self))
        init(self)

    monkeypatch.setattr(Runs, "__post_init__", counted)
    gc.collect()
    gc.disable()
    yield counts
    gc.enable()


def test_a_failed_pack_is_freed_before_its_halves_are_trained(
    resolved: Callable[..., Run], alive: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Runs.advance

    def too_large(self: Runs, n: int) -> None:
        if len(self.eps) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        advance(self, n)

    monkeypatch.setattr(Runs, "advance", too_large)
    runs = [resolved(*SMALL, f"seed={seed}") for seed in range(4)]
    results = Sweep(runs, 0, None).train()
    assert all(isinstance(result, dict) for result in results.values())
    assert len(alive) == 7, "4, 2 and 2, and four times 1"
    assert set(alive) == {0}


def test_an_ended_pack_is_freed_before_the_next_one(resolved: Callable[..., Run], alive: list[int]) -> None:
    runs = [resolved(*SMALL, f"seed={seed}") for seed in range(3)]
    Sweep(runs, 0, 1).train()
    assert alive == [0, 0, 0]


def test_runs_that_stand_at_different_steps_are_not_in_memory_together(
    resolved: Callable[..., Run], alive: list[int]
) -> None:
    runs = [resolved(*SMALL, f"seed={seed}", "trainer.checkpoint_seconds=0") for seed in range(2)]
    count: Any = iter([False])
    with pytest.raises(Interrupted):
        train_pack(runs[:1], stop=lambda: next(count, True))
    alive.clear()
    gc.collect()
    assert [result["status"] for result in train_pack(runs) if isinstance(result, dict)] == ["max_steps"] * 2
    assert alive == [0, 0]
