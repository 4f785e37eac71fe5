"""Classifiers without training: their labels and distances against closed forms, brute force and sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import ndtr

from robust_erm.core.errors import ConfigError
from robust_erm.data.clusters import Clusters
from robust_erm.models.mlp import MLP
from robust_erm.oracles import references
from robust_erm.oracles.rays import flips
from robust_erm.oracles.references import (
    class_direction,
    half_way,
    linear,
    linear_failure,
    linear_failure_bound,
    nearest_prototype,
)
from robust_erm.oracles.robust_net import cluster_certificate, cluster_failure, cluster_net

# ---- the linear classifier


def test_distances_of_a_linear_classifier() -> None:
    u, x = np.array([3.0, 4.0]), np.array([[1.0, 0.5], [-2.0, 0.0], [4.0, -3.0]])
    found = linear(u, x)
    assert found.label.tolist() == [1, -1, -1], "sign(0) = -1"
    assert found.lower == pytest.approx([1.0, 1.2, 0.0])
    assert np.array_equal(found.lower, found.upper)
    with pytest.raises(ConfigError, match="u = 0: must not be 0"):
        linear(np.zeros(2), x)


@pytest.mark.parametrize(("d", "k", "sigma"), [(500, 8, 1.0), (64, 16, 1.0), (64, 16, 0.5)])
def test_failures_of_the_linear_classifier_for_orthogonal_means(d: int, k: int, sigma: float) -> None:
    """Phi(-sqrt(d / k) / sigma)."""
    data = Clusters(d=d, k=k, means="orthogonal")
    found = linear_failure(data.cluster_means(0), data.cluster_labels(), sigma)
    assert found == pytest.approx(float(ndtr(-math.sqrt(d / k) / sigma)), rel=1e-9)


def test_failures_of_the_linear_classifier_are_those_of_samples() -> None:
    data = Clusters(d=12, k=5, sigma=1.5, m=200_000, m_test=1, positive=2)
    mu, y = data.cluster_means(0), data.cluster_labels()
    drawn = data.draw(0)
    share = (linear(class_direction(mu, y), drawn.x_train).label != drawn.y_train).mean()
    assert 0.02 < share < 0.4
    assert linear_failure(mu, y, 1.5) == pytest.approx(share, abs=0.004)
    wrong = np.array([[1.0, 0.0], [-0.5, 0.0], [0.0, 1.0]])  # u = (0.5, 1): the second is on the wrong side
    assert linear_failure(wrong, np.ones(3), 0.0) == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match="must not be 0"):
        linear_failure(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1.0, -1.0]), 1.0)


def test_the_bound_of_lemma_21() -> None:
    assert linear_failure_bound(500) == pytest.approx(4.1e-6, rel=0.01)
    assert linear_failure_bound(1000) == pytest.approx(2 * math.exp(math.log(1000) - math.log(1000) ** 2 / 2))
    literal = Clusters(d=1000, k=3, sigma=1000**-0.5, means="orthogonal")
    assert linear_failure(literal.cluster_means(0), literal.cluster_labels(), literal.sigma) < linear_failure_bound(
        1000
    )


# ---- nearest prototypes


def crossing_by_scan(prototypes: np.ndarray, labels: np.ndarray, x: np.ndarray, end: np.ndarray) -> float:
    t = np.linspace(0, 1, 20_001)
    path = x + t[:, None] * (end - x)
    at = labels[((path[:, None] - prototypes) ** 2).sum(-1).argmin(1)]
    return float(t[np.flatnonzero(at != at[0])[0]] * np.linalg.norm(end - x))


def exact_distance(prototypes: np.ndarray, labels: np.ndarray, x: np.ndarray, label: float) -> float:
    """Over each cell of the other label, a small quadratic program."""
    own, best = prototypes[labels == label], math.inf
    for o in prototypes[labels != label]:
        normal, level = 2 * (o - own), (o**2).sum() - (own**2).sum(1)
        found = minimize(
            lambda z: ((z - x) ** 2).sum(),
            o,
            jac=lambda z: 2 * (z - x),
            method="SLSQP",
            constraints={"type": "ineq", "fun": lambda z, n=normal, c=level: n @ z - c, "jac": lambda z, n=normal: n},
            options={"ftol": 1e-13, "maxiter": 300},
        )
        assert found.success
        best = min(best, math.sqrt(found.fun))
    return best


def test_bounds_of_nearest_prototypes_hold_the_exact_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    prototypes, x = rng.standard_normal((14, 3)), rng.standard_normal((12, 3))
    labels = rng.choice([-1.0, 1.0], size=14)
    found = nearest_prototype(prototypes, labels, x)
    apart = np.linalg.norm(x[:, None] - prototypes, axis=-1)
    assert np.array_equal(found.label, labels[apart.argmin(1)])
    assert {-1.0, 1.0} == set(found.label)
    loose = 0
    for i in range(12):
        mine = labels == found.label[i]
        planes = [
            max((apart[i, o] ** 2 - apart[i, s] ** 2) / (2 * np.linalg.norm(prototypes[o] - prototypes[s]))
                for s in np.flatnonzero(mine))
            for o in np.flatnonzero(~mine)
        ]  # fmt: skip
        assert found.lower[i] == pytest.approx(min(planes))
        nearest = np.flatnonzero(~mine)[apart[i, ~mine].argsort()[:5]]
        scans = [crossing_by_scan(prototypes, labels, x[i], prototypes[o]) for o in nearest]
        assert found.upper[i] == pytest.approx(min(scans), abs=1e-3)
        exact = exact_distance(prototypes, labels, x[i], found.label[i])
        assert found.lower[i] <= exact + 1e-6
        assert exact <= found.upper[i] + 1e-6
        loose += found.upper[i] > exact + 1e-3
    assert loose, "were all bounds exact, the test would not tell them apart"
    monkeypatch.setattr(references, "_HELD", 1)
    alone = nearest_prototype(prototypes, labels, x)
    assert alone.lower == pytest.approx(found.lower)
    assert alone.upper == pytest.approx(found.upper)
    one = nearest_prototype(prototypes, labels, x, segments=1)
    assert (one.upper >= found.upper - 1e-12).all()
    assert (one.upper > found.upper + 1e-9).any()


def test_two_prototypes_have_a_plane_between_them() -> None:
    """The lower bound is the distance to it; the segment's crossing (x_0 - 1) / cos of its angle."""
    prototypes, labels = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([1.0, -1.0])
    x = np.array([[0.0, 0.0], [-1.0, 0.0], [0.5, 2.0], [3.0, 1.0]])
    found = nearest_prototype(prototypes, labels, x)
    assert found.label.tolist() == [1, 1, 1, -1]
    assert found.lower == pytest.approx([1, 2, 0.5, 2])
    assert found.upper == pytest.approx([1, 2, 0.5 * math.hypot(1.5, 2) / 1.5, 2 * math.hypot(3, 1) / 3])


