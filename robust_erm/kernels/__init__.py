"""Compiled forms of steps and gradients on a CPU: the numbers of the mapped form, faster.

Where numba finds no folder for its cache, or is missing, there are none, and a warning says so.
"""

from __future__ import annotations

import logging
from typing import Any

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
    return (Sparse if found.sparse else Dense)(found, x, y)


def for_net(recipe: Recipe, attack: Any) -> Any:
    """What computes loss, gradient and margins under ``attack``, or None where only the mapped form does."""
    if not plan.known_net(recipe, attack):
        return None
    try:
        from robust_erm.kernels.net import Net
    except (ImportError, RuntimeError) as error:
        log.warning("no compiled kernels (%s): nets train more slowly", error)
        return None
    return Net(recipe, attack)
