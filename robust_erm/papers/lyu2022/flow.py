"""Trained networks along their path: parameters, losses, gradients and attacked points at every measurement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.attack import Attack
from robust_erm.core.margins import margin
from robust_erm.core.params import Params
from robust_erm.core.streams import torch_stream
from robust_erm.data.dataset import Array
from robust_erm.reports.tables import snapshots
from robust_erm.store.config import Run
from robust_erm.store.reading import run_of
from robust_erm.training.problem import build
from robust_erm.training.step import Batch, Recipe, loss_and_grad, outputs, perturbed


@dataclass(frozen=True)
class Path:
    """A run with ``snapshots=true``, float64, under the attack and at the radius of its training.

    Args:
        run: trained by full batches.
        recipe: of the run.
        batch: its training points, radius and numbers.
        steps: (S,) at which parameters were kept.
        theta: (S, P).
    """

    run: Run
    recipe: Recipe
    batch: Batch
    steps: Array
    theta: Tensor

    @property
    def n(self) -> int:
        """Training points."""
        return len(self.batch.y)

    def params(self, k: int) -> Params:
        """At the k-th of ``steps``."""
        return self.recipe.layout.unflatten(self.theta[k])

    @cached_property
    def loss_and_grad(self) -> tuple[Tensor, Tensor]:
        """Log L (S,) and ``grad log L`` (S, P) at fixed attacked points: what training descends."""
        noise = self._noise(self.run.attack)
        found: tuple[Tensor, Tensor] = vmap(lambda t: loss_and_grad(self.recipe, t, self.batch, noise))(self.theta)
        return found

    @cached_property
    def margins(self) -> Tensor:
        """Gamma_i (S, n), after the attack."""
        return self.margins_at(self.theta)

    def margins_at(self, theta: Tensor, attack: Attack | None = None) -> Tensor:
        """Gamma_i (S, n) at other parameters (S, P), attacked anew by the run's attack or another."""
        own = attack or self.run.attack
        noise = self._noise(own)

        def one(t: Tensor) -> Tensor:
            return margin(outputs(self.recipe, t, perturbed(self.recipe, own, t, self.batch, noise)), self.batch.y)

        found: Tensor = vmap(one)(theta)
        return found

    def attacked(self, theta: Tensor, attack: Attack | None = None) -> Tensor:
        """X' (n, d) at theta (P,), after the run's attack or another."""
        own = attack or self.run.attack
        return perturbed(self.recipe, own, theta, self.batch, self._noise(own))

    @cached_property
    def norms(self) -> Tensor:
        """``||W_k||_F`` (S, L)."""
        return self._norms_at(self.theta)

    @cached_property
    def rho(self) -> Tensor:
        """``prod_k ||W_k||_F`` (S,)."""
        return self.rho_at(self.theta)

    def rho_at(self, theta: Tensor) -> Tensor:
        """The same at other parameters (S, P)."""
        return self._norms_at(theta).prod(1)

    def _norms_at(self, theta: Tensor) -> Tensor:
        return torch.stack([p.flatten(1).norm(dim=1) for p in self.recipe.layout.unflatten(theta).values()], dim=1)

    @cached_property
    def log_time(self) -> Array:
        """Log of the sum of all step sizes up to each of ``steps`` (S,), where every step was kept; else nan.

        ``eta_t = ||theta_{t+1} - theta_t|| / ||grad L||``, for gradient descent.
        """
        if not (np.diff(self.steps) == 1).all():
            return np.full(len(self.steps), math.nan)
        log_loss, grad = self.loss_and_grad
        lengths = self.theta.diff(dim=0).norm(dim=1).log() - grad[:-1].norm(dim=1).log() - log_loss[:-1]
        return np.concatenate([[-math.inf], lengths.logcumsumexp(0).numpy()])

    @cached_property
    def smoothed(self) -> Tensor:
        """``-ln(n L) / rho`` (S,): between the least normalised margin and it less ``ln(n) / rho``."""
        return -(self.loss_and_grad[0] + math.log(self.n)) / self.rho

    @cached_property
    def onset(self) -> int:
        """The first place in ``steps`` with ``L < 1 / n``, where all margins are positive; S where there is none."""
        below = (self.loss_and_grad[0] < -math.log(self.n)).nonzero()
        return int(below[0]) if len(below) else len(self.steps)

    def _noise(self, attack: Attack) -> Tensor:
        n, d = self.batch.x.shape
        return attack.draw(n, d, torch_stream(self.run.seed, "eval")).to(self.batch.x)


@lru_cache(maxsize=256)
def path_of(folder: str) -> Path:
    """Of a run folder."""
    run = run_of(folder)
    pack, _, _ = build([run], torch.device("cpu"))
    steps, kept = snapshots(folder)
    theta = torch.stack([pack.recipe.layout.flatten({k: v.double() for k, v in params.items()}) for params in kept])
    x, y = (part[0].double() for part in pack.train.of(torch.tensor([0])))
    eps = pack.eps[0].double()
    batch = Batch(x, y, eps, eps, {name: value[0] for name, value in pack.numbers.items()})
    return Path(run, pack.recipe, batch, np.array(steps), theta)


def paths(runs: pd.DataFrame) -> Iterator[tuple[dict[str, Any], Path]]:
    """Each run once: its sweep without the name of the experiment, seed and folder; and its path."""
    for _, row in runs.drop_duplicates("folder").iterrows():
        setting = {"sweep": str(row["sweep"]).rpartition(".")[2], "seed": row["seed"], "folder": row["folder"]}
        yield setting, path_of(str(row["folder"]))
