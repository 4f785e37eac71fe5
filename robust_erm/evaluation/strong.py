"""Strong attacks on trained runs, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.attacks.attack import Attack
from robust_erm.training.attacked import attacked_among, clean
from robust_erm.training.points import Points
from robust_erm.training.runs import Runs

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What the attacks left of n points.

    Args:
        least: (n,) the least margin that any attack reached; the point is robust, as far as we know, where positive.
        after: accuracy after each attack, all before it included, by name; ``clean`` first.
    """

    least: Tensor
    after: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Share of points that no attack has pushed to a margin of 0 or less."""
        return float((self.least > 0).double().mean())


def attacked(
    runs: Runs, attacks: dict[str, Attack], points: Points, eps: Tensor, rows: Tensor, tick: Tick = lambda _: None
) -> list[Found]:
    """The attacks in turn, each on the points that those before it have left; one answer a run."""
    least = clean(runs, points, rows)
    after = {"clean": least}
    for name, attack in attacks.items():
        tick(name)
        least = torch.minimum(least, attacked_among(runs, attack, points, eps, rows, least > 0))
        after[name] = least
    shares = {name: (value > 0).double().mean(-1).tolist() for name, value in after.items()}
    return [Found(least[k], {name: share[k] for name, share in shares.items()}) for k in range(len(rows))]
