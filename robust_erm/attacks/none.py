"""No attack: standard training, clean evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.attacks.attack import Deterministic, Victim
from robust_erm.core.norms import Norm


@dataclass(frozen=True)
class NoAttack(Deterministic):
    """Leaves x as it is.

    Args:
        p: the threat that ``eps_unit=margin`` refers to, nothing else.
    """

    p: float = float("inf")

    def __post_init__(self) -> None:
        Norm(self.p)

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X."""
        return victim.x
