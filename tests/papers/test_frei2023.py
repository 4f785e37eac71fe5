"""Numbers of frei2023's experiments, each by hand or from another formula."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from robust_erm.data.clusters import Clusters
from robust_erm.models.mlp import MLP
from robust_erm.oracles.robust_net import cluster_net
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.papers.frei2023 import sec2, width
from robust_erm.papers.multipliers import sides
from robust_erm.store.config import Run

DATA = Clusters(d=64, m=40, k=4, sigma=0.05, means="orthogonal", m_test=50, balanced=True)


def averages(data: Clusters, seed: int) -> tuple[MLP, dict[str, torch.Tensor]]:
    """One unit for the average of each class, without biases: what gradient flow is said to find."""
    means, labels = data.cluster_means(seed), data.cluster_labels()
    w = np.stack([means[labels > 0].sum(0), means[labels < 0].sum(0)])
    params = {"W1": torch.from_numpy(w), "W2": torch.tensor([[1.0, -1.0]], dtype=torch.float64)}
    return MLP(width=2), params


def test_class_averages_are_flipped_at_sqrt_d_over_k() -> None:
    """Without noise: exactly, by a vector along u; their normalised margin is the one of the formula."""
    data = Clusters(d=64, m=4, k=4, sigma=0.0, means="orthogonal", m_test=40, balanced=True)
    model, params = averages(data, 3)
    x = torch.from_numpy(data.draw(3).x_test)
    moved = sec2.universal(model, params, x, sec2.direction(data, 3))
    for share in (0.5, 0.99, 1.0):
        assert moved.least(share) == pytest.approx(math.sqrt(64 / 4), rel=1e-6)
    y = torch.from_numpy(data.draw(3).y_test)
    rows = params["W1"].norm(dim=1)
    scaled = {"W1": params["W1"] / rows.sqrt().unsqueeze(1), "W2": params["W2"] * rows.sqrt()}  # balanced layers
    size = sum(float((p**2).sum()) for p in scaled.values())
    assert float((y * model.apply(scaled, x)).min()) / size == pytest.approx(sec2.limit_margin(data, False), rel=1e-9)
    directions, alone = sec2.units(params, data.cluster_means(3))
    assert directions == pytest.approx(2)
    assert alone == pytest.approx(math.sqrt(1 / 2)), "the average of two of four clusters"


def test_the_greatest_margin_with_biases_is_a_nets() -> None:
    """And the dual's multipliers, of the same value, stand every unit that a search finds."""
    data = Clusters(d=40, m=10, k=10, sigma=0.0, means="orthogonal", m_test=10, balanced=True)
    means, signs = data.cluster_means(0), data.cluster_labels()
    d, k, rows, outer, costs = data.d, data.k, [], [], []
    for sign in (1, -1):
        own = signs == sign
        b = own.sum() / (k + d)
        w = means[own].sum(0) * (1 - b) / d - means[~own].sum(0) * b / d
        rows.append(np.append(w, b))
        costs.append(float(np.linalg.norm(rows[-1])))
        outer.append(float(sign))
    sizes = np.sqrt(costs)
    params = {
        "W1": torch.from_numpy(np.stack([r[:-1] / s for r, s in zip(rows, sizes, strict=True)])),
        "b1": torch.from_numpy(np.array([r[-1] / s for r, s in zip(rows, sizes, strict=True)])),
        "W2": torch.from_numpy(np.array([[v * s for v, s in zip(outer, sizes, strict=True)]])),
    }
    model = MLP(width=2, bias="first")
    f = model.apply(params, torch.from_numpy(means))
    size = sum(float((p**2).sum()) for p in params.values())
    limit = sec2.limit_margin(data, True)
    assert float((torch.from_numpy(signs) * f).min()) / size == pytest.approx(limit, rel=1e-9)
    assert limit > 1.01 * sec2.limit_margin(data, False)
    lam = {s: np.sqrt((d + k - n) / (n * d * (d + k))) for s in (1, -1) for n in [(signs == s).sum()]}
    weights = np.array([lam[int(s)] for s in signs])
    assert weights.sum() == pytest.approx(1 / (2 * limit), rel=1e-9)
    points = np.hstack([means, np.ones((k, 1))])
    generator, best = np.random.default_rng(0), 0.0
    for _ in range(200):  # ascent of both signs of the dual's constraint, over units of length 1
        unit = generator.standard_normal(d + 1)
        unit[:d] = means.T @ generator.standard_normal(k) if generator.random() < 0.5 else unit[:d]
        side = generator.choice([-1, 1])
        for step in 0.1 * 0.98 ** np.arange(300):
            unit /= np.linalg.norm(unit)
            z = points @ unit
            best = max(best, float(side * (weights * signs) @ np.maximum(z, 0)))
            slope = points.T @ (side * weights * signs * (z > 0))
            unit = unit + step * slope / (np.linalg.norm(slope) + 1e-12)
    assert best <= 1 + 1e-9
    assert best > 0.99


