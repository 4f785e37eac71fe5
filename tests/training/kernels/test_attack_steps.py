"""Compiled steps of l_2 and l_inf attacks and slopes of margins, against torch's."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from robust_erm.attacks.attack import Victim, steepest_step
from robust_erm.core.linalg import own_class
from robust_erm.core.margins import margin
from robust_erm.core.norms import Norm
from robust_erm.training.kernels import compiled_attacks as c
from robust_erm.training.kernels.attacks import Attacks, warm_up

DTYPES = [torch.float64, torch.float32]


def hard(d: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (30, d), gradients with zeros, ties, rounding and numbers of every size, and lengths (30, 1)."""
    g = torch.Generator().manual_seed(2)
    x, gradient = (torch.randn(30, d, generator=g, dtype=dtype) for _ in range(2))
    gradient[:, 0] *= 1e-9
    gradient[3:5] = 0.0
    gradient[5] = -gradient[5].abs().max()
    gradient[6] *= 1e-300 if dtype == torch.float64 else 1e-37
    gradient[7] *= 1e300 if dtype == torch.float64 else 1e37
    return x, gradient, torch.rand(30, 1, generator=g, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [2.0, math.inf])
def test_a_step_is_the_reference(p: float, dtype: torch.dtype) -> None:
    """That of l_inf to the bit, that of l_2 to some roundings; a row does not notice the others."""

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return torch.equal(a, b) if p == math.inf else torch.allclose(a, b, rtol=1e2 * eps, atol=1e2 * eps)

    eps = torch.finfo(dtype).eps
    for d in (1, 3, 4, 7, 64):
        x, gradient, length = hard(d, dtype)
        ours = Attacks.step(p, gradient, x, length, None)
        assert same(ours, steepest_step(Norm(p), gradient, x, length, None))
        assert torch.equal(ours[:1], Attacks.step(p, gradient[:1], x[:1], length[:1], None))
        for ball, box in product((None, (x + 0.1 * length, length)), (None, (-0.3, 0.8))):
            there = Victim(torch.Tensor.sum, x if ball is None else ball[0], x[:, 0], box, None)
            radius = None if ball is None else ball[1]
            ours = Attacks.step(p, gradient, x, length, box, ball)
            assert same(ours, there.step_within(Norm(p), gradient, x, length, box, radius))
            if ball is not None and box is None:
                off = Norm(p).value(ours - ball[0]).unsqueeze(-1)
                assert (off <= length * (1 + 10 * eps) + 10 * eps).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("p", [2.0, math.inf])
def test_what_is_not_finite_stays_with_its_row(p: float, bad: float) -> None:
    """It is seen in what comes out, so that a loss ends the run; no clipping hides it."""
    x, gradient, length = hard(5, torch.float64)
    calm = Attacks.step(p, gradient, x, length, None)
    gradient[8, 2] = bad
    for ball in (None, (x, length)):
        for box in (None, (0.0, 1.0)):
            found = Attacks.step(p, gradient, x, length, box, ball)
            assert found[8].isnan().any()
            others = torch.arange(len(x)) != 8
            assert found[others].isfinite().all()
            assert ball is not None or box is not None or torch.equal(found[others], calm[others])


@pytest.mark.parametrize("size", [0.0, 1e-320, 1e-200, 1e-3, 1e200, 1e308])
def test_lengths_of_every_size(size: float) -> None:
    row = torch.full((4,), size, dtype=torch.float64) * torch.tensor([0.25, -0.5, 0.5, 0.1], dtype=torch.float64)
    expected = size * math.sqrt(0.25**2 + 0.5**2 + 0.5**2 + 0.1**2)
    assert c.length_of(row.numpy()) == pytest.approx(expected, rel=1e-12 if size > 1e-300 else 1e-2)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_slopes_of_margins(classes: int) -> None:
    """Those of the true minus the best other logit by autograd; the best that tie share one slope."""
    g = torch.Generator().manual_seed(5)
    f = torch.randn(3, 20, classes, generator=g, dtype=torch.float64)
    y = torch.randint(0, classes, (3, 20), generator=g).double()
    at = f.flatten(0, 1).requires_grad_()
    (theirs,) = torch.autograd.grad(margin(at, y.flatten()).sum(), at)
    assert torch.equal(Attacks.margin_slopes(f, y).flatten(0, 1), theirs)
    tied = Attacks.margin_slopes(torch.zeros_like(f), y)
    assert torch.equal(
        tied, own_class(classes, y).double() - (~own_class(classes, y)) / torch.tensor(classes - 1.0).double()
    )
    f[1, 4] = math.nan
    assert Attacks.margin_slopes(f, y)[1, 4].isnan().any()


def test_arrays_of_other_strides_are_not_compiled_for() -> None:
    """In the process that trains nothing is compiled."""
    warm_up(torch.float64)
    loops = c.sign_step_into, c.length_step_into, c.margin_slopes_into
    known = [len(loop.signatures) for loop in loops]
    x, gradient, length = hard(6, torch.float64)
    turned, one = x.mT.contiguous().mT, length[0]
    for p, box in product((2.0, math.inf), (None, (0, 1))):
        for ball in (False, True):
            given = [(some, one, box, (some, one) if ball else None) for some in (x, turned)]
            assert torch.equal(*(Attacks.step(p, gradient, *rest) for rest in given))
    f, y = torch.randn(5, 7, 3).double(), torch.randint(0, 3, (5, 7)).double()
    turned = f.mT.contiguous().mT, y.mT.contiguous().mT
    assert torch.equal(Attacks.margin_slopes(f, y), Attacks.margin_slopes(*turned))
    assert [len(loop.signatures) for loop in loops] == known
