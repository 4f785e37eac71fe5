"""attack=pgd_published against the script of tsilivis2024, line by line; and that nobody takes it for a threat."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from robust_erm.attacks.attack import Victim
from robust_erm.attacks.pgd_published import PGDPublished
from robust_erm.core.errors import ConfigError
from robust_erm.evaluation.options import Options, attacks_of
from robust_erm.store.config import Run
from robust_erm.sweeps.datasets import described


def script(w: torch.Tensor, v: torch.Tensor, x: torch.Tensor, y: torch.Tensor, eps: float) -> torch.Tensor:
    """utils.py's loop: the exponential loss of the net f(x) = v' relu(W x), autograd, and its three clamps."""
    delta = torch.zeros_like(x, requires_grad=True)
    for _ in range(10):
        loss = torch.exp(-y * (((x + delta) @ w.mT).relu() @ v)).sum()
        (gradient,) = torch.autograd.grad(loss, delta)
        with torch.no_grad():
            moved = torch.clamp(delta + eps / 5 * gradient.sign(), -eps, eps)
            delta = torch.max(torch.min(moved, x + eps), x - eps).requires_grad_()
    return torch.clamp(x + delta.detach(), 0, 1)


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.3])
def test_it_is_the_published_loop(eps: float) -> None:
    """The same points as with the script's own loss and autograd; bright pixels are where its box leaves them."""
    torch.manual_seed(0)
    w, v = torch.randn(16, 12, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    x = torch.rand(40, 12, dtype=torch.float64).where(torch.rand(40, 12) < 0.5, torch.tensor(0.0, dtype=torch.float64))
    y = torch.where(torch.rand(40) < 0.5, 1.0, -1.0).double()
    victim = Victim(lambda z: (z @ w.mT).relu() @ v, x, y, (0.0, 1.0), None)
    found = PGDPublished().perturb(victim, torch.tensor(eps, dtype=torch.float64), torch.empty(0))
    torch.testing.assert_close(found, script(w, v, x, y, eps), rtol=0, atol=1e-12)
    bright = x >= 2 * eps
    torch.testing.assert_close(found[bright], (2 * x - eps).clamp_max(1)[bright], rtol=0, atol=1e-12)
    assert ((found - x).abs() <= eps + 1e-12)[x <= eps].all(), "the background stays in the ball"
    assert ((found - x).abs() > 1.01 * eps).any(), "and bright pixels do not"
    still = PGDPublished().perturb(victim, torch.zeros((), dtype=torch.float64), torch.empty(0))
    assert torch.equal(still, x), "a radius of 0 is not attacked"


def test_it_is_taken_for_no_threat(resolved: Callable[..., Run]) -> None:
    """A line before training; `evaluate` leaves it out of what a point must stand, and refuses it by name."""
    run, plain = resolved("attack=pgd_published"), resolved("attack=pgd")
    says = "pgdpublished: moves points out of the l_p ball: what stands after it is no robust accuracy"
    assert described([run, run, plain]) == [says]
    beside = resolved("+attack@eval_attacks.theirs=pgd_published")
    assert described([beside]) == [says]
    assert described([plain]) == []
    assert list(attacks_of(run, Options())) == ["apgd", "fab", "square"]
    assert list(attacks_of(plain, Options())) == ["train", "apgd", "fab", "square"]
    with pytest.raises(ConfigError, match=r"pgd_published.*leaves the l_p ball"):
        attacks_of(plain, Options(attack=("pgd_published",)))
