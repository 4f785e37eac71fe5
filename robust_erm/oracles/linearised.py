"""The largest least margin of linear functions in any geometry, and how far a network is from it to first order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import piqp
import torch
from scipy.optimize import linprog
from torch import Tensor
from torch.func import jacrev, vmap

from robust_erm.core.errors import require
from robust_erm.core.linalg import own_class
from robust_erm.core.params import Layout, Params
from robust_erm.geometries.geometry import Geometry
from robust_erm.models.model import Model

Array = npt.NDArray[np.float64]

_BYTES = 2**30  # of gradients held at once
_CUTS = 400
_GAP = 1e-3  # relative


@dataclass(frozen=True)
class Bounds:
    """``max_{||u|| <= 1} min_i <g_i, u> = min_{lam in simplex} ||sum_i lam_i g_i||_*``, from both sides.

    Args:
        low: reached by some u.
        high: reached by lam.
        lam: (n,).
        u: (P,), of norm 1 at most, which reaches ``low``.
    """

    low: float
    high: float
    lam: Array
    u: Tensor

    @property
    def gap(self) -> float:
        """Relative."""
        return (self.high - self.low) / self.high if self.high > 0 else 0.0


def best_least(geometry: Geometry, layout: Layout, g: Tensor, gap: float = _GAP) -> Bounds:
    """The two sides of it for rows g_i, by cuts ``||g|| >= <u_k, g>`` at steepest directions u_k.

    Each lam asks the geometry for its steepest direction, which bounds the right side from below, linearly in lam; the
    least of all such bounds is a linear program, whose multipliers mix the u_k into a u. The next lam is the nearest to
    the best one for which the bounds are halfway down: that needs few cuts, whatever the norm.

    Args:
        geometry: its ``steepest`` must be exact.
        layout: of the rows.
        g: (n, P).
        gap: ends once the two sides are so near, relative; or after 400 cuts, as near as they are then.

    Reference:
        Lemarechal, Nemirovskii & Nesterov 1995, "New variants of bundle methods", the level method.
    """
    g = g.double()
    scale = float(g.abs().max()) or 1.0
    g, n = g / scale, len(g)
    best = lam = np.full(n, 1 / n)
    low, high, cuts, steps = 0.0, np.inf, np.zeros((0, n)), g.new_zeros(0, g.shape[1])
    u = g.new_zeros(g.shape[1])
    for _ in range(_CUTS):
        mixed = torch.from_numpy(lam).to(g) @ g
        size = float(geometry.dual_value(mixed, layout))
        if size < high:
            high, best = size, lam
        steps = torch.cat([steps, geometry.steepest(mixed, layout).unsqueeze(0)])
        cuts = np.vstack([cuts, (g @ steps[-1]).cpu().numpy()])
        nu = _mixture(cuts)
        if (found := float((nu @ cuts).min())) > low:
            low, u = found, torch.from_numpy(nu).to(g) @ steps
        if high - low <= gap * high:
            break
        lam = _nearest(cuts / high, (low + high) / (2 * high), best)
    return Bounds(low * scale, high * scale, best, u)


def _mixture(cuts: Array) -> Array:
    """The nu (k,) of the simplex for which ``min_i (nu' cuts)_i`` is greatest."""
    k, n = cuts.shape
    cost, each = np.r_[np.zeros(k), -1.0], np.c_[-cuts.T, np.ones(n)]
    found = linprog(cost, each, np.zeros(n), np.r_[np.ones(k), 0.0][None], [1.0], [(0, None)] * k + [(None, None)])
    nu = np.ones(k) if found.x is None else np.maximum(found.x[:k], 0)
    mixture: Array = nu / nu.sum()
    return mixture


def _nearest(cuts: Array, level: float, to: Array) -> Array:
    """The lam of the simplex nearest to ``to`` with all ``cuts @ lam <= level``."""
    k, n = cuts.shape
    solver = piqp.DenseSolver()
    solver.settings.eps_abs = solver.settings.eps_rel = 1e-9
    ones = np.ones((1, n))
    solver.setup(np.eye(n), -to, ones, np.ones(1), cuts, None, np.full(k, level), np.zeros(n), None)
    solver.solve()
    lam = np.maximum(np.asarray(solver.result.x), 0)
    return lam / lam.sum() if np.isfinite(lam).all() and lam.sum() > 0 else to


def margin_gap(model: Model, params: Params, x: Tensor, y: Tensor, geometry: Geometry) -> float:
    """How much of the margin a step of the geometry could still add, to first order: 0 at a KKT point.

    ``1 - L q_min / (||theta|| M)``, M the largest ``min_i <grad q_i, u>`` of all ``||u|| <= 1``: theta itself has
    ``<grad q_i, theta> = L q_i`` (Euler), and is a KKT point of ``min ||theta||  s.t.  q_i >= 1`` where no u is better.
    For a model linear in its parameters M is the maximum margin, and this what theta misses of it. It does not depend
    on the length of theta, and is at most 1e-3 more than it should be; nan where that is not reached.

    Args:
        model: homogeneous, of degree L.
        params: of the model.
        x: (n, d), the points as attacked.
        y: (n,). With several classes q_i are all differences of the true and another logit.
        geometry: the norm.

    Raises:
        ConfigError: the model is not homogeneous, or the gradients need more than a GiB.

    Reference:
        Tsilivis, Vardi & Kempe 2024, "Flavors of margin", on that problem in any norm; Lyu & Li 2020 for l_2.
    """
    require(model.degree is not None, "model", type(model).__name__.lower(), "has no KKT problem: not homogeneous")
    assert model.degree is not None
    layout, outputs = Layout.of(params), model.apply(params, x[:1]).numel()
    needs = 8 * len(y) * outputs * layout.size
    says = f"needs {needs / 2**30:.1f} GiB of gradients, {_BYTES >> 30} at most: take fewer points"
    require(needs <= _BYTES, "own", len(y), says)

    def differences(theta: Tensor, point: Tensor, label: Tensor) -> Tensor:
        f = model.apply(layout.unflatten(theta), point.unsqueeze(0))
        if outputs == 1:
            return label * f.reshape(1)
        return (f * own_class(outputs, label.unsqueeze(0))).sum() - f.squeeze(0)

    theta, x, y = layout.flatten(params).double(), x.double(), y.double()
    q = vmap(differences, in_dims=(None, 0, 0))(theta, x, y).flatten()
    g = vmap(jacrev(differences), in_dims=(None, 0, 0))(theta, x, y).reshape(len(q), -1)
    others = torch.ones_like(q, dtype=torch.bool) if outputs == 1 else ~own_class(outputs, y).flatten()
    least = float(q[others].min())
    bounds = best_least(geometry, layout, g[others])
    reached = model.degree * least / float(geometry.value(theta, layout))
    return 1 - reached / bounds.high if bounds.gap <= _GAP else float("nan")
