"""Clusters of frei2023: their laws, and whether a draw is what the theorems ask for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robust_erm.attacks.none import NoAttack
from robust_erm.core.errors import ConfigError
from robust_erm.core.streams import numpy_stream
from robust_erm.data import separation as module
from robust_erm.data.clusters import NOISES, Clusters, noise, variances
from robust_erm.data.dataset import checked
from robust_erm.data.separation import largest_inner, most_clusters, separation, spread
from robust_erm.data.sphere import Sphere
from robust_erm.store.config import Run
from robust_erm.store.identity import as_data
from robust_erm.sweeps import plan
from robust_erm.sweeps.datasets import described


@pytest.mark.parametrize("means", ["random", "orthogonal"])
def test_default_draws_are_those_of_the_formula(means: str) -> None:
    """Bit for bit what they were before there were options."""
    mu = numpy_stream(3, "teacher").standard_normal((4, 20))
    if means == "orthogonal":
        mu = np.linalg.qr(mu.T)[0].T
    mu *= math.sqrt(20) / np.linalg.norm(mu, axis=1, keepdims=True)
    drawn = Clusters(d=20, m=30, k=4, sigma=0.7, means=means, m_test=50).draw(3)
    for part, n, x, y in (("train", 30, drawn.x_train, drawn.y_train), ("test", 50, drawn.x_test, drawn.y_test)):
        rng = numpy_stream(3, part)
        q = rng.integers(4, size=n)
        assert np.array_equal(x, mu[q] + 0.7 * rng.standard_normal((n, 20)))
        assert np.array_equal(y, np.where(q % 2 == 0, 1.0, -1.0))


def test_old_runs_keep_their_names(resolved: Callable[..., Run]) -> None:
    named = as_data(resolved("data=clusters"), "identity")["data"]
    assert set(named) == {"_target_", "d", "m", "k", "sigma", "means", "m_test"}
    assert as_data(resolved("data=clusters", "data.noise=ball"), "identity")["data"]["noise"] == "ball"


def test_clusters_as_classes_are_packed_by_their_number(resolved: Callable[..., Run]) -> None:
    """K is a number of the run axis, but not where it is the number of logits."""
    by_class = [resolved("data=clusters", f"data.k={k}") for k in (4, 5)]
    by_cluster = [
        resolved("data=clusters", f"data.k={k}", "data.labels=cluster", "objective=cross_entropy") for k in (4, 5)
    ]
    assert plan.pack_key(by_class[0]) == plan.pack_key(by_class[1])
    assert plan.pack_key(by_cluster[0]) != plan.pack_key(by_cluster[1])


@pytest.mark.parametrize("law", NOISES)
def test_mean_and_covariance_of_every_noise(law: str) -> None:
    d, n = 6, 200_000
    g = noise(law, np.random.default_rng(0), n, d)
    expected = np.diag(variances(d)) if law == "anisotropic" else np.eye(d)
    assert g.mean(0) == pytest.approx(np.zeros(d), abs=0.02)
    assert g.T @ g / n == pytest.approx(expected, abs=0.03)


def test_the_noise_laws_are_what_they_are_called() -> None:
    rng = np.random.default_rng(1)
    assert set(np.unique(noise("rademacher", rng, 50, 4))) == {-1.0, 1.0}
    d = 3
    radius = np.linalg.norm(noise("ball", rng, 100_000, d), axis=1) / math.sqrt(d + 2)
    assert radius.max() <= 1
    for share in (0.1, 0.5, 0.9):  # uniform: P[radius <= r] = r^d
        assert np.quantile(radius, share) == pytest.approx(share ** (1 / d), abs=0.01)
    fourth = (noise("gaussian", rng, 200_000, 2) ** 4).mean()
    assert fourth == pytest.approx(3, abs=0.1)
    for d in (1, 2, 7, 1000):
        assert variances(d).sum() == pytest.approx(d)
        assert variances(d).max() < 4
    assert variances(1000).max() == pytest.approx(4, rel=0.01)


def test_noise_is_within_its_cluster_and_scaled_by_sigma() -> None:
    for law in NOISES:
        data = Clusters(d=30, m=5000, k=3, sigma=0.5, noise=law, m_test=4)
        x, (q, _) = data.draw(0).x_train, data.members(0)
        away = x - data.cluster_means(0)[q]
        assert (away**2).sum(1).mean() == pytest.approx(0.25 * 30, rel=0.03)


def test_means_of_equal_correlation() -> None:
    for k in (1, 2, 5, 40):
        mu = Clusters(d=40, k=k, means="orthogonal", correlation=0.3).cluster_means(1)
        assert mu @ mu.T == pytest.approx(40 * (0.7 * np.eye(k) + 0.3), abs=1e-9)
    random = Clusters(d=4000, k=4, correlation=0.6).cluster_means(1)
    assert np.linalg.norm(random, axis=1) == pytest.approx(math.sqrt(4000))
    assert random @ random.T / 4000 == pytest.approx(0.4 * np.eye(4) + 0.6, abs=0.05)


def test_norms_of_the_means() -> None:
    plain, spread_out = (Clusters(d=30, k=400, norm_spread=s) for s in (0.0, 0.2))
    ratio = spread_out.cluster_means(2) / plain.cluster_means(2)
    r = ratio[:, 0]
    assert ratio == pytest.approx(np.repeat(r[:, None], 30, 1))
    assert 0.8 <= r.min() < 0.81
    assert 1.19 < r.max() <= 1.2
    assert r.mean() == pytest.approx(1, abs=0.02)


def test_members_labels_and_positive_clusters() -> None:
    data = Clusters(d=25, m=200, k=5, sigma=0.01, means="orthogonal", m_test=60, positive=2)
    drawn, (train, test), mu = data.draw(4), data.members(4), data.cluster_means(4)
    for x, y, q in ((drawn.x_train, drawn.y_train, train), (drawn.x_test, drawn.y_test, test)):
        assert np.array_equal((x @ mu.T).argmax(1), q)
        assert np.array_equal(y, np.where(q < 2, 1.0, -1.0))
    assert data.cluster_labels().tolist() == [1, 1, -1, -1, -1]
    assert Clusters(k=5).cluster_labels().tolist() == [1, -1, 1, -1, 1]
    assert (train.shape, test.shape) == ((200,), (60,))


def test_balanced_clusters() -> None:
    data = Clusters(d=25, m=23, k=5, sigma=0.01, means="orthogonal", m_test=60, balanced=True)
    train, test = data.members(0)
    assert sorted(np.bincount(train)) == [4, 4, 5, 5, 5]
    assert np.array_equal(test, Clusters(d=25, m=23, k=5, m_test=60).members(0)[1]), "test points stay as they were"
    drawn = data.draw(0)
    assert np.array_equal((drawn.x_train @ data.cluster_means(0).T).argmax(1), train)
    assert np.array_equal(drawn.x_train[:10], Clusters(**{**vars(data), "m": 10}).draw(0).x_train), "nested"


@pytest.mark.parametrize(("k", "expected"), [(2, [1.0, -1.0]), (4, [0.0, 1.0, 2.0, 3.0])])
def test_labels_that_say_the_cluster(k: int, expected: list[float]) -> None:
    data = Clusters(d=25, m=100, k=k, labels="cluster")
    assert data.n_classes == k
    drawn = checked(data.draw(0), 25, k, "clusters")
    q, q_test = data.members(0)
    assert np.array_equal(drawn.y_train, np.array(expected)[q])
    assert np.array_equal(drawn.y_test, np.array(expected)[q_test])
    assert np.array_equal(drawn.x_train, Clusters(d=25, m=100, k=k).draw(0).x_train)
    assert Clusters(d=25, m=100, k=k).n_classes == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"positive": 0}, r"positive = 0: must be between 1 and k - 1 = 9"),
        ({"positive": 10}, r"positive = 10: must be between 1 and k - 1 = 9"),
        ({"k": 1, "positive": 1}, r"positive = 1: must be between"),
        ({"noise": "gausian"}, r"noise = gausian.*did you mean gaussian"),
        ({"correlation": 1.0}, r"correlation = 1.0: must be 0 or more, and below 1"),
        ({"correlation": -0.1}, r"correlation = -0.1"),
        ({"norm_spread": 1.0}, r"norm_spread = 1.0: must be 0 or more, and below 1"),
        ({"norm_spread": math.nan}, r"norm_spread = nan"),
        ({"labels": "clusters"}, r"labels = clusters: must be one of class, cluster"),
        ({"k": 1, "labels": "cluster"}, r"k = 1: must be 2 or more where clusters are the classes"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        Clusters(**options)
    assert "\n" not in str(refused.value)


# ---- Assumption 2.2


def test_the_largest_number_of_clusters() -> None:
    """Orthogonal means: k_max at a few (d, sigma), worked out apart from the code."""
    for d, sigma, expected in (
        (500, 1e-3, 32.2),
        (1000, 1e-3, 53),
        (1000, 1000**-0.5, 3.4),
        (4000, 4000**-0.5, 11.6),
        (1000, 0.1, 1.03),
    ):
        assert most_clusters(d, sigma) == pytest.approx(expected, rel=0.02)
    assert most_clusters(500, 1.0) < 0, "Delta > d"
    # Delta = 0: k (p + 1) = (d + 1) / 10
    assert most_clusters(99, 0.0, inner=4.0) == pytest.approx(2.0)
    assert most_clusters(1_450_000, 1.0) > 2 > most_clusters(1_400_000, 1.0)


def test_products_over_pairs_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((40, 7)), rng.integers(3, size=40)
    pairs = [(float(a @ b) + 1, p == r) for a, p in zip(x, q, strict=True) for b, r in zip(x, q, strict=True)]
    expected = (
        max(abs(value) for value, same in pairs if not same),
        min(value for value, same in pairs if same),
        max(value for value, same in pairs if same),
    )
    assert spread(x, q) == pytest.approx(expected)
    monkeypatch.setattr(module, "_HELD", 100)  # blocks of two rows
    assert spread(x, q) == pytest.approx(expected)
    assert spread(x[:1], q[:1]) == pytest.approx((0.0, float(x[0] @ x[0]) + 1, float(x[0] @ x[0]) + 1))
    apart = np.array([[1.0, 0.0], [-9.0, 0.0]])
    assert spread(apart, np.array([0, 1])) == (8.0, 2.0, 82.0), "the largest in absolute value, -9 + 1"
    with pytest.raises(ConfigError, match="must have shape"):
        spread(x, q[:-1])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"d": 500, "k": 4, "m": 155, "sigma": 1e-3}, "literal"),
        ({"d": 500, "k": 33, "m": 155, "sigma": 1e-3}, "empirical"),  # 32.2 at most
        ({"d": 500, "k": 4, "m": 155, "sigma": 1e-3, "noise": "ball"}, "empirical"),
        ({"d": 500, "k": 4, "m": 155, "sigma": 1e-3, "norm_spread": 0.1}, "empirical"),
        ({"d": 500, "k": 4, "m": 155, "sigma": 0.0}, "empirical"),
        ({"d": 500, "k": 8, "m": 160, "sigma": 0.1}, "bounds"),
        ({"d": 64, "k": 8, "m": 160, "sigma": 0.5}, "relaxed"),
        ({"d": 64, "k": 8, "m": 160, "sigma": 2.0}, "relaxed"),
    ],
)
def test_kinds_of_draws(options: dict[str, Any], kind: str) -> None:
    data = Clusters(means="orthogonal", m_test=50, **options)
    found = separation(data, 1)
    assert found.kind == kind
    assert str(found).startswith(f"{kind}: ")
    assert "\n" not in str(found)
    assert data.describe(1) == str(found)
    assert found.n == data.m
    assert found.delta == pytest.approx(4 * data.sigma * math.sqrt(data.d) * math.log(data.d))
    assert found.enough == pytest.approx(data.k * math.log(data.d) ** 2)
    drawn = data.draw(1)
    q = np.concatenate(data.members(1))
    x = np.concatenate([drawn.x_train, drawn.x_test])
    inner, same = x @ x.T + 1, q[:, None] == q
    assert found.across == pytest.approx(np.abs(inner[~same]).max())
    assert found.within_least == pytest.approx(inner[same].min())
    assert found.within_most == pytest.approx(inner[same].max())
    ratio = data.k * found.across / found.within_least
    assert found.ratio == (pytest.approx(ratio) if ratio > 0 else math.inf)


def test_means_without_noise() -> None:
    """P = c d + 1 and D_+- = d + 1, in closed form; Delta = 0."""
    found = separation(Clusters(d=100, m=200, k=3, sigma=0.0, means="orthogonal", correlation=0.2, m_test=5), 0)
    assert (found.across, found.within_least, found.within_most) == pytest.approx((21, 101, 101))
    assert found.inner == pytest.approx(20)
    assert found.ratio == pytest.approx(3 * 21 / 101)
    assert found.k_most == pytest.approx(101 / 210)
    assert largest_inner(np.array([[3.0, 0.0], [-1.0, 2.0], [0.0, 1.0]])) == 3
    assert separation(Clusters(d=100, m=5, k=1, sigma=0.0, m_test=5), 0).across == 0


def test_what_draws_satisfy_is_said_before_training() -> None:
    """One line for each set of clusters, at its first seed, a few of them; nothing of other data."""
    sets = [Clusters(d=40, m=20, k=k, m_test=5) for k in range(2, 7)]
    attack = {"attack": NoAttack(2.0), "eval_attacks": {}, "eps": 0.0, "eval_eps": None}
    runs: list[Any] = [SimpleNamespace(data=data, seed=seed, **attack) for data in sets for seed in (3, 4)]
    runs.insert(0, SimpleNamespace(data=Sphere(d=5, m=4), seed=0, **attack))
    lines = described(runs)
    assert lines[0] == f"clusters, seed 3: {sets[0].describe(3)}"
    assert len(lines) == 4
    assert lines[-1] == "... and 2 more data sets"
    assert described(runs[:3]) == [f"clusters, seed 3: {sets[0].describe(3)}"]
    assert described(runs[:1]) == []
    mute = dataclasses.make_dataclass("Mute", [], namespace={"describe": lambda self, seed: self.nothing}, frozen=True)
    with pytest.raises(ConfigError, match="describe raises AttributeError"):
        described([*runs[:1], SimpleNamespace(data=mute(), seed=0)])  # type: ignore[list-item]
