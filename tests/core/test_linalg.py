"""The polar factor, against the decomposition of the whole matrix."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.core import linalg
from robust_erm.core.linalg import by_products, linear, matvec, polar, product, singular_values, svd


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


SHAPES = [
    (9, 5, 10),
    (9, 5, 33),
    (11_000, 3, 1),
    (11_000, 3, 3),
    (20_000, 10, 1),
    (40_000, 3, 1),
    (200, 64, 10),
    (3, 11_000, 2),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_products_of_one_run_have_the_bits_that_they_have_in_a_pack(
    n: int, d: int, classes: int, dtype: torch.dtype
) -> None:
    """Wherever in memory its arrays begin, which processors may round by: see the module."""
    g = torch.Generator().manual_seed(0)
    x, w, s = (torch.randn(4, *shape, generator=g, dtype=dtype) for shape in ((n, d), (classes, d), (n, classes)))
    forms: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [(matvec, (x, w[:, 0])), (linear, (x, w))]
    forms += [(product, (s.mT, x)), (product, (s, w)), (linear, (x[:1].expand_as(x), w))]
    for of, given in forms:
        together = of(*given)
        for k in range(4):
            assert torch.equal(of(*(a[k : k + 1] for a in given))[0], together[k])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decompositions_of_one_matrix_have_the_bits_that_they_have_in_a_pack(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    for shape in ((5, 5), (6, 5), (7, 6), (7, 31), (9, 31), (13, 7), (33, 10)):
        some = torch.randn(5, *shape, generator=g, dtype=dtype)
        forms: list[Callable[[Tensor], Tensor]] = [lambda m: svd(m)[0], singular_values, lambda m: polar(m)[0]]
        for of in [*forms, lambda m: torch.linalg.eigh(m @ m.mT)[1]]:
            together = of(some)
            for k in range(5):
                assert torch.equal(of(some[k : k + 1])[0], together[k]), shape


def test_the_package_asks_mkl_for_it_unless_told_otherwise() -> None:
    code = "import robust_erm, os; print(os.environ['MKL_CBWR'])"
    bare = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    for environment, expected in ((bare, "AUTO"), (bare | {"MKL_CBWR": "COMPATIBLE"}, "COMPATIBLE")):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
