"""eta_t = alpha_t / L_t, alpha_t growing after a good step and backing off after a bad one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.errors import positive, require
from robust_erm.core.fields import beside, later, per_run
from robust_erm.core.norms import Norm
from robust_erm.schedules.schedule import Point, State, log


@dataclass(frozen=True)
class InverseLoss:
    """``eta_t = alpha_t / L_t``: the step alpha_t on log L, adapted in the manner of Lyu & Li 2020.

    A step that lowers the loss is kept and multiplies alpha by ``grow``; a step that raises it is
    undone and divides alpha by ``shrink``. An undone step counts as a step. With ``grow = 1`` and
    ``shrink = 1`` nothing is ever undone: a constant step on log L.

    Args:
        lr: alpha_0.
        grow, shrink: at least 1 (Lyu & Li 2020 App. L.1: 2^(1/5) and 2^(1/10), the latter repeated
            until the loss falls; here each undone step is one repetition).
        lowest: alpha is never made smaller than this: where the worst-case loss has a kink, no step
            may lower it, and training must go on.
        lowest_fall: where given, alpha may go below ``lowest``, to ``lowest_fall / ||grad log L||_2^2``: a step of
            gradient descent that long lowers log L by ``lowest_fall``, to first order. The stable alpha of a model of
            degree K is some ``||theta||^2 / (K margin)^2``, which for K >= 3 falls below any constant.
        change: where given, alpha is at most ``change ||theta||_2 / ||grad log L||_2``: a step of gradient descent
            changes theta by no more than that part of its length. From a small start the loss falls so fast along the
            first gradient that without it training leaps there, and never follows the flow.

    Reference:
        Lyu & Li 2020, "Gradient descent maximizes the margin of homogeneous neural networks".
    """

    run_axis = True

    lr: float = per_run(0.1)
    grow: float = 1.1486983549970351
    shrink: float = 2.0
    lowest: float = 1e-6
    lowest_fall: float | None = later(None)
    change: float | None = later(None)

    def __post_init__(self) -> None:
        positive("lr", self.lr)
        require(1 <= self.grow < math.inf, "grow", self.grow, "must be 1 or more, and finite")
        require(1 <= self.shrink < math.inf, "shrink", self.shrink, "must be 1 or more, and finite")
        require(0 < self.lowest <= self.lr, "lowest", self.lowest, "must be positive and at most lr")
        if self.lowest_fall is not None:
            positive("lowest_fall", self.lowest_fall)
        if self.change is not None:
            positive("change", self.change)

    @property
    def divides_by_loss(self) -> bool:
        """Always."""
        return True

    def init(self, theta: Tensor) -> State:
        """alpha_0, and nothing to go back to."""
        return {
            "log_alpha": log(self.lr, theta[0]).clone(),
            "theta": torch.zeros_like(theta),
            "grad": torch.zeros_like(theta),
            "log_loss": torch.full_like(theta[0], torch.inf),
        }

    def accept(self, point: Point, state: State) -> tuple[Point, State]:
        """Undo the last step where it raised the loss, unless alpha is at its lowest."""
        lowest = self._log_lowest(state)
        if self.shrink == 1:
            undo = torch.zeros_like(state["log_alpha"], dtype=torch.bool)
        else:
            undo = ~(point.log_loss <= state["log_loss"]) & (state["log_alpha"] > lowest)
        first = state["log_loss"] == torch.inf
        grown = state["log_alpha"] + log(self.grow, lowest)
        shrunk = torch.maximum(state["log_alpha"] - log(self.shrink, lowest), lowest)
        log_alpha = torch.where(undo, shrunk, torch.where(first, state["log_alpha"], grown))
        both = ((state[name], now) for name, now in point._asdict().items())
        kept = Point(*(torch.where(undo if now.ndim == undo.ndim else beside(undo), old, now) for old, now in both))
        if self.change is not None:
            length, slope = (Norm(2.0).value(v) for v in (kept.theta, kept.grad))
            most = log(self.change, lowest) + length.log() - slope.log()
            log_alpha = torch.where((length > 0) & (slope > 0), torch.minimum(log_alpha, most), log_alpha)
        return kept, {"log_alpha": log_alpha, **kept._asdict()}

    def _log_lowest(self, state: State) -> Tensor:
        """Log of the least alpha at the point from which the last step was taken."""
        lowest = log(self.lowest, state["log_alpha"])
        if self.lowest_fall is None:
            return lowest
        return torch.minimum(lowest, log(self.lowest_fall, lowest) - 2 * Norm(2.0).value(state["grad"]).log())

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Log alpha_t - log L_t."""
        return state["log_alpha"] - point.log_loss
