"""Shampoo's preconditioners of the two sides of each layer's matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.accumulators.accumulator import State, decay, faded
from robust_erm.core.fields import number, per_run
from robust_erm.core.linalg import product
from robust_erm.core.norms import power
from robust_erm.core.params import Layout
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.schedules.schedule import log


@dataclass(frozen=True)
class Shampoo:
    """``L^(-1/4) G R^(-1/4)`` of each layer, L and R the means of ``G G'`` and ``G' G``, G its gradient of L.

    For beta = 0 this is ``U V'`` of G, the step of spectral descent. Published with sums in place of means, in which
    the gradients of a loss that falls to 0 are lost after the first. Means forget them, as Adam's do; they are not
    corrected for their start at 0. Roots are over the eigenvalues that are no rounding. A vector counts as one column,
    a convolution as (out, in * height * width).

    Args:
        beta: decay of L and R, in [0, 1).

    Reference:
        Gupta, Koren & Singer 2018, Alg. 1; Bernstein & Newhouse 2024, "Old optimizer, new norm", on beta = 0.
    """

    run_axis = True

    beta: float = per_run(0.9)

    name = "shampoo"

    def __post_init__(self) -> None:
        decay("beta", self.beta)

    @property
    def scales_with_loss(self) -> bool:
        """False: the length of the gradient cancels."""
        return False

    def norm(self, geometry: Any) -> Any:
        """In l_2 the largest spectral norm of the layers, where L and R have forgotten what was; else not known."""
        return Layers() if geometry == Lp(2.0) else geometry

    def init(self, theta: Tensor, layout: Layout) -> State:
        """L~ = R~ = 0."""
        state = {"unit": torch.full_like(theta[0], -math.inf)}
        for name, g in _matrices(theta, layout):
            for side, size in zip(("left", "right"), g.shape[-2:], strict=True):
                state[f"{side}_{name}"] = theta.new_zeros(size, size)
        return state

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """See :class:`robust_erm.accumulators.accumulator.Accumulator`."""
        unit, old, new = faded(log_loss, state["unit"], log(self.beta, log_loss) / 2)
        beta = number(self.beta, log_loss)
        keep, add = (share[..., None, None] for share in (beta * old**2, (1 - beta) * new**2))
        found, given = {"unit": unit}, []
        for name, g in _matrices(grad, layout):
            left, right = product(g, g.mT), product(g.mT, g)
            found[f"left_{name}"] = left = keep * state[f"left_{name}"] + add * left
            found[f"right_{name}"] = right = keep * state[f"right_{name}"] + add * right
            given.append(product(product(_root(left), g), _root(right)).flatten(-2))
        return torch.cat(given, -1), log_loss - unit, found


def _matrices(theta: Tensor, layout: Layout) -> Iterator[tuple[str, Tensor]]:
    """Names and matrices (..., a, b) of the parameters."""
    for (name, shape), p in zip(layout.shapes, layout.unflatten(theta).values(), strict=True):
        yield name, p.reshape(*theta.shape[:-1], shape[0], -1)


def _root(matrix: Tensor) -> Tensor:
    """``A^(-1/4)`` (..., a, a) of A = A' >= 0 over its eigenvalues that are no rounding; nan of what is not finite."""
    finite = matrix.isfinite().all(-1).all(-1)[..., None, None]
    values, vectors = torch.linalg.eigh(torch.where(finite, matrix, 0.0))
    zero = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * values[..., -1:]
    kept = values > zero
    roots = torch.where(kept, power(torch.where(kept, values, 1.0), -0.25), 0.0).unsqueeze(-2)
    return torch.where(finite, product(vectors * roots, vectors.mT), torch.nan)
