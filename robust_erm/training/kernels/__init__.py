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
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_erm.accumulators.moments import Moments
from robust_erm.core.errors import first_line
from robust_erm.core.fields import unchanged
from robust_erm.core.params import Layout
from robust_erm.core.stack import Stack
from robust_erm.objectives import Objective
from robust_erm.optimizers.optimizer import Composed
from robust_erm.training.kernels import plan
from robust_erm.training.step import Recipe

log = logging.getLogger("robust_erm")


def whole_steps(recipe: Recipe, x: Tensor, y: Tensor) -> Any:
    """The kernel for steps of ``recipe`` on the sets x (D, n, d), y (D, n), or None where there is none."""
    found = plan.plan(recipe)
    kernel = None if found is None else _loaded("Sparse" if found.sparse else "Dense", x.dtype)
    return None if kernel is None else kernel(found, x, y)


def for_net(recipe: Recipe, attack: Any, dtype: torch.dtype) -> Any:
    """What computes loss, gradient and margins under ``attack``, or None where only the mapped form does."""
    kernel = _loaded("Net", dtype) if plan.known_net(recipe, attack) else None
    return None if kernel is None else kernel(recipe, attack)


@cache
def for_scores(objective: Objective, dtype: torch.dtype) -> Any:
    """What computes losses of outputs and scores and their derivatives on a CPU, or None for an objective of others."""
    kernel = _loaded("Scores", dtype) if unchanged(objective, Objective) else None
    return None if kernel is None else kernel(objective)


@cache
def for_attacks(dtype: torch.dtype) -> Any:
    """What takes steps of l_2 and l_inf attacks, and slopes of margins, on a CPU; None where nothing is compiled."""
    return _loaded("Attacks", dtype)


@cache
def for_stack(stack: Stack, layout: Layout, objective: Objective, dtype: torch.dtype) -> Any:
    """What trains and attacks small nets run by run on a CPU, or None for parts that it does not know."""
    kernel = _loaded("Stacks", dtype) if plan.known_stack(stack, objective) else None
    return None if kernel is None else kernel(stack, layout, objective)


def for_moments(optimizer: Any, dtype: torch.dtype) -> Any:
    """What accumulates the gradients of a composed optimizer on a CPU, or None for other memories than Adam's."""
    if not unchanged(optimizer, Composed, "norm", "scales_with_loss", "init", "init_layers"):
        return None
    if not unchanged(optimizer.accumulator, Moments):
        return None
    kernel = _loaded("Moments", dtype)
    return None if kernel is None else kernel.update


def _loaded(name: str, dtype: torch.dtype) -> Any:
    """The class of that name, ready to be used for numbers of ``dtype``; None where numba refuses."""
    try:
        kernel = getattr(import_module(f"robust_erm.training.kernels.{name.lower()}"), name)
    except (ImportError, RuntimeError) as error:
        log.warning("no compiled kernels (%s): linear models and nets train more slowly", error)
        return None
    return kernel if _ready(name, dtype) else None


def _cache_folder() -> Path | None:
    """The folder of numba's cache, None where it cannot be written to."""
    from robust_erm.training.kernels import compiled

    weigh: Any = compiled.weigh
    folder = Path(weigh._cache.cache_path)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time, for a moment; ``path`` is a file for this. The kernel forgets it when we die."""
    with path.open("a") as file:
        with suppress(OSError):  # some network file systems have none
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _warm_up(name: str, dtype: torch.dtype) -> None:
    """Have everything compiled, or loaded, that the class of that name calls."""
    from robust_erm.training.kernels import attacks, dense, moments, net, scores, sparse, stacks

    own: dict[str, Any] = {"Attacks": attacks, "Moments": moments, "Net": net, "Scores": scores, "Stacks": stacks}
    if name in own:
        own[name].warm_up(dtype)
    else:
        dense.tiny_run(sparse.Sparse if name == "Sparse" else dense.Dense, dtype)


@cache
def _ready(name: str, dtype: torch.dtype) -> bool:
    """Load everything that the class of that name calls, compiled by a process of its own where it is new.

    In the process that compiles it, a function may call other copies of its helpers than in those
    that load it, and differ in the last bit. So nobody trains with what they have compiled themselves.

    Returns:
        Whether it is there: a cache that is damaged is made anew, once; one that cannot be used is told of.
    """
    folder = _cache_folder()
    with nullcontext() if folder is None else _alone(folder / "compiling.lock"):
        for last in (False, True):
            try:
                if folder is not None:
                    _compile(folder, name, dtype, afresh=last)
                _warm_up(name, dtype)
                return True
            except Exception as error:  # numba passes on whatever a damaged file or a full disk raises
                if last or folder is None:
                    advice = "NUMBA_CACHE_DIR names another folder"
                    log.warning(
                        "no compiled kernels (%s: %s): training is slower; %s", folder, first_line(error), advice
                    )
    return False


def _compile(folder: Path, name: str, dtype: torch.dtype, afresh: bool) -> None:
    """Have everything compiled into ``folder`` that the class of that name calls, unless it is there.

    What was compiled from other sources, or is to be made afresh, is removed first: numba itself looks at the file of
    a function only, and not at those that it takes constants from.
    """
    import llvmlite.binding
    import numba

    here = Path(__file__).resolve().parent
    parts = (
        "compiled",
        "compiled_attacks",
        "compiled_moments",
        "compiled_net",
        "compiled_scores",
        "compiled_stacks",
        "plan",
    )
    sources = [(here / f"{part}.py").read_bytes() for part in parts]
    made_by = (sources, sys.version, numba.__version__, llvmlite.binding.get_host_cpu_name())
    version = hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]
    mark = folder / f"{name}-{dtype}-{version}.ready"
    if mark.exists() and not afresh:
        return
    if afresh or not list(folder.glob(f"*-{version}.ready")):
        for pattern in ("compiled*.nbi", "compiled*.nbc", "*.ready"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
    log.warning(
        "compiling loops (%s, %s), once on this machine: some seconds, up to half a minute", name.lower(), dtype
    )
    line = f"import torch; from robust_erm.training import kernels; kernels._warm_up({name!r}, {dtype})"
    paths = os.pathsep.join([str(here.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    if not subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True).returncode:
        mark.touch()
