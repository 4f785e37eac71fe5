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
from robust_erm.training.points import CHUNK


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
def _layout(model: Any, d: int, outputs: int) -> Layout:
    return Layout.of(model.init(d, outputs, torch.Generator()))


def layout_of(run: Run) -> Layout:
    """The layout of the parameters of ``run``."""
    return _layout(run.model, run.data.dimension, run.outputs)


def of_point(model: Any, layout: Layout, d: int) -> int:
    """Numbers that a step makes of one point, an upper estimate: 6 of each of its own, 3 of each in a forward pass.

    Those are x', its gradient and their temporaries; and what is kept for the way back, and made on it.
    """
    return 6 * d + 3 * _made(model, layout, d)


@lru_cache(maxsize=256)
def _made(model: Any, layout: Layout, d: int) -> int:
    params = layout.unflatten(torch.zeros(layout.size, dtype=torch.float64))
    if isinstance(stack := getattr(model, "stack", None), Stack):  # counting imports torch's compiler, a second's work
        return stack.numbers(params)
    x = torch.zeros(1, d, dtype=torch.float64)
    with _Counted([*params.values(), x]) as counted:
        model.apply(params, x)
    count: int = counted.count
    return count


def parameters(run: Run) -> int:
    """How many parameters the model of ``run`` has."""
    return layout_of(run).size


def of_run(run: Run) -> int:
    """Bytes that one run adds to a pack, data aside; an upper estimate.

    Parameters count 12 times (state, gradient, direction, best state, their copies while stepping), points as in
    :func:`of_point`.
    """
    layout = layout_of(run)
    points = max(min(batch(run), run.trainer.points or batch(run)), CHUNK)
    return _itemsize(run) * (12 * layout.size + points * of_point(run.model, layout, run.data.dimension)) + 2**16


def of_libraries(run: Run) -> int:
    """Bytes that libraries set aside on a GPU for a pack, whatever its size: measured, on an H200.

    Allocations are rounded up; beside that convolutions took 1.1 GiB, and fully connected nets 20 MiB.
    """
    known = getattr(run.model, "stack", None) is not None or hasattr(run.model, "weight")
    return 2**27 if known else 5 * 2**28


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