def test_orthogonal_clusters_are_half_way_from_one_another() -> None:
    """Both nearest classifiers at the means: sqrt(d / 2), which no classifier can exceed at two of them."""
    data = Clusters(d=400, k=6, m=60, sigma=0.02, means="orthogonal", m_test=40)
    mu, y, drawn = data.cluster_means(0), data.cluster_labels(), data.draw(0)
    assert half_way(mu, y) == pytest.approx(math.sqrt(200))
    at_means = nearest_prototype(mu, y, mu)
    assert at_means.lower == pytest.approx(math.sqrt(200))
    assert at_means.upper == pytest.approx(math.sqrt(200))
    for prototypes, labels in ((mu, y), (drawn.x_train, drawn.y_train)):
        found = nearest_prototype(prototypes, labels, drawn.x_test)
        assert np.array_equal(found.label, drawn.y_test)
        assert found.lower == pytest.approx(math.sqrt(200), rel=0.02)
        assert found.upper == pytest.approx(math.sqrt(200), rel=0.02)
        assert (found.lower <= found.upper + 1e-9).all()
    assert half_way(np.array([[0.0, 0.0], [3.0, 4.0], [0.1, 0.0]]), np.array([1.0, -1.0, 1.0])) == pytest.approx(
        math.hypot(2.9, 4) / 2
    )


def test_prototypes_of_both_labels_at_one_place() -> None:
    prototypes = np.array([[0.0, 0.0], [0.0, 0.0], [5.0, 0.0]])
    found = nearest_prototype(prototypes, np.array([1.0, -1.0, -1.0]), np.array([[1.0, 0.0]]))
    assert found.label.tolist() == [1]
    assert found.lower.tolist() == [0]
    assert found.upper == pytest.approx(1.5)


def test_prototypes_that_do_not_fit_are_refused() -> None:
    points, labels = np.eye(3), np.array([1.0, -1.0, 1.0])
    for call, says in (
        (lambda: nearest_prototype(points, labels, np.eye(2)), "x = .*must have shape"),
        (lambda: nearest_prototype(points, np.ones(3), points), "labels = .*both -1 and"),
        (lambda: nearest_prototype(points, labels[:2], points), "labels = .*both -1 and"),
        (lambda: half_way(points, np.ones(3)), "labels = .*both among them"),
        (lambda: nearest_prototype(points, labels, points, segments=0), "segments = 0: must be 1 or more"),
    ):
        with pytest.raises(ConfigError, match=says):
            call()


# ---- the explicit network of Thm 4.1


def clusters(sigma: float, d: int = 400, k: int = 6) -> tuple[torch.Tensor, ...]:
    data = Clusters(d=d, k=k, m=80, sigma=sigma, means="orthogonal", m_test=1)
    drawn = data.draw(1)
    return tuple(
        torch.from_numpy(a)
        for a in (data.cluster_means(1), data.cluster_labels(), drawn.x_train, drawn.y_train, data.members(1)[0])
    )


