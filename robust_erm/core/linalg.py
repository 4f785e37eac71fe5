"""Matrix products whose rounding does not depend on how many runs are computed together, and the polar factor.

Under vmap over R runs a product becomes one batched matrix product. Libraries take another kernel
for a batch of one when the right factor is a single column, and none when the left factor is a
single row (measured with MKL: 0 against 1e-16 relative). Trainings with kinks amplify any such
difference, so products with one column are written as products with one row. With several threads
it splits the sums of a batch of one (1e-13 relative), and there is no such form: the promise is of one thread.

On AMD's processors MKL also rounds by where in memory an array begins, in products and decompositions of odd sizes.
With MKL_CBWR=AUTO, which the package sets where it is not set, it does not, and is as fast (measured on Zen 4).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

SKETCHED = 128  # columns of the sketch that finds the range of a matrix of low rank


def matvec(x: Tensor, w: Tensor) -> Tensor:
    """``<x_i, w>``: x (..., n, d), w (..., d) -> (..., n)."""
    return (w.unsqueeze(-2) @ x.mT).squeeze(-2)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x W'``: x (..., n, d), W (..., k, d) -> (..., n, k)."""
    return (weight @ x.mT).mT if weight.shape[-2] == 1 else x @ weight.mT


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a b``: a (..., n, k), b (..., k, d) -> (..., n, d); outer products are no sums."""
    if a.shape[-1] == 1:
        return a * b
    return (b.mT @ a.mT).mT if b.shape[-1] == 1 else a @ b


def product_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """``out = a b`` (R, n, d) for a (R, n, k) and b (R, k, d), in place: ``out`` may be a part of longer rows."""
    if a.shape[-1] == 1:
        torch.mul(a, b, out=out)
    elif b.shape[-1] == 1:
        out.copy_(product(a, b))
    else:
        torch.bmm(a, b, out=out)


def own_class(classes: int, y: Tensor) -> Tensor:
    """Mask (n, classes) of each sample's own class: y (n,) in 0..classes-1."""
    return y.unsqueeze(-1) == torch.arange(classes, dtype=y.dtype, device=y.device)


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (..., a, k), s (..., k), V' (..., k, b) of matrices (..., a, b), k = min(a, b); nan of what is not finite."""
    finite = matrix.isfinite().all(-1).all(-1)[..., None, None]
    u, s, vh = torch.linalg.svd(torch.where(finite, matrix, 0.0), full_matrices=False)
    return u, torch.where(finite[..., 0], s, torch.nan), vh


def singular_values(matrix: Tensor) -> Tensor:
    """S (..., k) of matrices (..., a, b), from the largest down; nan of what is not finite."""
    finite = matrix.isfinite().all(-1).all(-1)[..., None, None]
    return torch.where(finite[..., 0], torch.linalg.svdvals(torch.where(finite, matrix, 0.0)), torch.nan)


# of each step of Newton-Schulz, X <- a X + b (X X') X + c (X X')^2 X
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


_TO_ONE = (15 / 8, -10 / 8, 3 / 8)
_SETTLED = 8  # steps of that from 0.7 to 1, to rounding


def newton_schulz(matrix: Tensor, steps: int) -> Tensor:
    """The polar factor (..., a, b) as Muon computes it: singular values near 1, some 0.7 to 1.2, not at it.

    From ``X = G / ||G||_F``, ``X <- a X + b (X X') X + c (X X')^2 X``, which takes a singular value s to
    ``a s + b s^3 + c s^5``. What is below some a^-steps of ``||G||_F`` stays small. Here in the type of the matrix;
    published in bfloat16.

    Args:
        matrix: G (..., a, b).
        steps: 5 are published.

    Reference:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = _of_length_one(matrix if wide else matrix.mT)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.mT


def _of_length_one(x: Tensor) -> Tensor:
    """X / ||X||_F of matrices (..., a, b), whatever their scale; zero of zero."""
    top = x.abs().amax((-2, -1), keepdim=True)
    x = x / torch.where(top > 0, top, 1.0)
    size = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    return x / torch.where(size > 0, size, 1.0)


def polar(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``U V'`` (a, b) over the non-zero singular values of ``U S V'`` (a, b), and the nuclear norm ().

    Zero is what lies below ``max(a, b)`` roundings of the largest singular value. A matrix that is
    not finite has nan. May be mapped by vmap.

    A matrix of low rank, such as a dense layer's gradient over few samples, is first projected on
    its range, found by a random sketch (Halko, Martinsson & Tropp 2011, Alg. 4.1). That is exact up
    to rounding where the rest lies below that zero, which is checked; elsewhere the whole matrix is
    decomposed.
    """
    found: tuple[Tensor, Tensor] = _Polar.apply(matrix)  # type: ignore[no-untyped-call]
    return found


