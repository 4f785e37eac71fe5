"""What goes wrong in a chosen way: a data set, a measurement, a worker's job; workers import them by their names."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robust_erm.core.fields import per_run
from robust_erm.data.dataset import Dataset
from robust_erm.data.gaussian import Gaussian


@dataclass(frozen=True)
class Faulty(Gaussian):
    """raise, kill (as the system does when memory runs out), memory, or none."""

    fault: str = per_run("none")

    def draw(self, seed: int) -> Dataset:
        drawn = super().draw(seed)
        if self.fault == "raise":
            raise ValueError("the teacher has left\nand taken the labels")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "memory":
            torch.empty(2**60)
        return drawn


@dataclass(frozen=True)
class Breaks:
    """A measurement at which the device fails from step 10 on, as often as ``times`` says; it counts in ``folder``.

    device, memory (what torch raises), or own (a fault of nobody's device).
    """

    folder: str
    fault: str
    times: int = 1

    def measure(self, look: Any) -> dict[str, float]:
        so_far = len(list(Path(self.folder).glob("broken*")))
        if int(look.step) >= 10 and so_far < self.times:
            (Path(self.folder) / f"broken{so_far}").touch()
            raise ERRORS[self.fault]()
        return {"my_process": os.getpid()}


_DEVICE_ERROR = getattr(torch, "AcceleratorError", RuntimeError)  # of torch since 2.8
ERRORS: dict[str, Callable[[], Exception]] = {
    "device": lambda: _DEVICE_ERROR("CUDA error: an illegal memory access was encountered"),
    "memory": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "own": lambda: ValueError("the teacher has left"),
}


class Held:
    """Something that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


_HELD: list[weakref.ref[Held]] = []


def holds(job: str, report: Any, stop: Any, number: int) -> tuple[int, list[bool]]:
    """A worker's task: its process, and whether what earlier jobs held is there; ``job`` is how it ends."""
    gc.disable()
    there = [ref() is not None for ref in _HELD]
    held = Held()
    _HELD.append(weakref.ref(held))
    if job:
        raise ERRORS[job]()
    return os.getpid(), there
