"""Descent made of its factors: a geometry, an accumulator and a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_erm.optimizers.optimizer import Composed

# what is published under a name: steps of one length, in this geometry, with this accumulator
PUBLISHED = {
    ("l2", "momentum"): "nmd",
    ("linf", "momentum"): "signum",
    ("linf", "lion"): "lion",
    ("spectral", "nesterov"): "muon",
    ("spectral_ns", "nesterov"): "muon_ns",
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
        return PUBLISHED[both] if self.normalized and both in PUBLISHED else "_".join(both)
