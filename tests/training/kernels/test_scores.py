"""Compiled losses and steps of l_inf attacks against torch's, over the whole range of numbers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from robust_erm.attacks.attack import Victim, rounding, steepest_step
from robust_erm.core.linalg import own_class
from robust_erm.core.margins import margin
from robust_erm.core.norms import Norm
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
    loops = c.shares_into, c.slopes_into, c.sign_step_into, c.margin_slopes_into
    g = torch.Generator().manual_seed(4)
    f, y = torch.randn(5, 7, 3, generator=g).double(), torch.randint(0, 3, (5, 7), generator=g).double()
    warm_up(torch.float64)
    known, scored = [len(loop.signatures) for loop in loops], Scores(Objective("cross_entropy"))
    turned = f.mT.contiguous().mT, y.mT.contiguous().mT, f[0].mT.contiguous().mT
    for ours, theirs in zip(scored.slopes(f, y), scored.slopes(*turned[:2]), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(scored.shares(y), scored.shares(turned[1]), strict=True):
        assert torch.equal(ours, theirs)
    step = y[0].unsqueeze(-1)
    assert torch.equal(scored.sign_step(f[0], f[1], step, 0.0), scored.sign_step(turned[2], f[1], step, 0.0))
    for box in (None, (0, 1)):
        scored.sign_step(turned[2], f[1], step, 0.0, (turned[2], step[:1]), box)
    assert torch.equal(scored.margin_slopes(f, y), scored.margin_slopes(*turned[:2]))
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


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_slopes_of_margins(classes: int) -> None:
    """Those of the true minus the best other logit by autograd; the best that tie share one slope."""
    g = torch.Generator().manual_seed(5)
    f = torch.randn(3, 20, classes, generator=g, dtype=torch.float64)
    y = torch.randint(0, classes, (3, 20), generator=g).double()
    (theirs,) = torch.autograd.grad(margin(at := f.clone().requires_grad_(), y).sum(), at)  # type: ignore[arg-type]
    assert torch.equal(Scores.margin_slopes(f, y), theirs)
    tied = Scores.margin_slopes(torch.zeros_like(f), y)
    assert torch.equal(tied, torch.where(own_class(classes, y), 1.0, -1.0 / (classes - 1)).double())
    f[1, 4] = math.nan
    assert Scores.margin_slopes(f, y)[1, 4].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_step_of_signs(dtype: torch.dtype) -> None:
    """The bits of :func:`steepest_step`, for slopes that are rounding, ties and zeros too; nan stays visible."""
    g = torch.Generator().manual_seed(2)
    for d in (1, 3, 4, 7, 64):
        x, gradient = (torch.randn(30, d, generator=g, dtype=dtype) for _ in range(2))
        gradient[:, 0] *= 1e-9
        gradient[3:5] = 0.0
        gradient[5] = -gradient[5].abs().max()
        gradient[6] *= 1e-300 if dtype == torch.float64 else 1e-38
        length = torch.rand(30, 1, generator=g, dtype=dtype)
        ours = Scores.sign_step(x, gradient, length, rounding(gradient))
        assert torch.equal(ours, steepest_step(Norm(math.inf), gradient, x, length, None))
        assert torch.equal(ours[:1], Scores.sign_step(x[:1], gradient[:1], length[:1], rounding(gradient)))
        for ball, box in product((None, (x + 0.1 * length, length)), (None, (-0.3, 0.8))):
            there = Victim(torch.Tensor.sum, x if ball is None else ball[0], x[:, 0], box, None)
            radius = None if ball is None else ball[1]
            ours = Scores.sign_step(x, gradient, length, rounding(gradient), ball, box)
            assert torch.equal(ours, there.step_within(Norm(math.inf), gradient, x, length, box, radius))
    gradient[8, 2] = math.nan
    for ball in (None, (x, length)):
        assert Scores.sign_step(x, gradient, length, rounding(gradient), ball, (0.0, 1.0))[8].isnan().any()
    assert Scores.sign_step(x, gradient, length, rounding(gradient))[8].isnan().any()
