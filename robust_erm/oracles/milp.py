"""Whether a point of a net with one hidden ReLU layer can be broken at all: mixed-integer programs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import optimize, sparse
from torch import Tensor

from robust_erm.oracles.certified import Array, Hidden, Region, pre_activations


@dataclass(frozen=True)
class Answer:
    """What the search for an attack on one point ended with.

    Args:
        verdict: robust (no x' has a margin of 0 or less), broken (``x`` has), or open (out of time).
        x: (d,), where broken.
    """

    verdict: str
    x: Tensor | None = None


def exact(net: Hidden, region: Region, i: int, seconds: float = 10.0) -> Answer:
    """Whether point i can be pushed to a margin of 0 or less, p = inf: mixed-integer programs, one for each rival.

    Only a unit that is unstable and enters with ``a_j < 0`` needs a binary: where ``a_j > 0`` the minimum itself
    presses h_j down onto ``max(z_j, 0)``. Units are scaled to ``|z_j| <= 1`` and margins to
    ``sum_j |a_j| + |c| = 1``, and 1e-6 above 0 counts as broken until the net itself says otherwise: the solver's
    tolerances are not trusted for robustness. All in float64.
    """
    point = region.some(slice(i, i + 1))
    point = replace(point, x=point.x.double())
    net = Hidden(net.w.double(), net.b.double(), net.a[i : i + 1].double(), net.c[i : i + 1].double())
    low, high = (z[0].cpu().numpy() for z in pre_activations(net, point))
    centre, radius = (z[0].cpu().numpy() for z in point.interval)
    # units in their own size: the solver's tolerances are absolute, and the net's answer does not depend on scale
    size = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-300)
    w, b = net.w.cpu().numpy() / size[:, None], net.b.cpu().numpy() / size
    low, high = low / size, high / size
    verdict = "robust"
    for k in range(net.a.shape[1]):
        a, c = net.a[0, k].cpu().numpy() * size, float(net.c[0, k])
        for minimal in (False, True):  # any such point first; where the net does not confirm it, the worst
            found = _program(w, b, a, c, low, high, centre - radius, centre + radius, seconds, minimal)
            if isinstance(found, str):
                verdict = verdict if found == "infeasible" else "open"
                break
            x = torch.from_numpy(np.clip(found, centre - radius, centre + radius)).to(region.x.device)
            if float(net.margins(x.unsqueeze(0))[0]) <= 0:
                return Answer("broken", x.to(region.x))
        else:
            verdict = "open"
    return Answer(verdict)


def _program(
    w: Array,
    b: Array,
    a: Array,
    c: float,
    low: Array,
    high: Array,
    least: Array,
    most: Array,
    seconds: float,
    minimal: bool,
) -> Array | str:
    """A point x' (d,) with ``a . relu(W x' + b) + c <= 1e-6``, the worst one where asked; or ``infeasible``, ``open``.

    Args:
        w: (h, d).
        b: (h,).
        a: (h,).
        c: constant.
        low: bound (h,) on W x + b.
        high: the same.
        least: bound (d,) on x.
        most: the same.
        seconds: at most.
        minimal: minimise, not only find.
    """
    scale = np.abs(a).sum() + abs(c) or 1.0
    a, c = a / scale, c / scale
    on, off = low >= 0, high <= 0
    unsure = np.flatnonzero(~on & ~off & (a != 0))
    d, h = w.shape[1], len(unsure)
    binary = np.flatnonzero(a[unsure] < 0)
    z, count = w[unsure], len(binary)
    eye, none = sparse.identity(h, format="csr"), sparse.csr_matrix((h, count))
    rows = [sparse.hstack([-z, eye, none])]  # h >= z
    lower, upper = [b[unsure]], [np.full(h, np.inf)]
    if count:
        picked = eye[binary]
        drop, rise = low[unsure][binary], high[unsure][binary]
        # h <= z - l (1 - s), h <= u s
        rows.append(sparse.hstack([-z[binary], picked, sparse.diags(-drop)]))
        lower.append(np.full(count, -np.inf))
        upper.append(b[unsure][binary] - drop)
        rows.append(sparse.hstack([sparse.csr_matrix((count, d)), picked, sparse.diags(-rise)]))
        lower.append(np.full(count, -np.inf))
        upper.append(np.zeros(count))
    objective = np.concatenate([a[on] @ w[on], a[unsure], np.zeros(count)])
    rest = float(a[on] @ b[on] + c)
    rows.append(sparse.csr_matrix(objective))
    lower.append(np.array([-np.inf]))
    upper.append(np.array([1e-6 - rest]))
    bounds = optimize.Bounds(
        np.concatenate([least, np.zeros(h + count)]),
        np.concatenate([most, np.maximum(high[unsure], 0), np.ones(count)]),
    )
    whole = np.concatenate([np.zeros(d + h), np.ones(count)])
    constraint = optimize.LinearConstraint(
        sparse.vstack(rows, format="csr"), np.concatenate(lower), np.concatenate(upper)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = optimize.milp(
            objective if minimal else np.zeros(len(objective)),
            constraints=constraint,
            bounds=bounds,
            integrality=whole,
            options={"time_limit": seconds, "presolve": True},
        )
    if done.status == 2:
        return "infeasible"
    return np.asarray(done.x[:d]) if done.x is not None else "open"
