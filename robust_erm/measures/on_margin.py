"""How many training points are on the margin."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.measures.measure import Look


@dataclass(frozen=True)
class OnMargin:
    """``on_margin_count``, ``on_margin_share``: of points with a margin of at most ``(1 + slack) min_j margin_j``.

    Also ``on_margin_spread``, the largest margin over the least. All are nan where the least is not positive.

    Args:
        attack: after which the margins are; ``clean`` points, ``worst``, or the name of an attack.
        slack: 0.1 in vardi2022 Sec. 6.
    """

    attack: str = "clean"
    slack: float = 0.1

    def __post_init__(self) -> None:
        require(self.slack >= 0, "slack", self.slack, "must be 0 or more")

    def measure(self, look: Look) -> dict[str, float | Tensor]:
        """As above."""
        q = look.margins(self.attack)
        least = q.min()
        if not least > 0:
            return dict.fromkeys(("on_margin_count", "on_margin_share", "on_margin_spread"), float("nan"))
        near = q <= (1 + self.slack) * least
        spread = q.max() / least
        return {"on_margin_count": near.sum(), "on_margin_share": near.double().mean(), "on_margin_spread": spread}
