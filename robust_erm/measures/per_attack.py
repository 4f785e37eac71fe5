"""Margins and losses under each attack alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.measures.margins import over_norms
from robust_erm.measures.measure import CLEAN, Look


@dataclass(frozen=True)
class PerAttack:
    """``margin_under_<attack>`` over norms as ``margin_robust`` is, and ``log_loss_under_<attack>``.

    For each attack of the evaluation alone, and for ``clean`` points. ``margin_robust`` is the least of all these, so
    that another evaluation attack may change its curve; these stay.
    """

    run_axis = True

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        found: dict[str, Tensor] = {}
        for name in (CLEAN, *look.attacks):
            found |= over_norms(look, f"margin_under_{name}", look.margins(name).amin(-1))
            found[f"log_loss_under_{name}"] = look.loss(name)
        return found
