"""Compiled losses and steps of l_inf attacks against torch's, over the whole range of numbers."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from robust_erm.objectives import Objective, score_slopes
from robust_erm.training.kernels import compiled_scores as c
from robust_erm.training.kernels.compiled_scores import log_into
from robust_erm.training.kernels.scores import Scores, warm_up

OBJECTIVES = [Objective(loss, reduction) for loss in ("exponential", "cross_entropy") for reduction in ("sum", "mean")]
# the tails, both sides of where log(1 + exp(s)) is computed otherwise, and what exp and log would leave numbers at
SIZES = [0.0, 1e-300, 1e-8, 0.3, 1.0, 14.999, 15.0, 15.001, 36.0, 40.0, 700.0, 710.0, 1e4, 1e30]


def close(a: Any, b: Any, dtype: torch.dtype) -> bool:
    """To some roundings of each number."""
    return bool(torch.allclose(a, b, rtol=200 * torch.finfo(dtype).eps, atol=0.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_losses_of_scores_of_every_size(objective: Objective, dtype: torch.dtype) -> None:
    """One point a run, whose share is the slope alone, and all points together."""
    s = torch.tensor([sign * size for size in SIZES for sign in (-1, 1)], dtype=dtype)
    for given in (s.unsqueeze(-1), s.unsqueeze(0), s.sort().values.unsqueeze(0)[:, :9]):
        (log_loss, share), (theirs, theirs_share) = Scores(objective).shares(given), objective.shares(given)
        assert close(log_loss, theirs, dtype)
        if dtype == torch.float64:  # in float32 a share is rounded before it is an exponent there, here never
            assert torch.allclose(share, theirs_share, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("s", [-700.0, -20.0, -15.0, -14.99, -1.0, -1e-9, 0.0, 0.5, 15.0, 40.1, 800.0])
def test_the_logistic_loss_against_many_digits(s: float) -> None:
    with mpmath.workdps(400):
        softplus = mpmath.log1p(mpmath.exp(s))
        exact, slope = float(mpmath.log(softplus)), float(1 / (1 + mpmath.exp(-s)) / softplus)
    log_loss, share = Scores(Objective("logistic")).shares(torch.tensor([[s]], dtype=torch.float64))
    assert float(log_loss) == pytest.approx(exact, rel=1e-13, abs=1e-15)
    assert float(share) == pytest.approx(slope, rel=1e-13)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("classes", [1, 2, 3, 10])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_losses_of_outputs(objective: Objective, classes: int, scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    f = scale * torch.randn(4, 33, classes, generator=g, dtype=torch.float64)
    f[0, :, -1] = f[0, :, 0]  # classes that tie
    y = torch.randint(0, max(classes, 2), (1, 33), generator=g).double().expand(4, 33)
    y = 2 * y - 1 if classes == 1 else y
    s, slopes = score_slopes(f, y)
    log_loss, share = objective.shares(s)
    ours, ours_slopes = Scores(objective).slopes(f, y)
    assert torch.allclose(ours, log_loss, rtol=1e-12, atol=1e-13)
    assert torch.allclose(ours_slopes, share.unsqueeze(-1) * slopes, rtol=1e-9, atol=1e-300 + 1e-13 * share.max())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("classes", [1, 3])
def test_what_is_not_finite_stays_so(classes: int, bad: float) -> None:
    """Where torch's form has a loss that is not finite, so has this one; the other runs do not notice."""
    f = torch.randn(2, 20, classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.ones(2, 20, dtype=torch.float64)
    calm, _ = Scores(Objective("cross_entropy")).slopes(f, y)
    f[0, 7, 0] = bad
    found, slopes = Scores(Objective("cross_entropy")).slopes(f, y)
    theirs, _ = Objective("cross_entropy").shares(score_slopes(f, y)[0])
    assert found.isfinite().tolist() == theirs.isfinite().tolist()
    assert found[1] == calm[1]
    assert slopes[1].isfinite().all()


def test_strides_do_not_matter_and_compile_nothing() -> None:
    """What :func:`robust_erm.training.kernels._ready` has not had compiled may differ in the last bit."""
    loops = c.shares_into, c.slopes_into
    g = torch.Generator().manual_seed(4)
    f, y = torch.randn(5, 7, 3, generator=g).double(), torch.randint(0, 3, (5, 7), generator=g).double()
    warm_up(torch.float64)
    known, scored = [len(loop.signatures) for loop in loops], Scores(Objective("cross_entropy"))
    turned = f.mT.contiguous().mT, y.mT.contiguous().mT
    for ours, theirs in zip(scored.slopes(f, y), scored.slopes(*turned), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(scored.shares(y), scored.shares(turned[1]), strict=True):
        assert torch.equal(ours, theirs)
    assert [len(loop.signatures) for loop in loops] == known


@pytest.mark.parametrize("label", [-1.0, 3.0, 1e12, math.nan])
def test_a_label_without_a_class_is_no_loss(label: float) -> None:
    """Data are looked at before; here it must not write elsewhere."""
    y = torch.tensor([[0.0, label, 2.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    log_loss, _ = Scores(Objective("cross_entropy")).slopes(torch.ones(2, 3, 3, dtype=torch.float64), y)
    assert log_loss.isfinite().tolist() == [False, True]


@pytest.mark.parametrize("loss", ["exponential", "logistic"])
def test_equal_scores_have_equal_shares(loss: str) -> None:
    """Wherever they lie: sums of points that cancel are then 0."""
    for n in (*range(1, 40), 200):
        for s in (-50.0, -0.7, 3.0):
            _, share = Scores(Objective(loss)).shares(torch.full((2, n), s, dtype=torch.float64))
            assert (share == share[0, 0]).all()


def test_logarithms() -> None:
    x = np.concatenate([np.geomspace(1e-300, 1e300, 4001), 1 + np.linspace(-1e-3, 1e-3, 999), [0.5**0.5, 2**0.5]])
    out, bits = np.empty_like(x), np.empty(len(x), np.int64)
    log_into(x, out, bits)
    np.testing.assert_allclose(out, np.log(x), rtol=5e-15, atol=0)
    bad = np.array([math.nan, math.inf])
    log_into(bad, out[:2], bits[:2])
    assert np.isnan(out[:2]).all()
