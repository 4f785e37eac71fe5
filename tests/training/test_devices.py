"""What a CUDA device needs of training, as far as it can be seen without one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator

from robust_erm.core.devices import DEVICE, MEMORY, fault_of
from robust_erm.core.errors import ConfigError, in_one_line
from robust_erm.store.config import Run
from robust_erm.sweeps.sweep import Sweep
from robust_erm.sweeps.workers import Event
from robust_erm.training import module as module_
from robust_erm.training import pack as pack_
from robust_erm.training.module import RobustERM
from robust_erm.training.pack import train_pack
from robust_erm.training.precision import warn_of_slow_float64

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["data=gaussian", "data.d=20", "data.m=10", "model=linear", "attack=exact", "stop.steps=3", "stop.loss=null"]


# ---- which device ---------------------------------------------------------------------------------


def test_the_suite_is_of_the_cpu(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine with a GPU, here and in all processes that tests start; test_cuda.py alone uses it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert resolved().trainer.torch_device == torch.device("cpu")
    assert resolved("trainer.device=cuda").trainer.torch_device == torch.device("cuda")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_auto_is_resolved_without_the_cuda_runtime(
    resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened() -> bool:
        raise AssertionError("asks the runtime where the environment does not say otherwise")

    monkeypatch.setattr(torch.cuda, "is_available", opened)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    run = resolved("trainer.device=auto")
    assert run.trainer.torch_device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert run.trainer.torch_device == torch.device("cuda")


def test_a_fit_on_the_cpu_beside_a_gpu_is_what_was_asked_for(
    resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning warns of it, and here warnings are errors."""
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    (summary,) = train_pack([resolved(*SMALL)])
    assert isinstance(summary, dict)
    assert summary["device"] == "cpu"


