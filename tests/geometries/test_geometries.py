"""Every geometry: norm, dual and steepest direction against one another, against SciPy, and over a run axis."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from robust_erm.core.linalg import newton_schulz, polar
from robust_erm.core.params import Layout
from robust_erm.core.schatten import Schatten
from robust_erm.geometries.geometry import Geometry
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp

INF = math.inf
LAYOUT = Layout((("W1", (4, 3)), ("b1", (4,)), ("conv", (2, 3, 2)), ("W2", (1, 4))))
EXPONENTS = (1.0, 1.5, 2.0, 3.0, INF)
ALL: list[Geometry] = [*map(Lp, EXPONENTS), *(Layers(r, a) for r in EXPONENTS for a in EXPONENTS)]
ALL += [Layers(r, a, "entries", v) for r, a, v in ((1.0, 2.0, INF), (INF, 1.0, 1.0), (3.0, INF, 2.0))]
ALL += [Layers(vectors=INF), Layers(1.0, 1.0, vectors=1.0)]


def name(geometry: Geometry) -> str:
    return geometry.name


def vectors(seed: int, *lead: int) -> torch.Tensor:
    return torch.randn(*lead, LAYOUT.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_names_are_words_and_differ() -> None:
    assert len({g.name for g in ALL}) == len(ALL)
    assert all(g.name.isidentifier() for g in ALL)
    assert Layers().name == "spectral"
    assert Layers(1.0, INF).name == "s1_linf"
    assert Layers(1.5, 2.0, "entries", 1.0).name == "l1_5_l2_v1"
    assert Layers(polar="newton_schulz").name == "spectral", "the norm is the same"


@pytest.mark.parametrize("geometry", ALL, ids=name)
def test_norm_dual_and_steepest_direction(geometry: Geometry) -> None:
    """||u|| = 1, <u, g> = ||g||_*, and no <v, g> of a ||v|| = 1 is larger; sharp = ||g||_* u."""
    g = vectors(0)
    u, dual = geometry.steepest(g, LAYOUT), geometry.dual_value(g, LAYOUT)
    assert float(geometry.value(u, LAYOUT)) == pytest.approx(1, rel=1e-12)
    assert float(u @ g) == pytest.approx(float(dual), rel=1e-12)
    assert torch.allclose(geometry.sharp(g, LAYOUT), dual * u, rtol=1e-12, atol=1e-14)
    others = vectors(1, 200)
    others[:100] = u + 0.1 * others[:100]
    reached = (others @ g) / torch.stack([geometry.value(v, LAYOUT) for v in others])
    assert float(reached.max()) <= float(dual) * (1 + 1e-12)


@pytest.mark.parametrize("geometry", ALL, ids=name)
def test_a_norm_is_homogeneous_and_below_its_sums(geometry: Geometry) -> None:
    v, w = vectors(2), vectors(3)
    sizes = [float(geometry.value(x, LAYOUT)) for x in (v, w, v + w, -2.5 * v)]
    assert sizes[2] <= sizes[0] + sizes[1]
    assert sizes[3] == pytest.approx(2.5 * sizes[0], rel=1e-12)
    assert sizes[0] > 0


@pytest.mark.parametrize("geometry", [Layers(1.5, 3.0), Layers(3.0, 1.5, vectors=3.0), Layers(2.0, 2.0)], ids=name)
def test_the_dual_against_a_search(geometry: Layers) -> None:
    """The greatest <u, g> / ||u|| by BFGS, of norms that are smooth."""
    layout = Layout((("W", (3, 2)), ("b", (3,))))
    g = vectors(4)[: layout.size]

    def negative(u: np.ndarray) -> float:  # type: ignore[type-arg]
        x = torch.from_numpy(u)
        return -float(x @ g / geometry.value(x, layout))

    found = -minimize(negative, g.numpy(), method="BFGS").fun
    assert found == pytest.approx(float(geometry.dual_value(g, layout)), rel=1e-6)


@pytest.mark.parametrize("geometry", ALL, ids=name)
def test_all_runs_at_once_are_each_alone(geometry: Geometry) -> None:
    g = vectors(5, 3)
    for method in ("value", "dual_value", "steepest", "sharp"):
        both = getattr(geometry, method)(g, LAYOUT)
        each = torch.stack([getattr(geometry, method)(one, LAYOUT) for one in g])
        assert torch.allclose(both, each, rtol=1e-13, atol=1e-15)
        mapped = torch.func.vmap(lambda one, m=method: getattr(geometry, m)(one, LAYOUT))(g)
        assert torch.allclose(both, mapped, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("geometry", ALL, ids=name)
def test_zero_stays_zero_and_nan_is_told_of(geometry: Geometry) -> None:
    zero, bad = torch.zeros(LAYOUT.size, dtype=torch.float64), vectors(6)
    assert torch.equal(geometry.steepest(zero, LAYOUT), zero)
    assert float(geometry.value(zero, LAYOUT)) == 0
    bad[1] = math.nan
    assert not geometry.sharp(bad, LAYOUT).isfinite().all()


def test_what_the_layers_do_together() -> None:
    """Largest: all move; sum: the one with the largest dual norm; l_2: as one vector, for Frobenius norms."""
    g = vectors(7)
    steps = {across: LAYOUT.unflatten(Layers(2.0, across).steepest(g, LAYOUT)) for across in (1.0, INF)}
    moved = {across: [bool(p.any()) for p in step.values()] for across, step in steps.items()}
    assert moved[INF] == [True] * 4
    duals = [float(p.norm()) for p in LAYOUT.unflatten(g).values()]
    assert moved[1] == [d == max(duals) for d in duals]
    assert torch.allclose(Layers(2.0, 2.0).steepest(g, LAYOUT), Lp(2.0).steepest(g, LAYOUT), rtol=1e-12)


def test_schatten_norms_are_those_of_singular_values() -> None:
    w = vectors(8)[:12].reshape(4, 3)
    s = torch.linalg.svdvals(w)
    for r in EXPONENTS:
        assert float(Schatten(r).value(w)) == pytest.approx(float(torch.linalg.vector_norm(s, ord=r)), rel=1e-12)
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    assert torch.allclose(Schatten(1.0).steepest(w)[0], torch.outer(u[:, 0], vh[0]), atol=1e-12)


def test_newton_schulz_is_near_the_polar_factor_but_not_at_it() -> None:
    """It keeps singular vectors and takes what is not tiny beside ||G||_F to 0.67 to 1.21 (Jordan et al. 2024)."""
    for shape in ((20, 12), (12, 20)):
        g = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
        u, _, vh = torch.linalg.svd(g, full_matrices=False)
        inner = u.mT @ newton_schulz(g, 5) @ vh.mT
        s = inner.diagonal()
        assert torch.allclose(inner, torch.diag(s), atol=1e-12)
        assert float(s.min()) > 0.65
        assert float(s.max()) < 1.22
        assert float((s - 1).abs().max()) > 0.1
        assert float((newton_schulz(g, 5) * polar(g)[0]).sum()) / 12 == pytest.approx(1, abs=0.2)
    low = torch.outer(torch.arange(1.0, 4.0), torch.ones(3)).double()
    assert int(torch.linalg.matrix_rank(newton_schulz(low, 5))) == 1
    assert torch.equal(newton_schulz(torch.zeros(2, 3), 5), torch.zeros(2, 3))
    for scale in (1e-300, 1e300):
        assert torch.allclose(newton_schulz(low * scale, 5), newton_schulz(low, 5), rtol=1e-12)