@pytest.mark.parametrize("width", [None, 6, 7, 20])
def test_the_explicit_network_is_one_function_at_every_width(width: int | None) -> None:
    mu, labels, x, y, q = clusters(0.3)
    params, guaranteed = cluster_net(mu, labels, width)
    assert guaranteed == pytest.approx(math.sqrt(400) / 8)
    model = MLP(width=width or 6, bias="first")
    assert {name: p.shape for name, p in params.items()} == {
        name: p.shape for name, p in model.init(400, 1, torch.Generator()).items()
    }
    h = 4 * x @ mu.T / 400 - 2
    f = model.apply(params, x)
    assert f == pytest.approx((h.relu() * labels).sum(1))
    assert bool((y * f >= 1).all())
    assert bool(((h > 0).sum(1) == 1).all()), "exactly one unit is on"
    assert bool((h.argmax(1) == q).all())


@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.0])
def test_the_explicit_network_keeps_its_labels_within_its_certificate(sigma: float) -> None:
    """Along the way to a unit's own boundary and to others' no label changes before; one of them attains it nearly."""
    mu, labels, x, y, q = clusters(sigma)
    params, guaranteed = cluster_net(mu, labels, 9)
    model = MLP(width=9, bias="first")
    certified = cluster_certificate(mu, x, q)
    if sigma < 1:
        assert bool((certified > guaranteed).all())
        assert certified == pytest.approx(torch.full_like(certified, math.sqrt(400) / 2), rel=4 * sigma + 1e-9)
    unit = mu / mu.norm(dim=1, keepdim=True)
    first = torch.full_like(y, math.inf)
    for ray in (-unit[q], *(u - unit[q] for u in unit)):
        length = ray.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        found = flips(model, params, x, y, torch.where(length > 1e-9, ray / length, 1.0), level=1e-9)
        first = torch.minimum(first, torch.from_numpy(found.first))
    assert bool((first >= certified - 1e-6).all())
    own = (4 * (x * mu[q]).sum(1) / 400 - 2) * 5  # h sqrt(d) / 4: where the own unit goes off, N = 0
    assert bool((first <= own + 1e-6).all())
    assert bool((certified <= own + 1e-12).all())


def test_certificates_worked_out_by_hand() -> None:
    """D = 16, means 4 e_q: h = x_q - 2, and a step of 1 moves it by 1."""
    mu = 4 * torch.eye(16, dtype=torch.float64)[:2]
    x = torch.zeros(4, 16, dtype=torch.float64)
    x[0, 0], x[1, 0], x[1, 1], x[2, 0], x[3, 0], x[3, 1] = 3.5, 4.0, 1.25, 1.0, 4.0, 2.5
    q = torch.zeros(4, dtype=torch.int64)
    assert cluster_certificate(mu, x, q) == pytest.approx([1.5, 0.75, 0.0, 0.0])
    assert cluster_certificate(mu[:1], x[:1], q[:1]) == pytest.approx([1.5])


def test_failures_of_the_explicit_network_are_those_of_samples() -> None:
    d, k, sigma = 16, 3, 0.9
    data = Clusters(d=d, k=k, m=200_000, sigma=sigma, means="orthogonal", correlation=0.2, m_test=1)
    mu, x, (q, _) = data.cluster_means(0), data.draw(0).x_train, data.members(0)
    h = 4 * x @ mu.T / d - 2
    own = np.arange(k) == q[:, None]
    each = (h[own] < 1).mean() + ((h > 0) & ~own).sum(1).mean()
    assert cluster_failure(d, k, sigma, inner=0.2 * d) == pytest.approx(each, rel=0.02)
    bound = cluster_failure(d, k, sigma, inner=0.2 * d)
    assert ((h[own] < 1) | ((h > 0) & ~own).any(1)).mean() <= bound
    assert cluster_failure(d, 1, sigma) == pytest.approx(float(ndtr(-4 / (4 * sigma))))


def test_means_that_have_no_explicit_network_are_refused() -> None:
    mu, labels, *_ = clusters(0.1)
    close = torch.from_numpy(Clusters(d=400, k=6, means="orthogonal", correlation=0.4).cluster_means(0))
    near = torch.from_numpy(Clusters(d=400, k=6, means="orthogonal", correlation=0.37).cluster_means(0))
    assert float(cluster_certificate(near, near, torch.arange(6)).min()) >= cluster_net(near, labels)[1]
    for call, says in (
        (lambda: cluster_net(mu, labels, 5), "width = 5: must be k = 6 or more"),
        (lambda: cluster_net(1.1 * mu, labels), "means = lengths off by 0.1"),
        (lambda: cluster_net(close, labels), "means = .* = 0.4 d: at more than 3 d / 8"),
        (lambda: cluster_net(mu, labels[:5]), "labels = .*must be"),
        (lambda: cluster_net(mu, 2 * labels), "labels = .*must be"),
    ):
        with pytest.raises(ConfigError, match=says):
            call()
