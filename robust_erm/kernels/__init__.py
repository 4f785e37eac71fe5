"""Compiled steps for models linear in their input: the numbers of the mapped step, faster."""

from __future__ import annotations

import logging
from typing import Any

from robust_erm.kernels.plan import plan
from robust_erm.step import Recipe

log = logging.getLogger(__name__)


def find(recipe: Recipe, x: Any, y: Any) -> Any:
    """The kernel for runs of ``recipe`` on the sets x (D, n, d), y (D, n), or None where there is none."""
    found = plan(recipe)
    if found is None or x.device.type != "cpu":
        return None
    try:
        from robust_erm.kernels.dense import Dense
        from robust_erm.kernels.sparse import Sparse
    except (ImportError, RuntimeError) as error:  # numba refuses where it finds no folder for its cache
        log.warning("no compiled kernels (%s): linear models train more slowly", error)
        return None
    return (Sparse if found.sparse else Dense)(found, x, y)
