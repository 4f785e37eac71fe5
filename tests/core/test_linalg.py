"""The polar factor, against the decomposition of the whole matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.core import linalg
from robust_erm.core.linalg import by_products, polar


def of_rank(rank: int, shape: tuple[int, int] = (600, 700), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, rank, generator=generator).double() for n in shape)
    return left * torch.logspace(0, -6, rank).double() @ right.mT


def exact(matrix: Tensor) -> tuple[Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    rank = int((s > 700 * torch.finfo(s.dtype).eps * s[0]).sum())
    return u[:, :rank] @ vh[:rank], s.sum()


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of all matrices that were decomposed."""
    shapes: list[tuple[int, ...]] = []
    svd: Callable[..., Tensor] = torch.linalg.svd

    def noted(matrices: Tensor, **options: bool) -> Tensor:
        shapes.append(tuple(matrices.shape))
        return svd(matrices, **options)

    monkeypatch.setattr(torch.linalg, "svd", noted)
    return shapes


@pytest.mark.parametrize("rank", [1, 100, 127, 150, 600])
def test_polar_is_that_of_the_whole_matrix(rank: int) -> None:
    factor, nuclear = linalg.polar(of_rank(rank))
    known, norm = exact(of_rank(rank))
    assert float(nuclear) == pytest.approx(float(norm), rel=1e-12)
    assert float((factor - known).norm()) < 1e-7 * float(known.norm()), "1e-6 times the largest: 1e-16 / 1e-6 at best"
    assert float((factor * of_rank(rank)).sum()) == pytest.approx(float(norm), rel=1e-12)


def test_a_matrix_of_low_rank_is_not_decomposed_whole(decomposed: list[tuple[int, ...]]) -> None:
    linalg.polar(of_rank(100))
    assert decomposed == [(1, linalg.SKETCHED, 700)]


def test_each_matrix_of_a_pack_goes_its_own_way(decomposed: list[tuple[int, ...]]) -> None:
    """Bit for bit as alone: one of low rank, one of full rank, zero, and one that is not finite."""
    matrices = torch.stack([of_rank(50), of_rank(600), torch.zeros(600, 700).double(), of_rank(50, seed=1)])
    matrices[3, 0, 0] = torch.inf
    factors, nuclear = vmap(linalg.polar)(matrices)
    assert decomposed == [(4, linalg.SKETCHED, 700), (1, 600, 700)]
    for i, matrix in enumerate(matrices):
        factor, norm = linalg.polar(matrix)
        assert torch.equal(factors[i].nan_to_num(9), factor.nan_to_num(9))
        assert torch.equal(nuclear[i].nan_to_num(9), norm.nan_to_num(9))
    assert torch.equal(factors[2], torch.zeros(600, 700).double())
    assert bool(factors[3].isnan().all())
    assert not bool(factors[:3].isnan().any())


def of_spectrum(a: int, b: int, singular: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.linalg.qr(torch.randn(n, len(singular), generator=generator).double())[0] for n in (a, b))
    return (left * singular) @ right.mT


# a matrix, and how near to its decomposition products must come: rounding over the smallest singular value that counts
BY_PRODUCTS = {
    "square": (of_spectrum(50, 50, torch.linspace(1, 2, 50).double()), 1e-13),
    "wide": (of_spectrum(30, 80, torch.linspace(0.1, 2, 30).double()), 1e-13),
    "tall": (of_spectrum(80, 30, torch.linspace(0.1, 2, 30).double()), 1e-13),
    "of low rank": (of_spectrum(120, 140, torch.linspace(0.1, 2, 20).double()), 1e-12),
    "of rank 1": (of_spectrum(60, 50, torch.ones(1).double()), 1e-12),
    "tiny, of rank 1": (of_spectrum(2, 3, torch.ones(1).double()), 1e-12),
    "down to 1e-6": (of_spectrum(60, 70, torch.logspace(0, -6, 60).double()), 1e-9),
    "low, down to 1e-8": (of_spectrum(100, 90, torch.logspace(0, -8, 30).double()), 1e-6),
    "near the least number": (1e-300 * of_spectrum(20, 30, torch.linspace(0.1, 2, 20).double()), 1e-12),
    "zero": (torch.zeros(8, 9).double(), 0.0),
}


@pytest.mark.parametrize("name", BY_PRODUCTS)
def test_the_polar_factor_by_products_is_that_of_the_decomposition(name: str) -> None:
    matrix, near = BY_PRODUCTS[name]
    known, size = polar(matrix)
    (found,), (nuclear,) = by_products(matrix.unsqueeze(0))
    assert float((found - known).abs().max()) <= near
    assert float(nuclear) == pytest.approx(float(size), rel=1e-12, abs=0)


def test_each_of_several_matrices_has_its_own_polar_factor_by_products() -> None:
    each = torch.stack([of_spectrum(40, 60, torch.linspace(0.5, 2, rank).double()) for rank in (1, 5, 40)])
    factors, _ = by_products(torch.cat([each, 0 * each[:1]]))
    for matrix, factor in zip(each, factors, strict=False):
        torch.testing.assert_close(factor, polar(matrix)[0], rtol=0, atol=1e-12)
    assert torch.equal(factors[3], torch.zeros_like(factors[3]))
    single = by_products(each.float())[0]
    torch.testing.assert_close(single.double(), factors[:3], rtol=0, atol=1e-4)
