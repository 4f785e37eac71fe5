"""Lemmas 3, 4 and 11: what every homogeneous network has in adversarial training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.attacks.attack import Attack
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.pgd import PGD
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.lyu2022.flow import Path, paths
from robust_erm.reports.style import COLOURS, PAGE, style

ATTACKS: dict[str, Attack] = {
    "fgsm": FGM(math.inf),
    "fgm": FGM(2.0),
    "pgd": PGD(2.0, steps=20),
    "pgd_linf": PGD(math.inf, steps=20),
}
FACTORS = (7.3, 0.011, 1e5)  # of the layers in turn


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run, at its last step.

    ``moved_<attack>``: the largest change of a coordinate of x', over the radius, when the layers are multiplied by
    :data:`FACTORS`. ``scaled``: the relative error of ``gamma(a W) = prod_k a_k gamma(W)``. ``lemma4``: the greatest
    relative error of ``-<W_k, dL / dW_k> = (1 / n) sum_i e^{-gamma_i} gamma_i`` over layers. ``drift``: over all
    measurements, the greatest change of ``||W_k||^2 - ||W_j||^2`` since the first, over the largest ``||W_k||^2``.
    """
    rows = [{**setting, **_row(path)} for setting, path in paths(runs)]
    return pd.DataFrame(rows).sort_values(["sweep", "seed"], kind="stable").reset_index(drop=True)


def _row(path: Path) -> dict[str, Any]:
    theta, eps = path.theta[-1], float(path.batch.eps) or 0.1
    factors = FACTORS[: path.norms.shape[1]]
    params = path.params(-1)
    other = {name: a * p for a, (name, p) in zip(factors, params.items(), strict=True)}
    scaled = path.recipe.layout.flatten(other)
    path = replace(path, batch=path.batch._replace(eps=torch.tensor(eps, dtype=theta.dtype)))
    found: dict[str, Any] = {}
    for name, attack in ATTACKS.items():
        far = (path.attacked(theta, attack) - path.attacked(scaled, attack)).abs().amax(1) / eps
        found[f"moved_{name}"] = float(far.max())
    gamma, gamma_scaled = path.margins_at(torch.stack([theta, scaled]))
    found["scaled"] = float((gamma_scaled / math.prod(factors) / gamma - 1).abs().max())
    slopes = path.recipe.layout.unflatten(path.loss_and_grad[1][-1])
    weights = (-path.margins[-1]).softmax(0)  # e^{-gamma_i} / sum_j e^{-gamma_j}: both sides over L
    right = float((weights * path.margins[-1]).sum())
    found["lemma4"] = max(abs(-float((params[name] * slopes[name]).sum()) / right - 1) for name in params)
    squares = path.norms.square()
    gaps = squares.unsqueeze(2) - squares.unsqueeze(1)
    found["drift"] = float((gaps - gaps[0]).abs().max() / squares.max())
    return found


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """A mark a run, by the attack that it was trained with. Left: by how much perturbations change, in units of the
    radius, when layers are multiplied by 7.3, 0.011 and 1e5; 1e-17 stands for not at all. Middle: relative error of
    Lemma 4. Right: drift of the differences of the layers' squared norms, relative to the largest, which is 0 along the
    flow.
    """
    names = list(dict.fromkeys(table["sweep"]))
    at = np.array([names.index(name) for name in table["sweep"]])
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 2.5), layout="constrained")
        for k, name in enumerate(ATTACKS):
            height = table[f"moved_{name}"].clip(lower=1e-17)
            axes[0].plot(at + 0.12 * (k - 1.5), height, "o", color=COLOURS[k], ms=3, mfc="none", label=name)
        for ax, column in zip(axes[1:], ("lemma4", "drift"), strict=True):
            ax.plot(at, table[column].clip(lower=1e-17), "o", color=COLOURS[0], ms=3, mfc="none")
        for ax, label in zip(axes, ("change of x' / eps", "relative error of Lemma 4", "relative drift"), strict=True):
            ax.set(yscale="log", ylabel=label)
            ax.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=60)
        fig.legend(loc="outside lower center", ncols=len(ATTACKS), frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Lemma 3 and 4 hold to rounding, in float64; Lemma 11 along the flow."""
    text = "1e-9 less the largest change over the radius: "
    return [
        *(
            every(f"The perturbation of {name} does not depend on the layers' lengths", "Lemma 3",
                  1e-9 - table[f"moved_{name}"], 0.0, text)
            for name in ATTACKS
        ),
        every("so that adversarial margins are multiplied by the product of the factors", "Sec. 3.2",
              1e-9 - table["scaled"], 0.0, "1e-9 less the relative error: "),
        every("-<W_k, dL/dW_k> is the same for all layers: the mean of e^-gamma_i gamma_i", "Lemma 4, (17)",
              1e-10 - table["lemma4"], 0.0, "1e-10 less the relative error: "),
        every("Differences of squared norms of layers stay as they were", "Lemma 11", 0.02 - table["drift"], 0.0,
              "2 % less the drift, relative to the largest square: "),
    ]  # fmt: skip
