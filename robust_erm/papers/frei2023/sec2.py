"""What all experiments on clusters measure: how robust a network is, in which class of data, and what theory allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import special
from torch import Tensor

from robust_erm.core.norms import Norm
from robust_erm.core.params import Params
from robust_erm.data.clusters import Clusters
from robust_erm.data.separation import Separation, separation
from robust_erm.evaluation.certificates import hidden
from robust_erm.models.mlp import MLP, one_hidden_relu
from robust_erm.models.model import Model
from robust_erm.oracles.boundary import across, nearest
from robust_erm.oracles.certified import Region, certified_margin
from robust_erm.oracles.kkt import kkt
from robust_erm.oracles.rays import Flips, flips
from robust_erm.oracles.references import class_direction, linear, nearest_prototype
from robust_erm.oracles.robust_net import cluster_certificate, cluster_net
from robust_erm.papers.multipliers import sides
from robust_erm.papers.reproduced import parameters
from robust_erm.store.config import Run
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

NEAR = 0.1  # a KKT residual up to this counts as near; above, claims about the limit are undecided
SHARES = {"u50": 0.5, "u90": 0.9, "u99": 0.99, "u100": 1.0}
ATTACKED = 100  # test points
LABELS = {"u99": "universal, 99 %", "attack": "best attack", "certified": "certified", "allowed": "Thm 4.2's constants"}


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: its setting, accuracies, and lengths in units of sqrt(d).

    ``u50``, ..., ``u100``: the least vector along ``u = sum_q y_q mu_q`` that flips that share of the test points, and
    ``u99_train`` of the training points;
    ``attack``, ``attack_5``, ``attack_95``, ``certified``: median, 5 % and 95 % of the least distances of test points
    that a strong attack finds, and the median that is certified; ``unit``: sqrt(1 / k). ``margin``: the normalised
    margin over that of class averages. ``own_least``, ``own_most``, ``other_most``: sums over a cluster of what its
    points add to their own and to the other side (:func:`robust_erm.papers.multipliers.sides`), beside their
    ``bounds``; ``kkt_W1``, ``kkt_b1``, ``kkt_W2``: the residual of each parameter, relative to its own length;
    ``allowed``: the proof's bound on the universal vector. ``kind`` and ``ratio``: of
    :func:`robust_erm.data.separation.separation`.
    """
    rows = [row(run) for _, run in runs.drop_duplicates("folder").iterrows()]
    keys = ["sweep", "d", "k", "sigma", "width", "init_scale", "seed"]
    return pd.DataFrame(rows).sort_values(keys, kind="stable").reset_index(drop=True)


def row(run: Any) -> dict[str, Any]:
    """Of one run."""
    one = run_of(run["folder"])
    data: Clusters = one.data
    apart, root = _separation(data, one.seed), math.sqrt(data.d)
    found: dict[str, Any] = {
        "sweep": run["sweep"], "d": data.d, "k": data.k, "n": data.m, "sigma": data.sigma, "means": data.means,
        "width": getattr(one.model, "width", math.nan), "init_scale": one.model.init_scale, "seed": one.seed,
        "eps": float(run["eps"]) / root, "optimizer": run["optimizer"], "status": run["status"],
        "log_loss": run["log_loss"], "step": run["step"], "accuracy": run["test_clean_acc"],
        "kind": apart.kind, "ratio": apart.ratio, "unit": 1 / math.sqrt(data.k),
        "kkt": run.get("kkt_stationarity", math.nan), "complementarity": run.get("kkt_complementarity", math.nan),
        "share": run.get("on_margin_share", math.nan), "folder": run["folder"],
    }  # fmt: skip
    found["margin"] = run["margin_robust_l2"] / limit_margin(data, one.model.bias != "none")
    for name in ("median", "5", "95"):
        column = "attack" if name == "median" else f"attack_{name}"
        found[column] = run.get(f"strong.test_distance_{name}", math.nan) / root
    found["certified"] = run.get("strong.test_certified_distance_median", math.nan) / root
    if one.outputs > 1 or run["status"] not in ("converged", "max_steps"):
        return found
    params = parameters(run["folder"])
    points, (q_train, _) = draw(data, one.seed), data.members(one.seed)
    test, u = torch.from_numpy(points.x_test), direction(data, one.seed)
    relu = one_hidden_relu(one.model)
    shares = list(SHARES.values())
    if relu:
        moved = list(map(universal(one.model, params, test, u).least, shares))
    else:
        moved = least_lengths(one.model, params, test, u, shares)
    found |= {name: length / root for name, length in zip(SHARES, moved, strict=True)}
    if relu:
        train = torch.from_numpy(points.x_train)
        found["u99_train"] = universal(one.model, params, train, u).least(0.99) / root
    found["directions"], found["alone"] = units(params, data.cluster_means(one.seed))
    if relu and "kkt" in one.measure and float(run["margin_robust"]) > 0:
        found |= _bounds(one, params, train, torch.from_numpy(points.y_train), q_train, apart)
    return found


