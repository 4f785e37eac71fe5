"""How often every training point has been seen."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.measures.measure import Look


@dataclass(frozen=True)
class Epoch:
    """``epoch``: steps over the steps of an epoch; of full batches each step is one.

    Args:
        always: of full batches too, where it is the step.
    """

    run_axis = True
    always: bool = False

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        if look.epoch_steps is None and not self.always:
            return {}
        return {"epoch": look.step.double() / (look.epoch_steps or 1)}