def test_flips_count_zero_as_minus_one() -> None:
    """Beyond sqrt(d) / 2 the explicit network is 0: there a positive point is flipped, a negative one is not yet."""
    means, labels = DATA.cluster_means(0), DATA.cluster_labels()
    params, _ = cluster_net(torch.from_numpy(means), torch.from_numpy(labels))
    model, x = MLP(width=4, bias="first"), torch.from_numpy(means)
    moved = sec2.universal(model, params, x, x[0])  # along one mean, of a positive cluster
    assert labels[0] == 1
    assert moved.first[0] == pytest.approx(8 / 2, rel=1e-6), "its unit dies, and the network is 0 from there on"
    assert moved.first[labels < 0] == pytest.approx(8), "that unit must outweigh their own"
    along_u = sec2.universal(model, params, x, sec2.direction(DATA, 0))
    assert along_u.first == pytest.approx(8, rel=1e-6), "all units turn at sqrt(k d) / 2"


def test_the_grid_agrees_with_the_exact_ray() -> None:
    data = Clusters(d=64, m=40, k=4, sigma=0.5, means="orthogonal", m_test=50)
    model, params = averages(data, 1)
    x, u = torch.from_numpy(data.draw(1).x_test), sec2.direction(data, 1)
    moved = sec2.universal(model, params, x, u)
    shares = (0.1, 0.5, 0.9)
    found = [moved.least(share) for share in shares]
    assert 1 < found[0] < found[1] < found[2] < 10
    for grid, exact in zip(sec2.least_lengths(model, params, x, u, shares), found, strict=True):
        assert exact <= grid <= exact + 3 * 8 / 600 + 1e-9, "the next length of the grid"


def test_references_on_clean_clusters() -> None:
    """k = 4 orthogonal means, d = 64, hardly any noise: all distances are known, over sqrt(d)."""
    data = Clusters(d=64, m=40, k=4, sigma=1e-4, means="orthogonal", m_test=30, balanced=True)
    found = sec2.references(data, 0)
    assert found["linear"] == pytest.approx(math.sqrt(1 / 4), rel=1e-3)
    assert found["mean"] == pytest.approx(math.sqrt(1 / 2), rel=1e-2)
    assert found["mean_certified"] == pytest.approx(math.sqrt(1 / 2), rel=1e-2)
    assert found["neighbour_certified"] <= found["neighbour"] == pytest.approx(math.sqrt(1 / 2), rel=1e-2)
    assert found["explicit_certified"] == pytest.approx(0.5, rel=1e-2)
    assert found["explicit"] == pytest.approx(0.5, rel=1e-2)
    assert found["explicit_slack"] >= -1e-9


