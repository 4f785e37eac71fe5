"""The loss that is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.measures.measure import Look


@dataclass(frozen=True)
class Loss:
    """``log_loss``: log of the training loss, worst-case under the training attack."""

    run_axis = True

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        return {"log_loss": look.log_loss}
