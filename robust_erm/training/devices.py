"""Where a pack is trained, and what CUDA devices have free: asked without opening one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec

import torch

from robust_erm.store.config import UNKNOWN, Run
from robust_erm.training.kernels.plan import plan
from robust_erm.training.resources import layout_of
from robust_erm.training.step import Recipe

CPU = torch.device("cpu")
_ASKED = "import torch; print(*(torch.cuda.mem_get_info(k)[0] for k in range(torch.cuda.device_count())))"


def chosen(runs: Sequence[Run]) -> torch.device:
    """Where a pack is trained: as ``trainer.device`` says; ``auto`` is CUDA where there is one, but for small packs.

    Those have a compiled form of the whole step on the CPU, and are done there sooner. Their R runs of m points in d
    dimensions take 8e-11 R m d s a step on one thread; on a GPU 1.6e-4 s and 3e-12 R m d s, after 5 s of a beginning.
    Measured by tests/gpu_check.py (part ``where``) in float64, R = 64, d = 512, m = 64 to 1,024: an H200 took 168 to
    258 microseconds a step, as a graph, and a core beside it 236 to 2,785.
    """
    first = runs[0]
    device = first.trainer.torch_device
    if first.trainer.device != "auto" or device.type != "cuda":
        return device
    work = len(runs) * (first.points or UNKNOWN) * first.data.dimension
    on_cpu, on_gpu = 8e-11 * work * first.steps, 5 + (1.6e-4 + 3e-12 * work) * first.steps
    return CPU if on_cpu < on_gpu and has_whole_step(first) else device


def has_whole_step(run: Run) -> bool:
    """Whether a CPU has a compiled form of the whole step of ``run``."""
    whole = run.batch.whole(run.points or UNKNOWN)
    if not whole or not hasattr(run.model, "weight") or find_spec("numba") is None:
        return False
    sparse = getattr(run.data, "sparse", False)
    return plan(Recipe(run.model, layout_of(run), run.objective, run.optimizer, run.attack, None, sparse)) is not None


def free_memory() -> list[float]:
    """Free bytes of every CUDA device that this process sees, found without a context of its own.

    A context takes memory for as long as the process lives, and on clusters may be the only one that a device allows.
    inf where nobody says: packs then find their size by halving.
    """
    count = torch.cuda.device_count()
    for found in (_by_nvml, _by_another_process):
        if count and len(free := found(count)) == count:
            return free
    return [math.inf] * count


def _by_nvml(count: int) -> list[float]:
    """From the driver's library, where the package nvidia-ml-py is installed; nothing where that fails."""
    try:
        import pynvml
    except ImportError:
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = list(map(str, range(count))) if names is None else [name.strip() for name in names.split(",")][:count]
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdigit()
            else pynvml.nvmlDeviceGetHandleByUUID(name)  # of a whole device, GPU-..., or of a slice, MIG-...
            for name in visible
        ]
        return [float(pynvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles]
    except pynvml.NVMLError:  # such as a UUID that was shortened, which CUDA understands
        return []


@cache
def _by_another_process(count: int) -> list[float]:
    """From a process that opens each device for a moment, asked once; nothing where that fails."""
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        line = [sys.executable, "-c", _ASKED]
        said = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout
        return list(map(float, said.split()))
    return []
