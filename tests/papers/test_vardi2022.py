"""Numbers of vardi2022's experiments, each by hand or from another formula."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Dataset
from robust_erm.data.sphere import Sphere
from robust_erm.oracles import robust_net
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.vardi2022 import fig1a, lemma31, sec6, thm41


def dataset(x: np.ndarray, y: np.ndarray) -> Dataset:
    return Dataset(x, y, lambda: (x[:0], y[:0]))


def test_the_explicit_network_of_orthogonal_points() -> None:
    """max |<x_i, x_j>| = 0: guaranteed sqrt(d) / 4, and its own unit dies at sqrt(d) / 2."""
    d = 16
    points = dataset(4 * np.eye(d), np.where(np.arange(d) % 2, 1.0, -1.0))
    found = sec6.explicit(points)
    assert found["inner"] == pytest.approx(0, abs=1e-15)
    assert found["guaranteed"] == pytest.approx(1)
    assert found["explicit"] == pytest.approx(2, rel=1e-9)
    assert found["explicit_least"] == pytest.approx(2, rel=1e-9)
    assert sec6.half_way(points) == pytest.approx(4 * math.sqrt(2) / 2)
    assert math.isnan(sec6.half_way(dataset(np.eye(3), np.ones(3))))
    other = sec6.explicit(dataset(np.eye(3), np.ones(3)))
    assert math.isnan(other["guaranteed"]), "points of length 1 in three dimensions have no such network"


def test_the_explicit_network_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = Sphere(d=20, m=30).draw(0)
    x, y = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train)
    params, distance = robust_net.robust_net(x, y)
    monkeypatch.setattr(robust_net, "_ROWS", 7)
    again, same = robust_net.robust_net(x, y)
    assert same == pytest.approx(distance, rel=1e-12)  # how many rows are in a product may change its rounding
    for name in params:
        torch.testing.assert_close(again[name], params[name], rtol=1e-10, atol=1e-12)


def test_the_constants_of_the_theorem() -> None:
    """m orthogonal points of length sqrt(d), p = 0: kappa = (m - 1) / (d + 1), and so on by hand."""
    d, m = 60, 20
    x, y = math.sqrt(d) * np.eye(d)[:m], np.where(np.arange(m) % 2, 1.0, -1.0)
    found = thm41.constants(x, y)
    kappa = 19 / 61
    most = 1 / (1 - kappa - kappa**2)
    least = 1 - kappa * most
    assert found["p"] == 0
    assert found["assumed"] == pytest.approx(60 / 61)
    assert found["balance"] == 0.5
    assert (found["kappa"], found["most"], found["least"]) == pytest.approx((kappa, most, least))
    assert found["bound"] == pytest.approx((1 + 2 * 61 / (10 * least)) / 60 * math.sqrt(20 * 60))
    assert found["bound"] == pytest.approx(15.46, abs=0.01), "the specification's own computation"
    assert "bound" not in thm41.constants(x[:, :58], y), "too many points for the dimension"
    assert "bound" not in thm41.constants(x, np.ones(m)), "one label only"


def test_how_orthogonal_random_points_are() -> None:
    row = lemma31._row(20, 0.5)
    rng = numpy_stream(20, "lemma31 0.5")
    largest, allowed = [], []
    for _ in range(lemma31.DRAWS):
        x = rng.standard_normal((4, 20))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        inner = np.abs(x @ x.T) - np.eye(4)
        largest.append(inner.max())
        holds = [3 * m * (20 * inner[:m, :m].max() + 1) <= 21 for m in range(1, 5)]
        assert holds == sorted(holds, reverse=True)
        allowed.append(sum(holds))
    assert row["median"] == pytest.approx(np.median(largest))
    assert row["allowed"] == np.median(allowed)
    assert row["half"] == np.mean(np.array(largest) <= 0.5)
    assert row["log"] == np.mean(np.array(largest) <= math.log(20) / math.sqrt(20))
    assert row["half_bound"] == pytest.approx(1 - 20**2 * 0.75**8.5)
    assert lemma31._row(120, 1.0)["half_bound"] > 0 > lemma31._row(20, 1.0)["half_bound"]


def rows(c: dict[int, list[float]], **more: object) -> pd.DataFrame:
    """A table of Fig. 1(a) with these lengths by d."""
    each = [
        {"alpha": 0.5, "d": d, "seed": k, "c": v, "sqrt_d": math.sqrt(d)}
        for d, vs in c.items()
        for k, v in enumerate(vs)
    ]
    return pd.DataFrame(each).assign(status="converged", crossings=1.0, kkt_span=0.5, **more)


@pytest.mark.parametrize(
    ("c", "flips", "shorter", "slope"),
    [
        ({100: [4.0, 4.1], 200: [4.8, 4.9], 400: [5.9, 5.7]}, HOLDS, HOLDS, HOLDS),
        ({100: [9.0, 9.1], 200: [13.8, 13.9], 400: [22.9, 21.7]}, HOLDS, FAILS, FAILS),
        ({100: [4.0, math.inf], 200: [4.8, 4.9], 400: [5.9, 5.7]}, FAILS, FAILS, UNDECIDED),
        ({100: [4.0, math.nan], 200: [4.8, 4.9], 400: [5.9, 5.7]}, UNDECIDED, UNDECIDED, UNDECIDED),
    ],
)
def test_claims_of_the_first_figure_can_fail(c: dict[int, list[float]], flips: str, shorter: str, slope: str) -> None:
    found = {claim.claim: claim.verdict for claim in fig1a.claims(rows(c), pd.DataFrame())}
    assert found["One vector along z flips all points on the margin"] == flips
    assert found["It is shorter than sqrt(d), for d of at least 100"] == shorter
    assert found["alpha = 0.5: it is the smaller beside sqrt(d), the greater d"] == slope
