"""Schatten norms of matrices: l_r norms of their singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from robust_erm.core.linalg import polar, singular_values, svd
from robust_erm.core.norms import Norm


@dataclass(frozen=True)
class Schatten:
    """The norm ``||s(W)||_r`` of the singular values s, on the last two axes: (..., a, b).

    r = 1 is the nuclear norm, 2 Frobenius', inf the spectral norm.

    Args:
        r: exponent, in [1, inf].

    Raises:
        ConfigError: r < 1 or not a number.
    """

    r: float

    def __post_init__(self) -> None:
        Norm(self.r)

    @property
    def norm(self) -> Norm:
        """That of the singular values."""
        return Norm(self.r)

    def value(self, matrix: Tensor) -> Tensor:
        """``||W||``: (..., a, b) -> (...)."""
        return self.norm.value(matrix.flatten(-2) if self.r == 2 else singular_values(matrix))

    @property
    def dual(self) -> Schatten:
        """``max_{||U|| <= 1} <U, G>``, Schatten's norm of the dual exponent."""
        return Schatten(self.norm.dual.p)

    def steepest(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """``argmax_{||U|| <= 1} <U, G>`` (..., a, b) and the dual norm (...), of G = U S V'.

        ``U diag(steepest(s)) V'``, steepest that of l_r. r = inf: the polar factor ``U V'`` over the non-zero
        singular values; r = 1: ``u_1 v_1'`` of the largest one; r = 2: ``G / ||G||_F``.
        """
        if self.r == math.inf:
            return polar(g)
        if self.r == 2:
            flat = g.flatten(-2)
            return self.norm.steepest(flat).reshape(g.shape), self.norm.value(flat)
        u, s, vh = svd(g)
        return (u * self.norm.steepest(s).unsqueeze(-2)) @ vh, self.norm.dual.value(s)
