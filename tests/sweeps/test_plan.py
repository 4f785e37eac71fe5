"""Packs of a sweep on machines with GPUs, which are pretended here: torch.cuda is patched."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from robust_erm.attacks.fgm import FGM
from robust_erm.core.fields import per_run
from robust_erm.measures.norms import Norms
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant
from robust_erm.store.config import Run
from robust_erm.sweeps import plan
from robust_erm.sweeps import sweep as sweeps
from robust_erm.sweeps.seats import Seats
from robust_erm.sweeps.sweep import Job, Sweep
from robust_erm.sweeps.workers import Event, Pool
from robust_erm.training import devices, resources

GIB = 2**30
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
LINEAR = ["data=gaussian", "data.d=512", "model=linear", "attack=exact", "trainer.device=auto"]
MAPPED = ["optimizer=gd", "optimizer/schedule=stable"]
LINEAR += ["optimizer=cd", "optimizer/schedule=bounded_loss"]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """gpus(free...) -> a machine with GPUs that have so many bytes free; nothing here may open one."""

    def opened(*_: Any) -> None:
        raise AssertionError("this opens a context in the controlling process")

    def of(*free: float, host: float = 1000 * GIB, own: int = 4) -> None:
        for name in ("mem_get_info", "_lazy_init", "init", "get_device_properties", "get_device_capability"):
            monkeypatch.setattr(torch.cuda, name, opened)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(devices, "free_memory", lambda: list(free))
        monkeypatch.setattr(resources, "available", lambda: host)
        monkeypatch.setattr(plan, "cores", lambda: own)

    return of


def nets(resolved: Callable[..., Run], count: int, *more: str) -> list[Run]:
    return seeds(resolved("model.width=300", "trainer.device=cuda", *more), count)


def seeds(run: Run, count: int) -> list[Run]:
    """The run with each of so many seeds; composing each would take a quarter of a second."""
    return [dataclasses.replace(run, seed=seed) for seed in range(count)]


def bytes_of(run: Run) -> int:
    return resources.of_run(run) + resources.of_data(run)


def with_share(base: type) -> Any:
    """``base`` with a number of each run's own."""
    return dataclasses.make_dataclass("Own", [("share", float, per_run(1.0))], bases=(base,), frozen=True)


@dataclasses.dataclass(frozen=True)
class Chained(Steepest):
    chain: tuple[Any, ...] = ()


def test_runs_share_a_pack_only_where_what_differs_is_given_to_each(resolved: Callable[..., Run]) -> None:
    """A pack has one attack, objective, model and measurement, its first run's: a number of another would be lost."""
    run = resolved("model.width=8")

    def apart(of: Callable[[float], dict[str, Any]]) -> bool:
        return len({plan.pack_key(dataclasses.replace(run, **of(share))) for share in (0.5, 1.0)}) == 2

    assert apart(lambda share: {"attack": with_share(FGM)(math.inf, share=share)})
    assert apart(lambda share: {"eval_attacks": {"own": with_share(FGM)(math.inf, share=share)}})
    assert apart(lambda share: {"objective": with_share(Objective)(share=share)})
    assert apart(lambda share: {"model": with_share(MLP)(share=share)})
    assert apart(lambda share: {"model": with_share(MLP)(init_scale=share)})
    assert apart(lambda share: {"measure": {"own": with_share(Norms)(share=share)}})
    assert apart(lambda share: {"optimizer": Chained(Constant(1e-3), chain=(with_share(Constant)(1e-3, share=share),))})
    assert not apart(lambda share: {"optimizer": Steepest(with_share(Constant)(1e-3, share=share))})
    assert not apart(lambda share: {"model": MLP(width=8, init_scale=share)})


def test_room_is_that_of_each_gpu(gpus: Callable[..., None]) -> None:
    gpus(80 * GIB, 80 * GIB, 40 * GIB, 80 * GIB)
    context = plan._CONTEXT
    assert plan.room_of(CUDA, 4).own == 0.6 * (40 * GIB - context), "a pack may go to any of them"
    assert plan.room_of(CUDA, 2).own == 0.6 * (80 * GIB - context), "the third is not used"
    assert plan.room_of(CUDA, 8).own == 0.6 * (40 * GIB - 2 * context) / 2, "two share each, with a context each"
    assert plan.room_of(torch.device("cuda:1"), 1).own == 0.6 * (80 * GIB - context)
    assert plan.room_of(torch.device("cuda:2"), 3).own == 0.6 * (40 * GIB - 3 * context) / 3


def test_packs_fill_each_gpu(resolved: Callable[..., Run], gpus: Callable[..., None]) -> None:
    runs = nets(resolved, 12)
    free = (3.5 * bytes_of(runs[0]) + resources.of_libraries(runs[0])) / 0.6 + plan._CONTEXT
    gpus(free, free)
    assert [(pack.device, len(pack.members)) for pack in plan.packs(runs, None, None)] == [(CUDA, 3)] * 4
    gpus(free)
    assert [len(pack.members) for pack in plan.packs(runs, None, 1)] == [3] * 4
    shared = 2 * free  # two workers, each with its context
    gpus(shared)
    assert [len(pack.members) for pack in plan.packs(runs, None, 2)] == [3] * 4


