"""Compiled forms of steps and gradients on a CPU: the numbers of the mapped form, faster.

Where numba finds no folder for its cache, or is missing, there are none, and a warning says so.
"""

from __future__ import annotations

import fcntl
import logging
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
def _compiling() -> Iterator[None]:
    """One process at a time, on this machine and account."""
    from robust_erm.kernels import compiled

    shares: Any = compiled.shares
    with ExitStack() as held:
        with suppress(OSError):  # no folder to write to, or no flock: then without
            folder = Path(shares._cache.cache_path)
            folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((folder / "compiling.lock").open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _ready(kind: str, dtype: torch.dtype) -> None:
    """Compile, or load, everything of one kind.

    What is compiled beside a function that another process compiled can differ from it in the last
    bit (it is inlined, or it is not). So one process compiles all, and all others load what it made.
    """
    from robust_erm.kernels import dense, net, sparse

    warm = {"dense": dense.warm_up, "sparse": sparse.warm_up, "net": net.warm_up}[kind]
    with _compiling():
        warm(dtype)


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
