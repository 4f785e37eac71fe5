"""What stands between two layers of a fully connected model: values for autograd, and derivatives written out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_erm.core.norms import Norm, power

KINDS = ("relu", "leaky", "identity", "power")


@dataclass(frozen=True)
class Activation:
    """``a(z)`` for the pre-activations z of a hidden layer whose weight W has the rows w_j in d dimensions.

    ``z``; ``relu(z)``; leaky ``z`` where z > 0 and ``slope z`` elsewhere; or power
    ``relu(z_j)^p / (||w_j||_2 sqrt(d))^(p-1)``, which is 0 with derivatives 0 where w_j = 0. All have degree 1 in a
    unit's weight and bias together. At a kink the derivative is that of the left side, as PyTorch's is.

    Args:
        kind: one of ``KINDS``.
        slope: of leaky.
        p: of power, above 1; 1 would be relu.

    Reference:
        Min & Vidal 2024, "Can implicit bias imply adversarial robustness?" (power, there without the constant sqrt(d)).
    """

    kind: str = "identity"
    slope: float = 0.01
    p: float = 1.0

    @property
    def numbers(self) -> int:
        """How many numbers ``value`` makes for each that it gives, those on the way included."""
        return {"identity": 0, "relu": 1, "leaky": 1, "power": 8 if self.p == 2 else 11}[self.kind]

    def value(self, z: Tensor, weight: Tensor) -> Tensor:
        """The a (..., n, h) for z (..., n, h) and W (..., h, d), by functions that autograd knows."""
        if self.kind == "identity":
            return z
        if self.kind == "leaky":
            return F.leaky_relu(z, self.slope)
        return z.relu() * self._share(z, weight) if self.kind == "power" else z.relu()

    def forward(self, z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """The a, and what :meth:`back` needs (..., n, h): da/dz, of relu a itself, or None where da/dz is 1.

        May write on z.
        """
        if self.kind == "power":
            share = self._share(z, weight)
            return z.relu() * share, self.p * share
        if self.kind == "relu":
            a = z.relu_()
            return a, a
        on = z > 0
        if self.kind == "leaky":
            return self.value(z, weight), torch.where(on, torch.ones_like(z), torch.full_like(z, self.slope))
        return z, None

    def back(self, slope: Tensor, kept: Tensor | None) -> Tensor:
        """``slope da/dz`` (..., n, h) for the slopes of a function in a, and what :meth:`forward` kept.

        May write on slope.
        """
        if kept is None:
            return slope
        if self.kind == "relu":  # one pass, as autograd has it; a product with a mask takes four times as long
            torch.ops.aten.threshold_backward.grad_input(slope, kept, 0, grad_input=slope)
            return slope
        return slope * kept

    def through_weight(self, weight: Tensor, a: Tensor, slope: Tensor) -> Tensor | None:
        """What W does other than through z: ``sum_ij slope_ij da_ij/dW`` (..., h, d) at fixed z, or None for nothing.

        ``da_ij/dw_j = -(p-1) a_ij w_j / ||w_j||^2`` for power.
        """
        if self.kind != "power":
            return None
        size = Norm(2.0).value(weight)
        size = torch.where(size > 0, size, torch.ones_like(size))
        pull = (slope * a).sum(-2) / size
        return (1 - self.p) * pull.unsqueeze(-1) * (weight / size.unsqueeze(-1))

    def _share(self, z: Tensor, weight: Tensor) -> Tensor:
        """``(relu(z_j) / (||w_j|| sqrt(d)))^(p-1)``; 0 where w_j = 0, and for ratios below the range of numbers."""
        length = (Norm(2.0).value(weight) * math.sqrt(weight.shape[-1])).unsqueeze(-2)
        on = (z > torch.finfo(z.dtype).tiny * length) & (length > 0)
        ratio = torch.where(on, z, 1.0) / torch.where(on, length, 1.0)
        return torch.where(on, power(ratio, self.p - 1), 0.0)


IDENTITY = Activation()
