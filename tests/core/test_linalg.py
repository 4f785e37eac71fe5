"""The polar factor, against the decomposition of the whole matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.core import linalg


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
