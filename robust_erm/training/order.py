"""Mini-batches: which training points a step sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from robust_erm.core.streams import numpy_stream

Index = npt.NDArray[np.int64]


@dataclass
class Order:
    """Of epoch e, the points in a random order that is named by the run's seed and e alone.

    So nothing of it is kept in a checkpoint, and no run notices which others are trained beside it.

    Args:
        n: training points.
        size: points of a batch, fewer than n; the last of an epoch has what is left.
        steps: of an epoch.
    """

    n: int
    size: int
    steps: int
    _orders: dict[int, tuple[int, Index]] = field(default_factory=dict, repr=False)

    def of(self, epoch: int, seed: int) -> Index:
        """All points (n,) in the order of an epoch; step k of it sees ``size`` of them from k ``size`` on."""
        known = self._orders.get(seed)
        if known is None or known[0] != epoch:
            known = self._orders[seed] = epoch, numpy_stream(seed, f"order {epoch}").permutation(self.n)
        return known[1]

    def many(self, t: int) -> int:
        """How many points step t sees."""
        return min(self.size, self.n - t % self.steps * self.size)


def order_of(batch: Any, n: int) -> Order | None:
    """What a section ``batch`` (:class:`robust_erm.store.config.Batches`) asks for on n points; None: all at once."""
    return None if batch.whole(n) else Order(n, batch.size, batch.steps(n))
