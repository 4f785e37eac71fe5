"""The robust margin of several classes: two classes are the binary oracle, and attacks break no more than it says."""

from __future__ import annotations

import math

import pytest
import torch

from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.oracles import robust_classes
from robust_erm.oracles.robust_classes import robust_margin, robust_max_margin_of_classes
from robust_erm.oracles.robust_margin import robust_max_margin

GEOMETRIES = {"l1": Lp(1.0), "l2": Lp(2.0), "linf": Lp(math.inf), "spectral": Layers(), "nuclear": Layers(1.0)}


def points(classes: int, n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Around means as far apart as can be."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = d**0.5 * torch.eye(d, dtype=torch.float64)[y] + 0.3 * torch.randn(n, d, generator=generator).double()
    return x, y


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("p", [2.0, math.inf])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_two_classes_are_the_binary_oracle(name: str, p: float, eps: float) -> None:
    """(w, -w) for the w of two: its l_1 margin, twice its l_inf one, sqrt 2 times its l_2, spectral or nuclear one."""
    x, y = points(2, 8, 6)
    r, factor = {"l1": (1.0, 1.0), "linf": (math.inf, 2.0)}.get(name, (2.0, 2**0.5))
    known = robust_max_margin((x * (2 * y - 1).unsqueeze(-1)).numpy(), r, p, eps).value
    found = robust_max_margin_of_classes(GEOMETRIES[name], x, -y + 1, eps, p)
    assert found.value <= factor * known * (1 + 1e-6)
    assert found.upper >= factor * known * (1 - 1e-6)
    assert found.upper - found.value <= 1.1e-3 * found.upper


@pytest.mark.parametrize("name", GEOMETRIES)
def test_both_sides_hold(name: str) -> None:
    """The value is reached by a W of norm 1, where no random attack does better; no other W exceeds the upper one."""
    x, y = points(3, 9, 6)
    geometry, layout = GEOMETRIES[name], Layout((("w", (3, 6)),))
    found = robust_max_margin_of_classes(geometry, x, y, 0.4, math.inf)
    assert 0 < found.value <= found.upper <= found.value * 1.002
    assert float(geometry.value(found.w.flatten(), layout)) <= 1 + 1e-9
    assert float(robust_margin(found.w, x, y, 0.4, math.inf)) == found.value
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        delta = 0.4 * (2 * torch.rand(x.shape, generator=generator).double() - 1).sign()
        assert float(robust_margin(found.w, x + delta, y, 0.0, math.inf)) >= found.value - 1e-12
        other = torch.randn(3, 6, generator=generator).double()
        for w in (other, found.w + 0.01 * other):
            size = float(geometry.value(w.flatten(), layout))
            assert float(robust_margin(w, x, y, 0.4, math.inf)) / size <= found.upper


@pytest.mark.parametrize("p", [1.0, math.inf])
@pytest.mark.parametrize("r", [1.0, math.inf])
def test_polyhedral_norms_are_a_linear_program(r: float, p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two sides agree to rounding, and lie between those of exchange, which knows neither norm's corners."""
    x, y = points(3, 9, 6)
    exact = robust_max_margin_of_classes(Lp(r), x, y, 0.3, p)
    assert exact.upper - exact.value <= 1e-9 * exact.upper
    monkeypatch.setattr(robust_classes, "_linear_program", lambda *_: (torch.zeros(3, 6).double(), math.inf))
    found = robust_max_margin_of_classes(Lp(r), x, y, 0.3, p)
    assert found.value <= exact.value * (1 + 1e-9) <= found.upper * (1 + 2e-9)
    assert found.upper - found.value <= 0.02 * found.upper  # what depends on the machine


def test_a_linear_program_says_that_there_is_no_separator() -> None:
    x, y = points(3, 6, 4)
    found = robust_max_margin_of_classes(Lp(math.inf), x, y, 10.0, math.inf)
    assert found.value == 0 <= found.upper < 1e-9


def test_the_margin_of_a_w_is_that_of_its_worst_attack() -> None:
    """Against the steepest perturbation of every pair, one by one."""
    x, y = points(3, 5, 4)
    w = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).double()
    for p in (1.0, 2.0, math.inf):
        least = math.inf
        for point, label in zip(x, y.tolist(), strict=True):
            for other in {0, 1, 2} - {label}:
                apart = w[label] - w[other]
                least = min(least, float(apart @ (point - 0.3 * Norm(p).steepest(apart))))
        assert float(robust_margin(w, x, y, 0.3, p)) == pytest.approx(least, rel=1e-12)


@pytest.mark.turns
def test_what_is_not_separable_has_no_separator() -> None:
    x, y = points(3, 6, 4)
    found = robust_max_margin_of_classes(Lp(2.0), torch.cat([x, x]), torch.cat([y, (y + 1) % 3]), 0.0, 2.0)
    assert found.value == 0
    assert found.upper < 1e-6
