"""Homogeneous networks along training: margins over several norms of theta, and what is missed of a KKT point in each.

Every margin is a least one over the training points, after the attack of training at its radius.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from robust_erm.attacks.pgd import PGD
from robust_erm.core.margins import margin, over_power
from robust_erm.core.streams import torch_stream
from robust_erm.geometries.geometry import Geometry
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.oracles.linearised import margin_gap
from robust_erm.papers.lyu2022.flow import Path, paths
from robust_erm.training.step import perturbed

NORMS: dict[str, Geometry] = {
    "l1": Lp(1.0), "l2": Lp(2.0), "linf": Lp(math.inf), "spectral": Layers(), "hybrid": Layers(vectors=math.inf),
}  # fmt: skip
KEYS = ["sweep", "eps", "seed", "folder", "step", "log_loss"]
STARTS = 2  # random starts of an attack, for more constraints
LOOKS = 4  # measurements of a run at which gaps are taken


def along(runs: pd.DataFrame, norms: Sequence[str]) -> pd.DataFrame:
    """One row a measurement of each run from the first with L < 1 on, L the sum of losses: sweep, eps, seed, step,
    ``log_loss``; for each norm ``soft_<norm>``, ``-log L / ||theta||^K``, and ``hard_<norm>``, ``min_i q_i /
    ||theta||^K``, K the degree.
    """
    tables = []
    for setting, path in paths(runs):
        log_loss, degree = path.loss_and_grad[0], path.run.model.degree
        late = separated(path)
        if not len(late):
            continue
        least, theta = path.margins[late].amin(1), path.theta[late]
        found = {**setting, "eps": float(path.batch.eps), "step": path.steps[late], "log_loss": log_loss[late].numpy()}
        for name in norms:
            size = _size(name, theta, path)
            found[f"soft_{name}"] = over_power(-log_loss[late], size, degree).numpy()
            found[f"hard_{name}"] = over_power(least, size, degree).numpy()
        tables.append(pd.DataFrame(found))
    columns = [*KEYS, *(f"{kind}_{name}" for name in norms for kind in ("soft", "hard"))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def gaps(runs: pd.DataFrame, own: dict[str, str], others: Sequence[str] = (), looks: int = LOOKS) -> pd.DataFrame:
    """One row a look, so many of a run, spread evenly over the logarithm of steps from L < 1 to the end: sweep, eps,
    seed, folder, step, ``log_loss``; ``gap``, what theta misses to first order of the margin over the norm
    ``own[sweep]`` (:func:`robust_erm.oracles.linearised.margin_gap`); at the last look ``gap_<norm>`` over others too.
    """
    rows = []
    for setting, path in paths(runs):
        late = separated(path)
        if not len(late):
            continue
        spread = np.geomspace(path.steps[late[0]] + 1, path.steps[-1] + 1, looks)[:-1] - 1
        at = {len(path.steps) - 1, *(int(late[np.abs(path.steps[late] - step).argmin()]) for step in spread)}
        norm = own[setting["sweep"]]
        for k in sorted(at):
            names = {norm, *others} if k == max(at) else {norm}
            each = {f"gap_{name}": gap(path, k, name) for name in sorted(names)}
            now = {"eps": float(path.batch.eps), "step": path.steps[k], "log_loss": float(path.loss_and_grad[0][k])}
            rows.append({**setting, **now, "gap": each[f"gap_{norm}"], **(each if k == max(at) else {})})
    return pd.DataFrame(rows, columns=[*KEYS, "gap", *(f"gap_{name}" for name in others)])


def gap(path: Path, k: int, norm: str) -> float:
    """What the k-th snapshot misses to first order of the margin over ``norm``; nan where no margin is positive."""
    x, params = constraints(path, k), path.params(k)
    y = path.batch.y.repeat(len(x) // len(path.batch.y))
    positive = float(margin(path.run.model.apply(params, x), y).min()) > 0
    return margin_gap(path.run.model, params, x, y, NORMS[norm]) if positive else math.nan


def constraints(path: Path, k: int) -> Tensor:
    """Points (c n, d) whose margins are the constraints at the k-th snapshot: the training points, c = 1, if clean.

    Under an attack every point of a ball is one, and worst ones tie. Those that training's attack finds, and PGD with
    50 steps from each of two random starts, are taken together, and the least margin is that of them all.
    """
    theta, batch = path.theta[k], path.batch
    points = [path.attacked(theta)]
    if float(batch.eps) > 0:
        n, d = batch.x.shape
        again = PGD(path.run.attack.p, steps=50, relative_step=0.1, random_start=True, restarts=STARTS)
        noise = again.draw(n, d, torch_stream(path.run.seed, "gap"))
        points += [perturbed(path.recipe, again, theta, batch, one.unsqueeze(0)) for one in noise]
    return torch.cat(points)


def separated(path: Path) -> npt.NDArray[np.int_]:
    """Places in ``path.steps`` from the first with L < 1 on: all margins are positive there."""
    below = (path.loss_and_grad[0] < 0).numpy()
    return np.arange(below.argmax() if below.any() else len(below), len(below))


def _size(name: str, theta: Tensor, path: Path) -> Tensor:
    return NORMS[name].value(theta, path.recipe.layout)
