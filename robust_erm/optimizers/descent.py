"""Descent made of its factors: a geometry, an accumulator and a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_erm.optimizers.optimizer import Composed

# what is published under a name: geometry, accumulator, whether normalized
PUBLISHED = {
    ("l2", "momentum", True): "nmd",
    ("linf", "momentum", True): "signum",
    ("linf", "lion", True): "lion",
    ("spectral", "nesterov", True): "muon",
    ("spectral_ns", "nesterov", True): "muon_ns",
    ("l2", "shampoo", False): "shampoo",
}


@dataclass(frozen=True)
class Descent(Composed):
    """``theta - eta u``, u the steepest direction of what the accumulator makes of the gradients.

    Args:
        geometry: the norm in which u has length 1, a :class:`robust_erm.geometries.geometry.Geometry`.
        accumulator: a :class:`robust_erm.accumulators.accumulator.Accumulator`.
        schedule: step sizes.
        normalized: false multiplies u by the dual norm of what the accumulator gives.
    """

    run_axis = True

    schedule: Any
    geometry: Any
    accumulator: Any
    normalized: bool = True

    @property
    def nickname(self) -> str:
        """The published name, or both factors: ``l3_nesterov``. For names of folders."""
        both = getattr(self.geometry, "nickname", self.geometry.name), self.accumulator.name
        return PUBLISHED.get((*both, self.normalized), "_".join(both))
