"""Compiled forms of steps and gradients on a CPU: the numbers of the mapped form, faster.

Where numba finds no folder for its cache, or is missing, there are none, and a warning says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_erm.kernels import plan
from robust_erm.step import Recipe

log = logging.getLogger("robust_erm")


def whole_steps(recipe: Recipe, x: Tensor, y: Tensor) -> Any:
    """The kernel for steps of ``recipe`` on the sets x (D, n, d), y (D, n), or None where there is none."""
    found = plan.plan(recipe)
    if found is None:
        return None
    try:
        from robust_erm.kernels.dense import Dense
        from robust_erm.kernels.sparse import Sparse
    except (ImportError, RuntimeError) as error:
        log.warning("no compiled kernels (%s): linear models train more slowly", error)
        return None
    _ready("sparse" if found.sparse else "dense", x.dtype)
    return (Sparse if found.sparse else Dense)(found, x, y)


@contextmanager
def _alone() -> Iterator[Path | None]:
    """The folder of numba's cache, to one process at a time; None where there is none to write to."""
    from robust_erm.kernels import compiled

    shares: Any = compiled.shares
    with ExitStack() as held:
        folder = None
        with suppress(OSError):
            found = Path(shares._cache.cache_path)
            found.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((found / "compiling.lock").open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
            folder = found
        yield folder


def _warm_up(kind: str, dtype: torch.dtype) -> None:
    """Have everything of one kind compiled, or loaded."""
    from robust_erm.kernels import dense, net, sparse

    {"dense": dense.warm_up, "sparse": sparse.warm_up, "net": net.warm_up}[kind](dtype)


@cache
def _ready(kind: str, dtype: torch.dtype) -> None:
    """Load everything of one kind, compiled by a process of its own where it is new.

    In the process that compiles it, a function may call other copies of its helpers than in those
    that load it, and differ in the last bit. So nobody trains with what they have compiled themselves.
    """
    import llvmlite.binding
    import numba

    here = Path(__file__).resolve().parent
    stamps = [(f.stat().st_mtime_ns, f.stat().st_size) for f in (here / "compiled.py", here / "compiled_net.py")]
    made_by = (stamps, sys.version, numba.__version__, llvmlite.binding.get_host_cpu_name())
    name = f"{kind}-{dtype}-{hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]}.ready"
    with _alone() as folder:
        if folder is not None and not (folder / name).exists():
            line = f"import torch; from robust_erm import kernels; kernels._warm_up({kind!r}, {dtype})"
            paths = os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
            environment = {**os.environ, "PYTHONPATH": paths}
            if not subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True).returncode:
                (folder / name).touch()
        _warm_up(kind, dtype)


def for_net(recipe: Recipe, attack: Any, dtype: torch.dtype) -> Any:
    """What computes loss, gradient and margins under ``attack``, or None where only the mapped form does."""
    if not plan.known_net(recipe, attack):
        return None
    try:
        from robust_erm.kernels.net import Net
    except (ImportError, RuntimeError) as error:
        log.warning("no compiled kernels (%s): nets train more slowly", error)
        return None
    _ready("net", dtype)
    return Net(recipe, attack)
