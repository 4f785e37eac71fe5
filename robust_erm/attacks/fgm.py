"""One step of the fast gradient (sign) method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robust_erm.attacks.attack import Deterministic, Victim
from robust_erm.core.norms import Norm


@dataclass(frozen=True)
class FGM(Deterministic):
    """``x' = x - eps argmax_{||u||_p <= 1} <u, grad margin>``: FGSM for p = inf, l_2-FGM for p = 2.

    Args:
        p: exponent of the threat's norm, in [1, inf].
        box: keep x' in the data's domain, where it has one.

    Reference:
        Goodfellow et al. 2015; lyu2022 App. B.1, eqs (87) and (89).
    """

    samplewise: ClassVar[bool] = True
    p: float
    box: bool = True

    def __post_init__(self) -> None:
        Norm(self.p)

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d)."""
        box = victim.domain if self.box else None
        return victim.descend(Norm(self.p), eps, box)