def test_a_pack_is_trained_where_it_was_planned(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """A small pack under auto, beside a pretended GPU: on the CPU, and its summary says so."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cd = ["optimizer=cd", "optimizer/schedule=bounded_loss", "trainer.device=auto"]
    runs = [resolved(*SMALL, *cd, f"seed={seed}") for seed in range(2)]
    results = Sweep(runs, 0, None).train()
    assert [result["device"] for result in results.values() if isinstance(result, dict)] == ["cpu", "cpu"]
    (summary,) = train_pack([resolved(*SMALL, *cd, "seed=2")])
    assert isinstance(summary, dict)
    assert summary["device"] == "cpu"


# ---- its precision --------------------------------------------------------------------------------

SWITCHES = """
import sys, torch
sys.path[:0] = [{root!r}]
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
from robust_erm.training import {room}
def at(*_, **__):
    print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    raise SystemExit
{then}
"""
TRAINED = """
problem.Runs = at
from hydra import compose, initialize_config_dir
from robust_erm.store.config import resolve
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.lines import prepare
prepare()
initialize_config_dir(str(conf_dir()), version_base="1.3")
problem.build([resolve(compose("train", ["dtype=float32", "logger=none"]))], torch.device("cpu"))
"""
JUDGED = """
import robust_erm as re
def net(x):
    at()
re.evaluate(net, torch.zeros(4, 2), torch.ones(4), 0.1)
"""


@pytest.mark.parametrize("then", [TRAINED, JUDGED], ids=["runs and their evaluation", "a network of one's own"])
def test_tf32_is_off_whatever_the_environment_says(then: str) -> None:
    script = SWITCHES.format(root=str(ROOT), room="problem", then=then)
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["True True", "False False"], done.stderr


SETTINGS = {
    "nothing": "",
    "convolutions off": "b.cudnn.allow_tf32 = False",
    "algorithms by a race": "b.cudnn.benchmark = True",
    "products on": "torch.set_float32_matmul_precision('medium')",
    "all on, newer": "b.fp32_precision = 'tf32'",
    "products on, newer": "b.cuda.matmul.fp32_precision = 'tf32'",
    "convolutions off, newer": "b.cudnn.conv.fp32_precision = 'ieee'",
}
SHOWN = """
import sys, torch
sys.path[:0] = [{root!r}]
from robust_erm.training.precision import strict, strictly
b = torch.backends
def show():
    said = []
    for read in (torch.get_float32_matmul_precision, lambda: b.cudnn.allow_tf32, lambda: b.cuda.matmul.allow_tf32,
                 lambda: b.cuda.matmul.fp32_precision, lambda: b.cudnn.conv.fp32_precision,
                 lambda: b.cudnn.deterministic, lambda: b.cudnn.benchmark):
        try:
            said.append(read())
        except (RuntimeError, AttributeError) as error:  # switches of two kinds, and none of the newer kind
            said.append(type(error).__name__)
    print(*said)
{setting}
show()
with strictly():
    show()
show()
strict()
show()
"""


@pytest.mark.parametrize("setting", SETTINGS)
def test_whose_process_it_is_has_its_switches_back(setting: str) -> None:
    """However they were set: torch has older and newer switches, and each may overrule the other."""
    newer = hasattr(torch.backends.cuda.matmul, "fp32_precision")
    if setting.endswith("newer") and not newer:
        pytest.skip("this torch has no newer switches")
    script = SHOWN.format(root=str(ROOT), setting=SETTINGS[setting])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    before, within, after, ours = done.stdout.splitlines()
    off = f"highest False False {'ieee ieee' if newer else 'AttributeError AttributeError'} True False"
    assert before != off
    assert within == off
    assert after == before
    assert ours == off


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], torch.device]]:
    """card(major, minor) -> the first CUDA device, which has that compute capability."""

    def of(*capability: int) -> torch.device:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Card")
        warn_of_slow_float64.cache_clear()
        return torch.device("cuda:0")

    yield of
    warn_of_slow_float64.cache_clear()


@pytest.mark.parametrize("capability", [(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)])
def test_nothing_is_said_where_float64_is_fast(
    card: Callable[..., torch.device], capability: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_slow_float64(torch.float64, card(*capability))
    assert not caplog.messages


@pytest.mark.parametrize("capability", [(6, 1), (7, 5), (8, 6), (8, 9), (10, 3), (12, 0)])
def test_slow_float64_is_told_once(
    card: Callable[..., torch.device], capability: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    device = card(*capability)
    for _ in range(2):
        warn_of_slow_float64(torch.float64, device)
    warn_of_slow_float64(torch.float32, device)
    warn_of_slow_float64(torch.float64, torch.device("cpu"))
    (said,) = caplog.messages
    assert said.startswith("NVIDIA Card computes float64 at 1/32")
    assert "dtype=float32" in said


def test_every_pack_is_asked_about(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(pack_, "warn_of_slow_float64", lambda *given: asked.append(given))
    train_pack([resolved(*SMALL, "dtype=float32")])
    assert asked == [(torch.float32, torch.device("cpu"))]


def test_what_several_workers_say_alike_is_said_once_a_sweep(caplog: pytest.LogCaptureFixture) -> None:
    sweep: Any = Sweep([], None, None)
    for number, text in enumerate(["float64 is slow", "float64 is slow", "another thing"]):
        sweep._handle(Event(number, "progress", SimpleNamespace(number=number), {"said": (30, text)}))
    assert caplog.messages == ["float64 is slow", "another thing"]


# ---- its pace -------------------------------------------------------------------------------------


class Steps:
    """A pack at step 5 on a device, as far as a training step looks at it."""

    def __init__(self, device: str, said: list[str]) -> None:
        self.theta = SimpleNamespace(device=torch.device(device))
        self.t, self.looks, self.order, self.seeds, self.said = 5, None, None, [0], said
        self.status, self.running = torch.zeros(1, dtype=torch.int8), torch.tensor([0])

    def advance(self, n: int) -> None:
        self.said.append("advance")
        self.t += n


@pytest.mark.parametrize(("device", "waits"), [("cuda:1", ["cuda:1 is done"]), ("cpu", [])])
def test_the_pace_is_that_of_steps_taken(device: str, waits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = iter([0.0, 1.0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda which: said.append(f"{which} is done"))
    monkeypatch.setattr(module_, "time", SimpleNamespace(monotonic=lambda: (said.append("clock"), next(clock))[1]))
    training: Any = RobustERM(Steps(device, said), SimpleNamespace(), [0, 10_000], 5000)  # type: ignore[arg-type]
    training.training_step(None, 0)
    assert said == ["clock", "advance", *waits, "clock"]
    assert training.chunk == 5, "half a second's steps, where 10 took one"


# ---- its errors -----------------------------------------------------------------------------------


def raised(error: Exception, beside: Exception | None = None, wrapped: bool = False) -> BaseException:
    """``error`` as it is caught: raised beside another, or wrapped in one."""
    try:
        try:
            raise error
        except Exception as first:
            if wrapped:
                raise ValueError("measure raises something") from first
            if beside is not None:
                raise beside  # noqa: B904
            raise
    except Exception as caught:
        return caught


OOM = torch.cuda.OutOfMemoryError
Accelerator = getattr(torch, "AcceleratorError", None)  # of torch since 2.8
ERRORS: list[tuple[BaseException, str]] = [
    (RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"), DEVICE),
    (OOM("CUDA out of memory. Tried to allocate 2.00 GiB"), MEMORY),
    (OOM("no words"), MEMORY),
    (RuntimeError("CUDA error: out of memory"), MEMORY),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), MEMORY),
    (RuntimeError("the size of tensor a must match"), ""),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), ""),
    (MemoryError("out of memory"), ""),
    (ValueError("CUDA error: in a user's own words"), ""),
    (raised(RuntimeError("CUDA error: x"), wrapped=True), DEVICE),
    (raised(OOM("CUDA out of memory"), wrapped=True), MEMORY),
    (raised(RuntimeError("CUDA error: x"), ValueError("no checkpoint could be written")), DEVICE),
    (raised(OOM("CUDA out of memory"), RuntimeError("CUDA error: then this")), DEVICE),
]
if Accelerator is not None:
    ERRORS += [(Accelerator("uncorrectable ECC error"), DEVICE), (Accelerator("CUDA error: out of memory"), MEMORY)]


@pytest.mark.parametrize(("error", "fault"), ERRORS, ids=repr)
def test_whose_fault_an_error_is(error: BaseException, fault: str) -> None:
    assert fault_of(error) == fault
    with pytest.raises(type(error) if fault else ConfigError), in_one_line("measure", "theirs", "measure"):
        raise error
