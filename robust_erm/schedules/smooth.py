"""eta_t = min(1, 1 / beta(r_t)), lyu2022's step for deep linear networks; r_t bounds the layers' norms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from robust_erm.core.devices import readable
from robust_erm.core.errors import require
from robust_erm.core.linalg import product
from robust_erm.core.norms import Norm, power
from robust_erm.core.params import Layout
from robust_erm.schedules.schedule import Layered, Memoryless, Point, State

_SLOPE, _CURVATURE = 1.0, 0.25  # sup |l'| and sup l'' of the logistic loss


@dataclass(frozen=True)
class Smooth(Layered, Memoryless):
    """The constant of smoothness of a deep linear network's worst-case loss, and the step that it allows.

    With ``||x_i||_2 <= B``, L layers, and ``W = W_L ... W_1``, on the set of all ``||W_k||_F <= r`` and
    ``||W||_2 >= q^L`` the loss is beta-smooth, with ``e = eps / B``, ``a = B sup |l'|`` and ``b = B^2 sup l''``:

        beta(r) = r^{3L} L^2 (a + b + e / q^L (2a + b + a / q^L)),    mu(r) = r^{L-1} (1 + e) a / beta(r).

    The step is ``min(1, 1 / beta(r_t))``, and no layer's norm grows by more than mu in it. So that all of them stay
    below r_t, ``r_{t+1} = r_t`` where all ``||W_k(t+1)||_F <= r_t - mu(r_t)``, else ``r_t + mu(r_t)``; r_0 is the
    largest norm at the start, or 1. The loss then falls in every step, slowly: eta falls like ``r^{-3L}``.

    lyu2022 have B = 1; a loss of ``B s`` instead of s is what other points are. Their ``a b / q^L`` is read as
    ``a / q^L``, which is what the curvature of ``eps ||W||`` gives. That ``||W||_2 >= q^L`` is assumed throughout, as
    it is there.

    Args:
        least: ``q / ||W(0)||_2^{1/L}``, in (0, 1]: how small the product is assumed to become.

    Reference:
        lyu2022 eqs. (11), (12) and Lemma 2.
    """

    run_axis = True
    least: float = 0.9

    def __post_init__(self) -> None:
        require(0 < self.least <= 1, "least", self.least, "must be above 0, and at most 1")

    def check_fits(self, run: Any) -> None:
        """Raise ConfigError unless the lemma speaks of this run."""
        optimizer, objective, attack = run.optimizer, run.objective, run.attack
        moves = getattr(run.model, "init_scale", 1.0) > 0  # at W = 0 the loss has no slope that the lemma knows
        product = hasattr(run.model, "weight") and hasattr(run.model, "stack") and run.outputs == 1 and moves
        gd = getattr(optimizer, "r", None) == 2 and optimizer.scales_with_loss
        mean = (objective.loss, objective.reduction) == ("logistic", "mean")
        needs = {
            "two classes and model=deep_linear": product,
            "optimizer=gd, not normalized": gd,
            "objective=logistic, a mean": mean,
            "all points in each step, batch.size=null": run.batch.size is None,
            "attack=exact at p=2 (eps=0 for standard training)": attack.closed_form and attack.p == 2,
        }
        for what, fits in needs.items():
            require(fits, "", "smooth", f"is the step of lyu2022's Lemma 2, which needs {what}")

    def init(self, theta: Tensor) -> State:
        """Nothing known yet: r, q^L, and log eta."""
        return {name: torch.zeros_like(theta[..., 0]) for name in ("radius", "product", "log_eta")}

    def accept_layers(
        self, point: Point, layout: Layout, eps: Tensor, length: Tensor, state: State
    ) -> tuple[Point, State]:
        """The current point, and the r that holds its layers."""
        runs = point.theta.shape[:-1]
        matrices = [w.reshape(*runs, -1, w.shape[-1]) for w in layout.unflatten(point.theta).values()]
        depth, l2 = len(matrices), Norm(2.0)
        top = torch.stack([torch.linalg.matrix_norm(w) for w in matrices]).amax(0)
        first, least = state["radius"] == 0, state["product"]
        if _may_be(first):
            at_first = self.least**depth * l2.value(reduce(lambda below, w: product(w, below), matrices).flatten(-2))
            least = torch.where(first, at_first, least)
        radius = torch.where(first, top.clamp_min(1.0), state["radius"])
        constant = beta(radius, least, eps, length, depth)
        room = (length + eps) * _SLOPE * power(radius, depth - 1) / constant
        grows = ~(top <= radius - room)
        if _may_be(grows):
            radius = torch.where(grows, radius + room, radius)
            constant = beta(radius, least, eps, length, depth)
        return point, {"radius": radius, "product": least, "log_eta": -constant.log().clamp_min(0)}

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Log of the above."""
        return state["log_eta"]


def _may_be(some: Tensor) -> bool:
    """Whether one is true, for all that is known without waiting."""
    return some.ndim == 0 or not readable(some) or any(some.tolist())


def beta(radius: Tensor, least: Tensor, eps: Tensor, length: Tensor, depth: int) -> Tensor:
    """Beta of :class:`Smooth`, () or (R,): r, the least ``||W||_2`` = q^L, the radius eps, B, each alike, and L."""
    a, b, e = length * _SLOPE, length**2 * _CURVATURE, eps / length
    return power(radius, 3 * depth) * depth**2 * (a + b + e / least * (2 * a + b + a / least))