def test_memory_of_the_machine_counts_beside_that_of_a_gpu(
    resolved: Callable[..., Run], gpus: Callable[..., None]
) -> None:
    runs = nets(resolved, 6)
    gpus(80 * GIB, host=(2.5 * resources.of_data(runs[0]) + plan._WORKER) / 0.6)
    assert [len(pack.members) for pack in plan.packs(runs, None, None)] == [2, 2, 2]


def test_one_gpu_by_its_number_is_one_worker(resolved: Callable[..., Run], gpus: Callable[..., None]) -> None:
    gpus(80 * GIB, 80 * GIB, 80 * GIB)
    second = torch.device("cuda:1")
    assert plan.workers_for(9, None, CUDA) == 3
    assert plan.workers_for(9, None, second) == 1
    assert plan.workers_for(9, 2, second) == 2
    runs = nets(resolved, 3, "trainer.device=cuda:1")
    (pack,) = plan.packs(runs, None, None)
    assert pack.device == second
    assert plan.processes_for([second] * 3, None) == 1
    assert plan.processes_for([CUDA] * 9, None) == 3


# ---- device=auto ----------------------------------------------------------------------------------


def test_auto_is_the_cpu_for_small_packs_whose_step_is_compiled_there(
    resolved: Callable[..., Run], gpus: Callable[..., None]
) -> None:
    gpus(80 * GIB)

    def device(count: int, *more: str) -> str:
        return devices.chosen(seeds(resolved(*LINEAR, *more), count)).type

    few, many = "stop.steps=1000", "stop.steps=1000000"
    assert device(64, few, "data.m=64") == "cpu"
    assert device(64, many, "data.m=1024") == "cuda"
    assert device(4, few, "data.m=32721") == "cpu", "R m d = 67,012,608: 5.361 s against 5.361"
    assert device(4, few, "data.m=32722") == "cuda", "R m d = 67,014,656"
    assert device(4, many, "data.m=1046") == "cpu", "R m d = 2,142,208: 171.4 s against 171.4"
    assert device(4, many, "data.m=1047") == "cuda", "R m d = 2,144,256"
    assert device(64, few, "data.m=64", "trainer.device=cuda") == "cuda"
    assert device(64, many, "data.m=1024", "trainer.device=cpu") == "cpu"
    assert device(64, few, "data.m=64", "model=diagonal", "optimizer/schedule=constant") == "cpu"


@pytest.mark.parametrize(
    "more",
    [
        ["objective=logistic"],
        ["attack=pgd"],
        ["p=3"],
        ["batch.size=8", "optimizer/schedule=constant"],
        MAPPED,
        ["optimizer=adam", "optimizer/schedule=constant"],
        ["model=mlp", "attack=pgd"],
    ],
    ids=" ".join,
)
def test_and_cuda_for_all_others(more: list[str], resolved: Callable[..., Run], gpus: Callable[..., None]) -> None:
    gpus(80 * GIB)
    assert devices.chosen([resolved(*LINEAR, "data.m=64", *more)]) == CUDA


