"""Adam (Kingma & Ba 2015), for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_erm.accumulators.moments import Moments
from robust_erm.core.fields import per_run
from robust_erm.geometries.lp import Lp
from robust_erm.optimizers.optimizer import Composed


@dataclass(frozen=True)
class Adam(Composed):
    """Adam on L: :class:`robust_erm.accumulators.moments.Moments` as they are, as torch.optim.Adam's steps.

    Args:
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: 1e-8 is PyTorch's default; 0 keeps the method invariant to the scale of the loss.
        schedule: step sizes.
    """

    run_axis = True
    geometry = Lp(2.0)
    normalized = False

    schedule: Any
    beta1: float = per_run(0.9)
    beta2: float = per_run(0.999)
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _ = self.accumulator

    @property
    def accumulator(self) -> Moments:
        """Of these numbers."""
        return Moments(self.beta1, self.beta2, self.epsilon)
