"""Steepest descent with respect to the largest spectral norm of all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_erm.accumulators.none import NoMemory
from robust_erm.geometries.layers import Layers
from robust_erm.optimizers.optimizer import Composed


@dataclass(frozen=True)
class Spectral(Composed):
    """Steepest descent for ``max_l ||W_l||_spectral``, Muon's geometry with exact polar factors.

    For ``grad_{W_l} = U S V'`` the direction is ``U V'`` over the non-zero singular values; the
    dual norm is the sum of the nuclear norms (:class:`robust_erm.geometries.layers.Layers`).

    Args:
        normalized: leave out the factor ``sum_l ||grad_{W_l}||_nuclear``.
        schedule: step sizes.
    """

    run_axis = True
    geometry = Layers()
    accumulator = NoMemory()

    schedule: Any
    normalized: bool = False