@lru_cache(maxsize=1024)
def _separation(data: Clusters, seed: int) -> Separation:
    return separation(data, seed)


def limit_margin(data: Clusters, biases: bool) -> float:
    """``1 / (2 (c_+ + c_-))``: the greatest margin over ||theta||^2 of orthogonal means without noise.

    Without biases ``c_+ = sqrt(k_+ / d)``, by a unit along each class average. With biases of the hidden layer
    ``c_+ = sqrt(k_+ (d + k_-) / (d (d + k)))``: the positive means' unit has the bias ``k_+ / (k + d)`` and is 0 at the
    negative ones. The dual certifies both, with equal multipliers within a class: no unit ``(w, b)`` of length 1
    has ``|sum_q lam_q y_q relu(<w, mu_q> + b)| > 1``, as ``k_+ k_- <= (d + k_+)(d + k_-)``.
    """
    positive = int((data.cluster_labels() > 0).sum())
    negative, d = data.k - positive, data.d
    costs = [
        math.sqrt(own / d * ((d + other) / (d + data.k) if biases else 1.0))
        for own, other in ((positive, negative), (negative, positive))
    ]
    return 1 / (2 * sum(costs))


def direction(data: Clusters, seed: int) -> Tensor:
    """``u = sum_q y_q mu_q`` (d,)."""
    return torch.from_numpy(class_direction(data.cluster_means(seed), data.cluster_labels()))


def universal(model: Model, params: Params, x: Tensor, u: Tensor) -> Flips:
    """Where ``sign f(x_i - t s_i u / ||u||)`` is not s_i = sign f(x_i) any more, with the paper's sign(0) = -1.

    Args:
        model: one hidden layer of ReLUs.
        params: of the model.
        x: (n, d).
        u: (d,).
    """
    f = model.apply(params, x)
    signs = torch.where(f > 0, 1.0, -1.0).to(x)
    found = []
    tiny = 1e-9 * float(f.abs().median())  # 0 itself counts for positive points, not for negative ones
    for sign, level in ((1.0, tiny), (-1.0, -tiny)):
        rows = (signs == sign).nonzero().squeeze(-1)
        ray = -sign * u / u.norm()
        found.append((rows.numpy(), flips(model, params, x[rows], signs[rows], ray, level)))
    first = np.full(len(x), math.inf)
    for places, some in found:
        first[places] = some.first
    point = np.concatenate([places[some.point] for places, some in found])
    start, end = (np.concatenate([getattr(some, name) for _, some in found]) for name in ("start", "end"))
    return Flips(first, math.inf, point, start, end)


def least_lengths(model: Model, params: Params, x: Tensor, u: Tensor, shares: Sequence[float]) -> list[float]:
    """The same for each share, by a grid of 600 lengths up to 3 sqrt(d), for other networks; inf where none will do."""
    signs = torch.where(model.apply(params, x) > 0, 1.0, -1.0).to(x)
    found = [math.inf] * len(shares)
    for t in np.linspace(0, 3 * math.sqrt(x.shape[1]), 601)[1:].tolist():
        moved = torch.where(model.apply(params, x - t * signs.unsqueeze(1) * u / u.norm()) > 0, 1.0, -1.0)
        flipped = float((moved != signs).double().mean())
        found = [min(length, t) if flipped >= share else length for length, share in zip(found, shares, strict=True)]
        if all(map(math.isfinite, found)):
            break
    return found


def units(params: Params, means: np.ndarray) -> tuple[float, float]:
    """How many directions the units have, and how near a unit is to a single cluster.

    The participation ratio ``(sum s^2)^2 / sum s^4`` of the singular values of ``diag|v| W``, and the mean over units,
    weighted by ``|v_j| ||w_j||``, of the largest cosine to a mean.
    """
    w = params["W1"].numpy()
    v = np.abs(params["W2"].numpy()).max(0) if "W2" in params else np.ones(len(w))
    size = np.linalg.norm(w, axis=1)
    s = np.linalg.svd(v[:, None] * w, compute_uv=False) ** 2
    cosines = (w @ means.T) / np.maximum(size[:, None] * np.linalg.norm(means, axis=1), 1e-300)
    weights = v * size
    return float(s.sum() ** 2 / (s**2).sum()), float((weights * cosines.max(1)).sum() / weights.sum())