class _Polar(torch.autograd.Function):
    """Has all matrices of a pack at hand under vmap, so that each may go its own way."""

    @staticmethod
    def forward(matrices: Tensor) -> tuple[Tensor, Tensor]:
        factors, nuclear = _polar(matrices.reshape(-1, *matrices.shape[-2:]))
        return factors.reshape(matrices.shape), nuclear.reshape(matrices.shape[:-2])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing to keep: there is no derivative."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, matrices: Tensor) -> Any:
        return _Polar.apply(matrices.movedim(in_dims[0], 0)), (0, 0)  # type: ignore[no-untyped-call]


def _polar(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Of each matrix of (R, a, b): factors (R, a, b), nuclear norms (R,)."""
    *_, a, b = matrices.shape
    finite = matrices.isfinite().flatten(1).all(-1)
    some = torch.where(finite[:, None, None], matrices, 0.0)
    tiny = max(a, b) * torch.finfo(some.dtype).eps
    if some.device.type != "cpu":
        factors, nuclear = by_products(some)
    elif min(a, b) < 4 * SKETCHED:
        factors, nuclear, _ = _decomposed(some, tiny)
    else:
        q, _ = torch.linalg.qr(some @ _sketch(b, some.dtype, some.device))
        small = q.mT @ some
        factors, nuclear, zero = _decomposed(small, tiny)
        factors = q @ factors
        missed = torch.linalg.matrix_norm(some - q @ small) > zero
        if bool(missed.any()):
            factors[missed], nuclear[missed], _ = _decomposed(some[missed], tiny)
    bad = torch.where(finite, 0.0, torch.nan).to(some)
    return factors + bad[:, None, None], nuclear + bad


def by_products(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (R, a, b) and nuclear norms (R,) of finite matrices, from products alone: what a device is fast at.

    Steps of Newton-Schulz (:func:`newton_schulz`) first lift all singular values above zero, in the sense of
    :func:`polar`, to 0.7 to 1.2, and rounding to less; ``(15 X - 10 X X' X + 3 (X X')^2 X) / 8`` takes the former to 1.
    ``P <- 3 P^2 - 2 P^3`` (McWeeny 1960) of ``P = X X'`` then takes what is left of rounding to 0. As near to the
    decomposition's as rounding over the smallest singular value that counts; what lies near zero may count here and not
    there.
    """
    first, third, fifth = NEWTON_SCHULZ
    *_, a, b = matrices.shape
    x = _of_length_one(matrices if a <= b else matrices.mT)

    def step(x: Tensor, one: float, three: float, five: float) -> Tensor:
        square = x @ x.mT
        return torch.baddbmm(x, torch.baddbmm(square, square, square, beta=three, alpha=five), x, beta=one)

    tiny = max(a, b, 64) * torch.finfo(x.dtype).eps
    for _ in range(math.ceil(-math.log(tiny) / math.log(first))):
        x = step(x, first, third, fifth)
    x = step(x, *_TO_ONE)
    onto = x @ x.mT
    for _ in range(3):
        square = onto @ onto
        onto = torch.baddbmm(square, square, onto, beta=3.0, alpha=-2.0)
    x = onto @ x
    for _ in range(_SETTLED):
        x = step(x, *_TO_ONE)
    factors = x if a <= b else x.mT
    return factors, (factors * matrices).sum((-2, -1))


def _decomposed(matrices: Tensor, tiny: float) -> tuple[Tensor, Tensor, Tensor]:
    """Factors (R, a, b), nuclear norms (R,), and what counts as zero (R,): ``tiny`` times the largest."""
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    zero = tiny * s[:, 0]
    return (u * (s > zero[:, None]).to(s)[:, None]) @ vh, s.sum(-1), zero


@cache
def _sketch(b: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(b, SKETCHED) normal numbers, always the same."""
    numbers = torch.randn(b, SKETCHED, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return numbers.to(device, dtype)
