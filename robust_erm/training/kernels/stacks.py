"""Losses, and derivatives in parameters and inputs, of small fully connected nets: one run after another.

As batched products (:mod:`robust_erm.core.stack`) the values of all runs go through memory from product to product;
those of one small run stay near the core.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from robust_erm.attacks.attack import rounding
from robust_erm.core.norms import Box
from robust_erm.core.params import Layout
from robust_erm.core.stack import Stack
from robust_erm.objectives import Objective
from robust_erm.training.kernels import compiled_stacks as c
from robust_erm.training.kernels.attacks import BITS
from robust_erm.training.kernels.scores import Scores

_SLOPES = {"identity": 1.0, "relu": 0.0}  # below 0, over that above


class Stacks:
    """What :mod:`robust_erm.training.stacked` computes of runs of one stack."""

    def __init__(self, stack: Stack, layout: Layout, objective: Objective) -> None:
        ends = np.cumsum([math.prod(shape) for _, shape in layout.shapes])
        begins = dict(zip([name for name, _ in layout.shapes], [0, *ends[:-1].tolist()], strict=True))
        shapes, layers = dict(layout.shapes), []
        for weight, bias in stack.layers:
            assert weight is not None, "asked for before"
            *out, columns = shapes[weight]
            layers.append([begins[weight], math.prod(out), columns, -1 if bias is None else begins[bias]])
        self.layers = np.array(layers, dtype=np.int64)
        activation = stack.activation
        self.slope = _SLOPES.get(activation.kind, activation.slope)
        self.scores = Scores(objective)

    def at(self, theta: Tensor, n: int) -> At:
        """These nets at theta (R, P), on n points each."""
        return At(self, theta, n)


class At:
    """R runs of one stack at theta (R, P), on n points each.

    Weights are transposed once, whatever is computed with them. All arrays that the loops are given are contiguous:
    for others numba would compile anew, in this process.
    """

    def __init__(self, nets: Stacks, theta: Tensor, n: int) -> None:
        self.nets, self.theta, self.n = nets, theta, n
        self.made: tuple[Any, Any] | None = None  # parameters, and weights transposed

    def descend(
        self,
        p: float,
        y: Tensor,
        start: Tensor,
        length: Tensor,
        box: Box,
        ball: tuple[Tensor, Tensor] | None,
        steps: int,
    ) -> Tensor:
        """:meth:`robust_erm.attacks.attack.Victim.descend` for p = 2 or inf: X' (R, n, d).

        Args:
            p: exponent of the threat's norm.
            y: labels (R, n).
            start: (R, n, d).
            length: of a step, (R, n).
            box: bounds of every coordinate, or None.
            ball: centers (R, n, d) and radii (R, n), or None.
            steps: how many.
        """
        center, radius = ball or (start, length)
        out, (low, high) = start.new_empty(start.shape), box or (-math.inf, math.inf)
        given = *self._given(), *map(_of_one, (y, start, center))
        kind, work = given[0].dtype.type, start.new_empty(start.shape[1:]).numpy()
        ends = _of_all(length), _of_all(radius), ball is not None, kind(low), kind(high)
        how = p == math.inf, kind(rounding(start)), steps
        loop: Any = c.descend_into
        loop(*given, *ends, *how, work, work.view(BITS[kind]), out.numpy())
        return out

    def loss_and_grad(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Log losses (R,) and gradients (R, P), at points x (R, n, d) with labels y (R, n)."""
        log_loss, grad = self.theta.new_empty(len(self.theta)), self.theta.new_empty(self.theta.shape)
        given, scores = (*self._given(), _of_one(x), _of_one(y)), self.nets.scores
        c.grads_into(*given, scores.soft, scores.less(self.n), log_loss.numpy(), grad.numpy())
        return log_loss, grad

    def _given(self) -> tuple[Any, Any, np.ndarray, np.floating]:
        if self.made is None:
            rows = _of_all(self.theta)
            self.made = rows, c.turned_of(rows, self.nets.layers, self.n)
        return *self.made, self.nets.layers, self.made[0].dtype.type(self.nets.slope)


def warm_up(dtype: torch.dtype) -> None:
    """Have everything compiled that :class:`Stacks` calls, for numbers of ``dtype``.

    The BLAS that numba calls, scipy's, takes one thread from here on: it does not know of torch's number of threads,
    and its rounding depends on its own.
    """
    import scipy.linalg.cython_blas  # noqa: F401

    for library in ThreadpoolController().lib_controllers:
        if library.internal_api == "openblas" and "numpy.libs" not in library.filepath:  # numpy's own is no matter
            library.set_num_threads(1)
    square, row = torch.eye(2, dtype=dtype), torch.ones(1, 2, dtype=dtype)
    some = Stacks(Stack((("w", "b"),)), Layout((("w", (2, 2)), ("b", (2,)))), Objective("cross_entropy"))
    nets = some.at(torch.ones(1, 6, dtype=dtype), 2)
    nets.loss_and_grad(square.unsqueeze(0), row)
    for p in (2.0, math.inf):
        nets.descend(p, row, square.unsqueeze(0), row, None, None, 1)


def _of_all(x: Tensor) -> np.ndarray:
    """(R, ...)."""
    return x.contiguous().numpy()


def _of_one(x: Tensor) -> np.ndarray:
    """Of runs that share their points (R, ...), those once, (1, ...)."""
    return _of_all(x[:1] if x.stride(0) == 0 else x)
