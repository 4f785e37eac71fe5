"""How much memory a run needs, and how much memory and how many cores this machine has."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from robust_erm.core.errors import ConfigError, require
from robust_erm.core.params import Layout
from robust_erm.core.stack import Stack
from robust_erm.store.config import UNKNOWN, Run
from robust_erm.store.identity import word
from robust_erm.training.attacked import CHUNK


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers in every tensor that is made; views of others are none."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known, self.count = known, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            made = all(out.untyped_storage().data_ptr() != t.untyped_storage().data_ptr() for t in self.known)
            self.count += made * out.numel()
            self.known.append(out)  # kept alive, so that no address is used twice
        return out


_LARGE = 10_000_000  # parameters times training points from which a product is worth several threads
_FACTORIES = (torch.rand, torch.randn, torch.zeros, torch.ones, torch.empty, torch.full)


class Bounded(TorchFunctionMode):
    """While it is on, tensors of more than half of the memory there is are refused before they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.left = available() / 2

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES and args:
            size = args[0] if isinstance(args[0], (tuple, list)) else [a for a in args if isinstance(a, int)]
            needs = 8.0 * math.prod(map(float, size))
            if needs > self.left:
                says = f"needs parameters of {needs / 2**30:,.1f} GiB here, more than this machine has to spare"
                raise ConfigError("", "init", says)
            self.left -= needs
        return func(*args, **(kwargs or {}))


def require_room(data: Any) -> None:
    """Raise :class:`ConfigError` where the points of a data set would not fit into memory."""
    points = sum(getattr(data, key, None) or 0 for key in ("m", "m_test"))
    sparse = getattr(data, "linear_test_bytes", None) is not None and getattr(data, "k_x", 0) < data.dimension
    needs = 8.0 * data.dimension * (getattr(data, "m", 0) if sparse else points)
    has = available()
    says = f"needs {needs / 2**30:,.1f} GiB for its points, this machine has {has / 2**30:,.1f} to spare"
    require(needs < has, "data", word(data), f"{says}: fewer or smaller points")


@lru_cache(maxsize=256)
def _sizes(model: Any, d: int, outputs: int) -> tuple[int, int]:
    """Parameters, and numbers made in one forward pass of one point."""
    params = model.init(d, outputs, torch.Generator())
    if isinstance(stack := getattr(model, "stack", None), Stack):  # counting imports torch's compiler, a second's work
        return Layout.of(params).size, stack.numbers(params)
    x = torch.zeros(1, d, dtype=torch.float64)
    with _Counted([*params.values(), x]) as counted:
        model.apply(params, x)
    return Layout.of(params).size, counted.count


def parameters(run: Run) -> int:
    """How many parameters the model of ``run`` has."""
    return _sizes(run.model, run.data.dimension, run.outputs)[0]


def of_run(run: Run) -> int:
    """Bytes that one run adds to a pack, data aside; an upper estimate.

    Parameters count 12 times (state, gradient, direction, best state, their copies while stepping),
    points 6 times (x', its gradient, their temporaries) and activations 3 times (forward, backward).
    """
    parameters, made = _sizes(run.model, run.data.dimension, run.outputs)
    points = max(min(batch(run), run.trainer.points or batch(run)), CHUNK)
    d: int = run.data.dimension
    return _itemsize(run) * (12 * parameters + points * (6 * d + 3 * made)) + 2**16


def batch(run: Run) -> int:
    """Points that a step sees."""
    points = _points(run, "m")
    return points if run.batch.size is None else min(points, run.batch.size)


def of_data(run: Run) -> int:
    """Bytes of one data set: drawn, and as tensors."""
    points = _points(run, "m")
    of_test: int | None = getattr(run.data, "linear_test_bytes", None) if hasattr(run.model, "weight") else None
    if of_test is None:
        points += _points(run, "m_test")
    d: int = run.data.dimension
    return (8 + 3 * _itemsize(run)) * d * points + (of_test or 0)


def _points(run: Run, key: str) -> int:
    points = getattr(run.data, key, None)
    return UNKNOWN if points is None else int(points)


def _itemsize(run: Run) -> int:
    return 8 if run.dtype == "float64" else 4


def available() -> int:
    """Bytes of memory that can still be had: of the machine, and of the control group we run in."""
    found = [math.inf]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    root = Path("/sys/fs/cgroup")
    v1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
    for limit, used in (("memory.max", "memory.current"), v1):
        with suppress(OSError, ValueError):
            found.append(int((root / limit).read_text()) - int((root / used).read_text()))
    for name, times in (("SLURM_MEM_PER_NODE", "1"), ("SLURM_MEM_PER_CPU", os.environ.get("SLURM_CPUS_ON_NODE", "1"))):
        megabytes = os.environ.get(name) or ""  # what a job was given; its control group lies elsewhere
        if megabytes.isdigit() and int(megabytes):
            found.append(int(megabytes) * int(times) * 2**20)
    if min(found) == math.inf:  # not Linux
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2)
    return int(min(found))


def cores() -> int:
    """Cores that this process may use."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, int(os.environ.get("SLURM_CPUS_PER_TASK") or own))  # not all clusters confine a job to its cores


def threads_for(run: Run, cores: int) -> int:
    """Torch's own threads: what the config says, else one for small problems, where more only wait."""
    if run.trainer.threads is not None:
        return run.trainer.threads
    work = parameters(run) * batch(run)
    return cores if work >= _LARGE else 1