def _bounds(run: Run, params: Params, x: Tensor, y: Tensor, q: Any, apart: Separation) -> dict[str, float]:
    """Sums of multipliers by cluster, with the bounds of App. A and D where ``x = k P / D_- < 1/3``; constants ours.

    ``own^(q)`` is at most ``M = 1 / (D_- (1 - 2 x))`` and at least ``(1 - x / (1 - 2 x)) / D_+``, ``opp^(q)`` at most
    ``x M``; the universal vector is ``eta u`` with ``eta = (M (D_+ + k P) / (c k a) + P (1 + D_+ / D_-)) / s``, a the
    lower bound and ``s = min_i y_i <x_i, u>``.
    """
    at = kkt(run.model, params, x, y)
    own, other = sides(run, params, x, y, at.lam)
    inside = np.unique(q)
    mine, theirs = (np.array([each[q == label].sum() for label in inside]) for each in (own, other))
    found = {"own_least": mine.min(), "own_most": mine.max(), "other_most": theirs.max()}
    found |= {f"kkt_{name}": residual for name, residual in at.blocks.items()}
    ratio, low, high, p = apart.ratio, apart.within_least, apart.within_most, apart.across
    if ratio >= 1 / 3:
        return found
    most = 1 / (low * (1 - 2 * ratio))
    least = (1 - ratio / (1 - 2 * ratio)) / high
    data: Clusters = run.data
    labels, u = data.cluster_labels(), direction(data, run.seed)
    c = float(min((labels > 0).sum(), (labels < 0).sum())) / data.k
    points = draw(data, run.seed)
    s = min(float((y * (x @ u)).min()), float((torch.from_numpy(points.y_test * (points.x_test @ u.numpy()))).min()))
    eta = (most * (high + data.k * p) / (c * data.k * least) + p * (1 + high / low)) / s if s > 0 else math.inf
    allowed = eta * float(u.norm()) / math.sqrt(data.d)
    return {**found, "bound_least": least, "bound_most": most, "bound_other": ratio * most, "allowed": allowed}


def population_error(params: Params, data: Clusters, seed: int) -> float:
    """A certified bound on P[y f(x) <= 0] over Gaussian clusters, as small as sampling could never show.

    ``mean_q P(chi^2_R >= (r_q / sigma)^2)``: r_q is an l_2 radius around mu_q that linear bounds certify, and noise
    counts in the span of the R-dimensional rows of W alone.

    Args:
        params: float64, of a net with one hidden layer of ReLUs.
        data: with Gaussian noise, sigma > 0.
        seed: of the draw.
    """
    x, y = torch.from_numpy(data.cluster_means(seed)), torch.from_numpy(data.cluster_labels())
    net, low = hidden(params, y), torch.zeros(len(y), dtype=x.dtype)
    high = low + math.sqrt(data.d)
    for _ in range(25):
        middle = (low + high) / 2
        sure = certified_margin(net, Region(x, middle, 2.0, None), steps=0) > 0
        low, high = torch.where(sure, middle, low), torch.where(sure, high, middle)
    rank = int(torch.linalg.matrix_rank(params["W1"][params["W2"][0] != 0]))
    return float(special.gammaincc(rank / 2, (low.numpy() / data.sigma) ** 2 / 2).mean())


@lru_cache(maxsize=256)
def references(data: Clusters, seed: int) -> dict[str, float]:
    """Median distances over sqrt(d) of test points under classifiers without training, on the same draw.

    ``explicit``, attacked, and its least; ``explicit_certified``, the least that is certified, and ``explicit_slack``,
    the least of attacked less certified; ``explicit_u99``, its universal flip of 99 %; ``linear``: ``sign
    <u, x>``; ``neighbour`` and ``mean``: upper bounds of the nearest neighbour's and the nearest mean's, with
    ``_certified`` lower ones.
    """
    points, means, labels = draw(data, seed), data.cluster_means(seed), data.cluster_labels()
    x, y = (torch.from_numpy(a[:ATTACKED]) for a in (points.x_test, points.y_test))
    q, u = torch.from_numpy(data.members(seed)[1][:ATTACKED]), direction(data, seed)
    params, _ = cluster_net(torch.from_numpy(means), torch.from_numpy(labels))
    model = MLP(width=data.k, bias="first")
    starts = across(x, y, torch.from_numpy(points.x_train), torch.from_numpy(points.y_train), Norm(2))
    lengths = nearest(lambda at: model.apply(params, at), x, y, 2.0, starts=starts).norm(dim=1)
    certified = cluster_certificate(torch.from_numpy(means), x, q)
    found = {"explicit": float(lengths.median()), "explicit_least": float(lengths.min())}
    found |= {"explicit_certified": float(certified.min()), "explicit_slack": float((lengths - certified).min())}
    found["explicit_u99"] = universal(model, params, x, u).least(0.99)
    found["linear"] = float(np.median(linear(u.numpy(), x.numpy()).lower))
    for name, prototypes in (("neighbour", (points.x_train, points.y_train)), ("mean", (means, labels))):
        known = nearest_prototype(*prototypes, x.numpy())
        found |= {name: float(np.median(known.upper)), f"{name}_certified": float(np.median(known.lower))}
    return {name: value / math.sqrt(data.d) for name, value in found.items()}


def close(table: pd.DataFrame) -> pd.DataFrame:
    """Those that have fitted all points and are near a KKT point: of which claims about the limit can be judged."""
    return table[(table["status"] == "converged") & (table["kkt"] <= NEAR)]