def test_bounds_of_the_multipliers_at_a_kkt_point(resolved: object) -> None:
    """Class averages on orthogonal points without noise: multipliers by hand, 1 / (d + 1) with a bias."""
    line = (
        "data=clusters",
        "data.d=64",
        "data.m=4",
        "data.k=4",
        "data.sigma=0",
        "data.means=orthogonal",
        "eps=0",
        "p=2",
    )
    more = ("data.balanced=true", "data.m_test=8", "model.width=2", "attack=none", "measure=kkt")
    run: Run = resolved(*line, *more)  # type: ignore[operator]
    model, params = averages(run.data, run.seed)
    params["W1"] = params["W1"] - 1e-4 * params["W1"].flip(0)  # off the kinks, by little
    rows = params["W1"].norm(dim=1)
    params = {"W1": params["W1"] / rows.sqrt().unsqueeze(1), "W2": params["W2"] * rows.sqrt()}
    points = run.data.draw(run.seed)
    x, y = torch.from_numpy(points.x_train), torch.from_numpy(points.y_train)
    assert run.model == model.__class__(**{f: getattr(run.model, f) for f in run.model.__dataclass_fields__})
    own, other = sides(run, params, x, y)
    assert own == pytest.approx(np.full(4, 1 / 64), rel=1e-3)
    assert np.abs(other).max() < 1e-9
    found = sec2._bounds(run, params, x, y, np.arange(4), sec2.separation(run.data, run.seed))
    ratio, low = 4 * 1 / 65, 65
    assert found["bound_most"] == pytest.approx(1 / (low * (1 - 2 * ratio)))
    assert found["bound_least"] == pytest.approx((1 - ratio / (1 - 2 * ratio)) / 65)
    assert found["bound_other"] == pytest.approx(ratio * found["bound_most"])
    most, least, s = found["bound_most"], found["bound_least"], 64
    eta = (most * (65 + 4 * 1) / (0.5 * 4 * least) + 1 * (1 + 65 / 65)) / s
    assert found["allowed"] == pytest.approx(eta * math.sqrt(4 * 64) / 8)
    assert found["allowed"] > 0.5, "above what flips: sqrt(1 / k)"


@pytest.mark.parametrize(
    ("u99", "kkt", "verdict"),
    [([0.5, 0.5, 0.5], 0.02, HOLDS), ([0.5, 0.6, 0.5], 0.02, FAILS), ([0.5, 0.6, 0.5], 0.5, UNDECIDED)],
)
def test_claims_about_the_limit_need_it(u99: list[float], kkt: float, verdict: str) -> None:
    rows = [{"width": w, "u99": u} for w, u in zip((4, 16, 64), u99, strict=True)]
    table = pd.DataFrame(rows).assign(status="converged", seed=0, accuracy=1.0, attack=0.5, kkt=kkt, d=64, n=40)
    found = {claim.claim: claim.verdict for claim in width.claims(table, pd.DataFrame())}
    assert found["The universal vector does not depend on the width"] == verdict


def test_the_certified_population_error_is_above_the_true_one() -> None:
    """Of class averages, sampled; no radius around their means is above sqrt(d / k)."""
    for sigma in (1.5, 2.5):
        data = Clusters(d=64, m=40, k=4, sigma=sigma, means="orthogonal", m_test=20_000)
        model, params = averages(data, 0)
        points = data.draw(0)
        x, y = torch.from_numpy(points.x_test), torch.from_numpy(points.y_test)
        true = float((y * model.apply(params, x) <= 0).double().mean())
        found = sec2.population_error(params, data, 0)
        radius = math.sqrt(64 / 4)
        least = math.exp(-((radius / sigma) ** 2) / 2)  # of chi^2 with two degrees, at the greatest radius there is
        assert true < least <= found * (1 + 1e-6)
        assert found < 1
    small = Clusters(d=64, m=40, k=4, sigma=0.1, means="orthogonal", m_test=20)
    assert 0 <= sec2.population_error(averages(small, 0)[1], small, 0) < 1e-100
