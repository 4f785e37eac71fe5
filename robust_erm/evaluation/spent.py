"""What attacks ask of a network: forward passes and gradients, counted by points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from robust_erm.attacks.attack import Victim


@dataclass
class Spent:
    """Forward passes without (``queries``) and with a gradient in the inputs (``gradients``), points times passes."""

    queries: int = 0
    gradients: int = 0


@dataclass(frozen=True)
class Counted(Victim):
    """A victim that counts what it is asked for."""

    spent: Spent = field(default_factory=Spent)

    def margin(self, x: Tensor) -> Tensor:
        """And a query for each point."""
        self.spent.queries += len(x)
        return super().margin(x)

    def gradient(self, of: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """And a gradient for each point."""
        self.spent.gradients += len(x)
        return super().gradient(of, x)


@lru_cache(maxsize=256)
def of_each_point(attack: Any, outputs: int) -> Spent:
    """What ``attack`` asks for each point of a net with so many logits: the same for every point and net.

    Counted on a small linear net.
    """
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(4, max(outputs, 1), generator=generator, dtype=torch.float64)
    x, spent = torch.rand(1, 4, generator=generator, dtype=torch.float64), Spent()

    def net(z: Tensor) -> Tensor:
        return z @ w[:, 0] if outputs == 1 else z @ w

    victim = Counted(net, x, torch.ones(1, dtype=torch.float64), (0.0, 1.0), None, spent)
    attack.perturb(victim, x.new_tensor(0.1), attack.draw(1, 4, generator))
    return spent
