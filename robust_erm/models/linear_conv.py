"""f(x; k_1..k_L) = <k_1 * ... * k_L, x>, circular convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from robust_erm.core.errors import at_most, positive, require
from robust_erm.core.fields import per_run
from robust_erm.core.linalg import matvec
from robust_erm.core.params import Params
from robust_erm.models.model import uniform


@dataclass(frozen=True)
class LinearConv:
    """Linear convolutional network of full width, ``w = k_1 * ... * k_L`` with circular convolutions.

    ``w_j = sum_i a_i b_{(j - i) mod d}`` for two filters. In the Fourier basis it is a diagonal network: the transform
    of w is the product of the filters', and gradient descent, which seeks a small ``sum_l ||k_l||_2^2``, seeks a small
    ``||F w||_{2/L}``, F the unitary discrete Fourier transform.

    Args:
        depth: L, the number of filters.
        init_scale: factor on PyTorch's default uniform initialisation, with fan-in d.

    Reference:
        Gunasekar, Lee, Soudry & Srebro 2018, "Implicit bias of gradient descent on linear convolutional networks".
    """

    depth: int = 2
    init_scale: float = per_run(1.0)

    def __post_init__(self) -> None:
        at_most("depth", self.depth, 1000)
        positive("init_scale", self.init_scale, "must be positive and finite: zero is a stationary point")

    @property
    def degree(self) -> int | None:
        """L."""
        return self.depth

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """k1, ..., kL, each (d,)."""
        require(outputs == 1, "", "linear_conv", f"has one logit, the data has {outputs} classes; use model=linear")
        return {f"k{k}": uniform((d,), d, self.init_scale, generator) for k in range(1, self.depth + 1)}

    def weight(self, params: Params) -> Tensor:
        """W (d,)."""
        return reduce(_convolved, (params[f"k{k}"] for k in range(1, self.depth + 1)))

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """X (n, d) -> (n,)."""
        return matvec(x, self.weight(params))


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    """The circular convolution of a (d,) and b (d,), by the matrix whose rows are b turned round and shifted."""
    each = torch.arange(len(a), device=a.device)
    return matvec(b[each[:, None] - each], a)  # an index below 0 counts from the end
