"""What every model states, and the initialisation that they share."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from robust_erm.core.params import Params


class Model(Protocol):
    """A model f(x; params): hyperparameters, and two pure functions.

    A model that is linear in its input also has ``weight(params)``, the predictor (d,) or (C, d):
    the exact attack, exact risks and l_p margins of the predictor are read from it. A fully connected model may
    have ``stack``, its layers by name (:class:`robust_erm.core.stack.Stack`): its derivatives are then matrix products.
    With ``fills_device = True`` runs are trained one after another on a device, and not mapped.
    """

    @property
    def degree(self) -> int | None:
        """L with f(x; a params) = a^L f(x; params) for a > 0; None where there is none."""
        ...

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """Fresh parameters for inputs (n, d) and ``outputs`` logits (1 for two classes)."""
        ...

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """f(x): x (n, d) -> (n,) for one logit, (n, C) for several."""
        ...


def uniform(shape: tuple[int, ...], fan_in: int, scale: float, generator: torch.Generator) -> Tensor:
    """PyTorch's default for linear and convolutional layers: U(-b, b), b = scale / sqrt(fan_in)."""
    bound = scale / math.sqrt(fan_in)
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * bound


def gaussian(shape: tuple[int, ...], scale: float, generator: torch.Generator) -> Tensor:
    """N(0, scale^2), whatever the layer's fan-in."""
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)