def test_without_numba_there_is_no_compiled_step(
    resolved: Callable[..., Run], gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(80 * GIB)
    run = resolved(*LINEAR, "data.m=64")
    assert devices.chosen([run]) == CPU
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    assert devices.chosen([run]) == CUDA


def test_each_pack_of_a_mixed_sweep_has_its_place(resolved: Callable[..., Run], gpus: Callable[..., None]) -> None:
    gpus(80 * GIB, 80 * GIB, own=8)
    runs = [
        *seeds(resolved(*LINEAR, "data.m=64"), 16),
        *seeds(resolved(*LINEAR, "data.m=64", *MAPPED), 4),
    ]
    found = plan.packs(runs, None, None)
    places = [pack.device.type for pack in found]
    assert places == ["cuda"] * 2 + ["cpu"] * 8, "one a GPU, and one a core"
    assert sorted(i for pack in found if pack.device == CPU for i in pack.members) == list(range(16))
    assert sorted(i for pack in found for i in pack.members) == list(range(20))
    assert plan.processes_for([pack.device for pack in found], None) == 8
    assert plan.processes_for([pack.device for pack in found], 3) == 3


def test_what_is_too_large_for_a_core_is_cut_for_the_gpus(
    resolved: Callable[..., Run], gpus: Callable[..., None]
) -> None:
    gpus(80 * GIB, own=2)
    runs = seeds(resolved(*LINEAR, "data.m=1024"), 100)
    assert [(pack.device.type, len(pack.members)) for pack in plan.packs(runs, None, None)] == [("cuda", 100)]


def test_gpus_are_for_the_first_workers(gpus: Callable[..., None]) -> None:
    gpus(80 * GIB, 80 * GIB, own=8)
    sweep = Sweep([], None, None)
    sweep.pool = SimpleNamespace(count=8, idle=range(8))  # type: ignore[assignment]
    sweep.seats = Seats(8, None)
    on_gpu, here = [Job(k, [], CUDA) for k in range(3)], [Job(k, [], CPU) for k in range(3, 6)]
    sweep.jobs.extend([*on_gpu, *here])
    assert sweep._next(5) == here[0]
    assert sweep._next(0) == on_gpu[0]
    assert sweep._next(2) == here[1]
    assert sweep._next(1) == on_gpu[1]
    assert sweep._next(7) == here[2]
    assert sweep._next(7) is None, "what is left is for a GPU"
    assert sweep._next(1) == on_gpu[2]


def test_a_pack_that_met_an_error_of_a_device_goes_to_another(gpus: Callable[..., None]) -> None:
    gpus(80 * GIB, 80 * GIB, own=8)
    seats = Seats(2, None)
    assert seats.may(0, CUDA, None, {0, 1})
    assert not seats.may(0, CUDA, 0, {0, 1})
    assert seats.may(1, CUDA, 0, {0, 1})
    assert seats.may(0, CUDA, 0, {0}), "it does not wait for one that has work"
    assert Seats(1, None).may(0, CUDA, 0, {0}), "there is no other"


def test_a_device_that_fails_again_and_again_does_not_eat_the_queue(
    gpus: Callable[..., None], resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two GPUs the second breaks all it is given, quickly; every run has its result from the first."""
    gpus(80 * GIB, 80 * GIB, own=8)
    given: list[tuple[int, int]] = []

    class Broken(Pool):
        def give(self, number: int, job: Any) -> None:
            given.append((number, len(job.runs)))
            self.jobs[number] = job

        def events(self, seconds: float) -> Iterator[Event]:
            number = max(self.jobs)  # the second GPU is the quicker
            job = self.jobs.pop(number)
            fault = {"cause": "CUDA error", "traceback": "", "fault": "device", "errno": None}
            yield Event(
                number, *(("broken", job, fault) if number else ("done", job, [{"status": "x"}] * len(job.runs)))
            )

        def renew(self, number: int) -> None:
            pass

    monkeypatch.setattr(sweeps, "Pool", Broken)
    runs = nets(resolved, 12)
    results = Sweep(runs, None, 2).train()
    assert [results[run.id] for run in runs] == [{"status": "x"}] * 12
    assert [number for number, _ in given].count(1) == 2


# ---- what a device has free ----------------------------------------------------------------------


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """nvml(visible, known) -> what the driver's library was asked for, of the devices that it knows."""

    def of(visible: str | None, known: dict[Any, int]) -> list[Any]:
        asked: list[Any] = []

        class NVMLError(Exception):
            pass

        def handle(name: Any) -> Any:
            asked.append(name)
            if name not in known:
                raise NVMLError
            return name

        made = SimpleNamespace(
            NVMLError=NVMLError,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByIndex=handle,
            nvmlDeviceGetHandleByUUID=handle,
            nvmlDeviceGetMemoryInfo=lambda name: SimpleNamespace(free=known[name]),
        )
        monkeypatch.setitem(sys.modules, "pynvml", made)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        devices._by_another_process.cache_clear()
        monkeypatch.setattr(devices, "_ASKED", "print(7, 8)")
        return asked

    return of


@pytest.mark.parametrize(
    ("visible", "asked"),
    [
        (None, [0, 1]),
        ("3,1", [3, 1]),
        ("1, 3,-1", [1, 3]),
        ("GPU-8f3a,GPU-11c2", ["GPU-8f3a", "GPU-11c2"]),
        ("MIG-5d1e,MIG-77aa", ["MIG-5d1e", "MIG-77aa"]),
    ],
)
def test_the_driver_is_asked_for_the_devices_that_are_visible(
    nvml: Callable[..., list[Any]], visible: str | None, asked: list[Any]
) -> None:
    free = {0: 10, 1: 11, 3: 13, "GPU-8f3a": 20, "GPU-11c2": 21, "MIG-5d1e": 30, "MIG-77aa": 31}
    found = nvml(visible, free)
    assert devices.free_memory() == [free[name] for name in asked]
    assert found == asked


def test_another_process_is_asked_where_the_driver_does_not_say(
    nvml: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml("GPU-8f,GPU-11", {})  # shortened: CUDA knows them, the driver's library does not
    assert devices.free_memory() == [7, 8]
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert devices.free_memory() == [7, 8]


@pytest.mark.parametrize("says", ["raise SystemExit(1)", "print('no')", "print(7)"])
def test_where_nobody_says_packs_are_not_bounded(
    nvml: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    nvml("GPU-8f,GPU-11", {})
    monkeypatch.setattr(devices, "_ASKED", says)
    assert devices.free_memory() == [float("inf")] * 2


def test_no_device_is_asked_nothing(nvml: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = nvml(None, {0: 10})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.free_memory() == []
    assert not asked
