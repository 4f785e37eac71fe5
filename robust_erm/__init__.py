"""robust-erm: the implicit bias of optimisation in adversarially robust training, measured.

Users type the modules at this level: train, evaluate, reproduce, results, page, gallery, workspace, and slurm.
From Python, ``import robust_erm as re``: ``re.train(...)``, ``re.load_run(folder)``, ``re.evaluate(net, x, y, eps)``
and ``re.Arrays(x, y)``; see :mod:`robust_erm.api`.
The science: data, models, objectives, optimizers with their geometries, accumulators and schedules, attacks (one
folder for each group of conf/), oracles, and core, the mathematics that they share. The machinery: training, sweeps,
slurm, evaluation. What lies on disk: store. What people see: reports. What papers claim: papers. Imports go one way;
see robust_erm/README.md.
"""

import os
from importlib import import_module
from typing import Any

# else MKL rounds by where in memory an array begins, on AMD's processors, and a run by its pack; it reads this once, at
# its first product. See core/linalg.py
os.environ.setdefault("MKL_CBWR", "AUTO")

_API = ("Arrays", "ConfigError", "load_run")  # of robust_erm.api
_COMMANDS = ("train", "evaluate")  # modules, that may be called as the functions of robust_erm.api of that name

__all__ = ["Arrays", "ConfigError", "evaluate", "load_run", "train"]


def __getattr__(name: str) -> Any:
    """What Python users call, imported when it is first asked for."""
    if name in _API:
        return getattr(import_module("robust_erm.api"), name)
    if name in _COMMANDS:
        return import_module(f"robust_erm.{name}")
    raise AttributeError(f"module 'robust_erm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API, *_COMMANDS])
