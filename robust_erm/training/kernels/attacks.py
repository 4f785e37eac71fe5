"""Steps of l_2 and l_inf attacks, and slopes of margins, in one pass: what torch takes up to ten for."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from robust_erm.attacks.attack import rounding
from robust_erm.core.norms import Box
from robust_erm.training.kernels import compiled_attacks as c

BITS = {np.float32: np.int32, np.float64: np.int64}  # integers of as many bytes


class Attacks:
    """What :mod:`robust_erm.attacks.attack` defines, of many points with radii of their own.

    All arrays that the loops are given are contiguous: for others numba would compile anew, in this process.
    """

    @staticmethod
    def step(
        p: float, gradient: Tensor, x: Tensor, length: Tensor, box: Box, ball: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """:func:`robust_erm.attacks.attack.steepest_step` for p = 2 or inf, x (n, d), length (n, 1); then clipped.

        To the l_p ``ball`` of centers (n, d) and radii (n, 1), and to the ``box``, where these are given.
        """
        out, (center, radius) = x.new_empty(x.shape), ball or (x, length)
        lengths, radii = (a.expand(len(x), 1).squeeze(-1) for a in (length, radius))
        at, slopes, long, around, far = (a.contiguous().numpy() for a in (x, gradient, lengths, center, radii))
        kind, (low, high) = at.dtype.type, box or (-math.inf, math.inf)
        where = ball is not None, around, far, kind(low), kind(high), out.numpy()
        if p == math.inf:
            bits = slopes.view(BITS[kind])
            c.sign_step_into(at, slopes, bits, long, kind(rounding(gradient)), *where)
        else:
            c.length_step_into(at, slopes, long, *where)
        return out

    @staticmethod
    def margin_slopes(f: Tensor, y: Tensor) -> Tensor:
        """Derivatives of true minus best other logit in f (R, n, C), for labels y (R, n); those that tie share."""
        out = f.new_empty(f.shape)
        outputs, slopes = (a.flatten(0, 1).numpy() for a in (f.contiguous(), out))
        c.margin_slopes_into(outputs, y.contiguous().flatten().numpy(), slopes)
        return out


def warm_up(dtype: torch.dtype) -> None:
    """Have everything compiled that :class:`Attacks` calls, for numbers of ``dtype``."""
    square = torch.eye(2, dtype=dtype)
    for p in (2.0, math.inf):
        Attacks.step(p, square, square, square[:, :1], None)
    Attacks.margin_slopes(square.unsqueeze(0), square[:1])
