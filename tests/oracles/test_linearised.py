"""The largest least margin in any geometry: against cone programs, by hand, and on networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from robust_erm.core.errors import ConfigError
from robust_erm.core.params import Layout
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.oracles.linearised import best_least, margin_gap
from robust_erm.oracles.robust_margin import robust_max_margin

INF = math.inf
DOUBLE: Any = {"dtype": torch.float64}


def points(m: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(m, d, generator=g, dtype=torch.float64)
    return x, (x @ torch.randn(d, generator=g, dtype=torch.float64)).sign()


@pytest.mark.parametrize("r", [1.0, 1.5, 2.0, 3.0, INF])
def test_it_is_the_maximum_margin(r: float) -> None:
    """Of separable points, by the cone programs of the other oracle; the two sides hold it between them."""
    x, y = points(30, 12)
    z = x * y.unsqueeze(-1)
    exact = robust_max_margin(z.numpy(), r, 2.0, 0.0).value
    for scale in (1.0, 1e-200, 1e200):
        found = best_least(Lp(r), Layout((("w", (12,)),)), z * scale, 1e-5)
        assert found.low <= exact * scale * (1 + 1e-7)
        assert found.high >= exact * scale * (1 - 1e-7)
        assert found.gap <= 1e-5
        assert found.lam.min() >= 0
        assert found.lam.sum() == pytest.approx(1, rel=1e-12)


def test_of_matrices_it_is_what_one_can_say_by_hand() -> None:
    """``<G_i, U> = U_ii``: U = I in the spectral norm, I / 3 in the nuclear one, I / sqrt(3) in Frobenius'."""
    g = torch.stack([torch.diag(row) for row in torch.eye(3, dtype=torch.float64)]).flatten(1)
    layout = Layout((("W", (3, 3)),))
    for r, best in ((INF, 1.0), (1.0, 1 / 3), (2.0, 3**-0.5)):
        found = best_least(Layers(r), layout, g)
        assert found.high == pytest.approx(best, rel=1e-9)
        assert found.low == pytest.approx(best, rel=1e-9)


def test_points_that_cannot_be_separated_have_none() -> None:
    g = torch.tensor([[1.0, 0], [-1, 0]]).double()
    found = best_least(Lp(2.0), Layout((("w", (2,)),)), g)
    assert found.low == 0
    assert found.high == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("r", [1.0, 2.0, INF])
def test_the_gap_of_a_linear_model_is_what_it_misses_of_the_margin(r: float) -> None:
    x, y = points(8, 12)
    z = (x * y.unsqueeze(-1)).numpy()
    for other in (1.0, 2.0, INF):
        w = robust_max_margin(z, other, 2.0, 0.0).w
        share = (z @ w).min() / np.linalg.norm(w, r) / robust_max_margin(z, r, 2.0, 0.0).value
        for scale in (1.0, 1e-100):
            gap = margin_gap(Linear(), {"w": torch.from_numpy(w) * scale}, x, y, Lp(r))
            assert gap == pytest.approx(1 - share, abs=1.1e-3)
            assert gap < 1.1e-3 if r == other else gap > 0.01


def test_a_net_of_one_unit_and_one_point_by_hand() -> None:
    """q = v relu(w x): KKT in l_2 and in the largest layer where |v| = ||w||, else not, and never off the point."""
    model, x, y = MLP(width=1), torch.tensor([[3.0, 4.0]]).double(), torch.ones(1).double()

    def gap(v: float, w: list[float], geometry: Lp | Layers) -> float:
        params = {"W1": torch.tensor([w], **DOUBLE), "W2": torch.tensor([[v]], **DOUBLE)}
        return margin_gap(model, params, x, y, geometry)

    assert gap(1, [0.6, 0.8], Lp(2.0)) == pytest.approx(0, abs=1e-9)
    assert gap(1, [0.6, 0.8], Layers()) == pytest.approx(0, abs=1e-9)
    assert gap(2, [0.6, 0.8], Lp(2.0)) == pytest.approx(1 - 4 / 5)  # 1 - 2 v |w| / (v^2 + |w|^2)
    assert gap(2, [0.6, 0.8], Layers()) == pytest.approx(1 - 2 / 3)  # 1 - 2 v |w| / (max(v, |w|) (v + |w|))
    assert gap(1, [1, 0], Lp(2.0)) > 0.1
    assert gap(1, [0, 1], Lp(1.0)) == pytest.approx(0, abs=1e-9), "the larger entry of the point alone"


def test_what_has_no_such_problem_is_refused() -> None:
    x, y = points(4, 3)
    model = MLP(width=2, bias="all")
    params = model.init(3, 1, torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="not homogeneous"):
        margin_gap(model, params, x, y, Lp(2.0))
