from __future__ import annotations

from decimal import Decimal, getcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from robust_erm.core.errors import ConfigError
from robust_erm.objectives import Objective, log_softplus, scores

getcontext().prec = 400


@given(st.floats(-500, 500))
@settings(max_examples=200, deadline=None)
def test_log_softplus_against_many_digits(s: float) -> None:
    exact = float((1 + Decimal(s).exp()).ln().ln())
    assert float(log_softplus(torch.tensor(s, dtype=torch.float64))) == pytest.approx(exact, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("s", [-700.0, -15.0001, -14.9999, -1.0, 0.0, 3.0, 39.9, 40.1, 700.0])
def test_log_softplus_gradient(s: float) -> None:
    """sigmoid(s) / softplus(s), by 400 digits."""
    t = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    log_softplus(t).backward()
    e = Decimal(s).exp()
    assert t.grad is not None
    assert float(t.grad) == pytest.approx(float(e / (1 + e) / (1 + e).ln()), rel=1e-9)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_against_the_naive_losses(reduction: str) -> None:
    g = torch.Generator().manual_seed(0)
    f, y = torch.randn(9, dtype=torch.float64, generator=g), torch.tensor([1.0, -1, 1, 1, -1, -1, 1, 1, 1]).double()
    reduce = torch.sum if reduction == "sum" else torch.mean
    naive = {"exponential": (-y * f).exp(), "logistic": F.softplus(-y * f), "cross_entropy": F.softplus(-y * f)}
    for loss, each in naive.items():
        assert torch.allclose(Objective(loss, reduction).log_loss(f, y).exp(), reduce(each), rtol=1e-13)
    logits, classes = torch.randn(9, 4, dtype=torch.float64, generator=g), torch.arange(9) % 4
    ours = Objective("cross_entropy", reduction).log_loss(logits, classes.double())
    assert torch.allclose(ours.exp(), F.cross_entropy(logits, classes, reduction=reduction), rtol=1e-12)


@pytest.mark.parametrize("loss", ["exponential", "logistic", "cross_entropy"])
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_far_beyond_underflow(loss: str, size: float) -> None:
    """At margins of 1e6 the loss is exp(-1e6); its logarithm and its gradient are ordinary numbers."""
    f = torch.tensor([size, -2 * size], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0], dtype=torch.float64)
    grad, value = torch.func.grad_and_value(lambda f: Objective(loss, "sum").log_loss(f, y))(f)
    assert float(value) == pytest.approx(-size, abs=1e-9)
    assert grad.tolist() == pytest.approx([-1.0, 0.0], abs=1e-12)


def test_gradient_against_finite_differences() -> None:
    g = torch.Generator().manual_seed(1)
    f = torch.randn(6, 3, dtype=torch.float64, generator=g).requires_grad_()
    y = torch.tensor([0.0, 1, 2, 0, 1, 2], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: Objective("cross_entropy").log_loss(f, y), (f,))
    f1 = torch.randn(6, dtype=torch.float64, generator=g).requires_grad_()
    y1 = torch.tensor([1.0, -1, 1, 1, -1, -1], dtype=torch.float64)
    for loss in ("exponential", "logistic"):
        assert torch.autograd.gradcheck(lambda f, loss=loss: Objective(loss).log_loss(f, y1), (f1,))


def test_two_logits_are_the_logistic_loss_of_their_difference() -> None:
    f = torch.tensor([[0.3, -0.2], [2.0, 5.0]], dtype=torch.float64)
    s = scores(f, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(s, torch.tensor([-0.5, -3.0], dtype=torch.float64))


def test_bad_names() -> None:
    with pytest.raises(ConfigError, match=r"loss = exponentail.*did you mean exponential\?"):
        Objective("exponentail")
    with pytest.raises(ConfigError, match="reduction"):
        Objective("logistic", "average")
