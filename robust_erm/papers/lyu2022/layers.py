"""Deep linear networks along training: their layers, the product of these, and the bounds of App. A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import combinations

import numpy as np
import pandas as pd

from robust_erm.data.dataset import Array
from robust_erm.oracles.margin import max_margin
from robust_erm.papers.reproduced import signed_points
from robust_erm.reports.tables import read_curves, snapshots

KEYS = ["sweep", "depth", "eps", "seed"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement of each run: its setting, ``step``, ``log_loss``, and what :func:`of` finds.

    ``eps`` is that of training, in units of the exact margin; ``robust`` the least margin at the radius of evaluation.
    """
    rows = []
    curves = read_curves(runs.drop_duplicates("folder").reset_index(drop=True))
    for folder, curve in curves.groupby("folder", sort=False):
        by_step, z = curve.set_index("step"), signed_points(str(folder))
        best, start = max_margin(z, 2), math.exp(by_step["log_loss"].loc[0])
        steps, kept = snapshots(str(folder))
        layers = [[p.double().numpy() for p in params.values()] for params in kept]
        for step, now in zip(steps, layers, strict=True):
            run = by_step.loc[step]
            setting = {"sweep": run["sweep"], "depth": len(now), "eps": run["eps"], "seed": run["seed"], "step": step}
            measured = {"log_loss": run["log_loss"], "robust": run["margin_robust"], "start": start}
            rows.append({**setting, **measured, **of(now, layers[0], start, z, best.w), "folder": folder})
    return pd.DataFrame(rows).sort_values([*KEYS, "step"]).reset_index(drop=True)


def of(layers: Sequence[Array], first: Sequence[Array], start: float, z: Array, best: Array) -> dict[str, float]:
    """Of ``W_1, ..., W_L``, with ``w = W_L ... W_1``, singular values s_k and first singular vectors u_k, v_k of W_k.

    ``norm_k = ||W_k||_F``; ``ratio_k = s_k / ||W_k||_F``; ``aligned``, the least ``|<u_k, v_{k+1}>|``; ``spread``, the
    greatest ``||W_k||_F^2 - s_k^2``; ``cosine`` of w and ``best``; ``margin``, ``min_i <z_i, w> / ||w||`` over that of
    ``best``; ``outset``, ``|<v_1, best>|``; ``tight``, ``||w|| / prod_k s_k``: 1 where the certificate ``eps prod_k
    s_k`` of the product loses nothing. ``slack_6``, ``slack_48``, ``slack_51``: by how much the inequalities of Lemma 6
    and of eqs. (48) and (51) hold, the least over layers.

    Args:
        layers: now.
        first: at step 0.
        start: the training loss there.
        z: signed points (m, d).
        best: the max-margin separator (d,), of length 1.

    Reference:
        lyu2022 App. A.2: with ``D_k = W_k W_k' - W_{k+1}' W_{k+1}`` and norms at step 0, and ``M = min_k ||W_L||_F^2 -
        ||W_k||_F^2 - sum_{j >= k} v_{j+1}' D_j v_{j+1}``, (48) is ``s_k^2 - ||W_k||_F^2 >= M - 2 L start`` and (51) ``1
        - <u_k, v_{k+1}>^2 <= (||W_k(0)||_2^2 + 2 (L + 2) start - M + v_{k+1}' D_k v_{k+1}) / s_{k+1}^2``.
    """
    depth, w = len(layers), reduce(lambda below, above: above @ below, layers).ravel()
    parts = [np.linalg.svd(each) for each in layers]
    top, u, v = [s[0] for _, s, _ in parts], [left[:, 0] for left, _, _ in parts], [right[0] for _, _, right in parts]
    squares, squares_0 = ([float((each**2).sum()) for each in some] for some in (layers, first))
    aligned = [abs(float(u[k] @ v[k + 1])) for k in range(depth - 1)]
    pulls = [
        float(v[k + 1] @ (first[k] @ first[k].T - first[k + 1].T @ first[k + 1]) @ v[k + 1]) for k in range(depth - 1)
    ]
    m = min(squares_0[-1] - squares_0[k] - sum(pulls[k:]) for k in range(depth))
    spreads = [square - s**2 for square, s in zip(squares, top, strict=True)]
    allowed = [
        (float(np.linalg.norm(first[k], 2)) ** 2 + 2 * (depth + 2) * start - m + pulls[k]) / top[k + 1] ** 2
        for k in range(depth - 1)
    ]
    pairs = [
        2 * start + abs(squares_0[k] - squares_0[j]) - abs(squares[k] - squares[j])
        for k, j in combinations(range(depth), 2)
    ]
    length = float(np.linalg.norm(w))
    found = {f"norm_{k + 1}": math.sqrt(square) for k, square in enumerate(squares)}
    found |= {
        f"ratio_{k + 1}": float(s / math.sqrt(square)) for k, (s, square) in enumerate(zip(top, squares, strict=True))
    }
    return found | {
        "aligned": min(aligned),
        "spread": max(spreads),
        "cosine": float(w @ best) / length,
        "margin": float((z @ w).min() / (z @ best).min()) / length,
        "outset": abs(float(v[0] @ best)),
        "tight": length / float(np.prod(top)),
        "slack_6": min(pairs),
        "slack_48": min(2 * depth * start - m - spread for spread in spreads),
        "slack_51": min(bound - 1 + c**2 for bound, c in zip(allowed, aligned, strict=True)),
    }


def separated(table: pd.DataFrame) -> pd.DataFrame:
    """The measurements of each run from the first on at which its least robust margin is positive."""
    after = table["robust"].gt(0).groupby(table["folder"]).cummax()
    return table[after]
