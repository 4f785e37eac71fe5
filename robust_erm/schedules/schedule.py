"""What every schedule states."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from robust_erm.core.params import Layout

State = dict[str, Tensor]


class Point(NamedTuple):
    """Where training stands before a step: parameters (P,), log loss (), and its gradient (P,)."""

    theta: Tensor
    log_loss: Tensor
    grad: Tensor


class Schedule(Protocol):
    """``log eta_t`` of the step ``theta - eta_t * update``, eta_t a step size on L.

    ``run_axis = True`` means what it means in :class:`robust_erm.optimizers.optimizer.Optimizer`.
    """

    @property
    def divides_by_loss(self) -> bool:
        """Whether eta grows like 1 / L: such a step suits only updates that shrink like L."""
        ...

    def init(self, theta: Tensor) -> State:
        """The state before the first step."""
        ...

    def accept(self, point: Point, state: State) -> tuple[Point, State]:
        """The point to step from: the current one, or an earlier one to which it backs off."""
        ...

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Log eta_t (); t counts from 0, ``bound`` is the largest l_inf norm of a training point."""
        ...


class Along:
    """A schedule that looks at the update before it says how long the step is: it has this instead of ``log_step``."""

    def log_step(self, t: Tensor, point: Point, eps: Tensor, bound: Tensor, state: State) -> Tensor:
        """Along the gradient itself."""
        return self.log_step_along(t, point, point.grad, point.log_loss, eps, bound, state)

    def log_step_along(
        self, t: Tensor, point: Point, direction: Tensor, log_scale: Tensor, eps: Tensor, bound: Tensor, state: State
    ) -> Tensor:
        """Log eta_t () for the update ``exp(log_scale) direction``, direction (P,)."""
        raise NotImplementedError


class Layered:
    """A schedule that looks at the layers of theta and at the threat: it has this instead of ``accept``."""

    def accept(self, point: Point, state: State) -> tuple[Point, State]:
        """With all of theta as one layer, points of length 1, and no attack."""
        layout, one = Layout((("theta", tuple(point.theta.shape[-1:])),)), torch.ones_like(point.log_loss)
        return self.accept_layers(point, layout, torch.zeros_like(one), one, state)

    def accept_layers(
        self, point: Point, layout: Layout, eps: Tensor, length: Tensor, state: State
    ) -> tuple[Point, State]:
        """The point to step from, and the next state; eps () is the radius, ``length`` () the largest ``||x_i||_2``.

        Of R runs where ``run_axis`` says so, theta (R, P) and eps and ``length`` (R,).
        """
        raise NotImplementedError


class Memoryless:
    """The two methods of a schedule that keeps no state."""

    @property
    def divides_by_loss(self) -> bool:
        """No."""
        return False

    def init(self, theta: Tensor) -> State:
        """No state."""
        return {}

    def accept(self, point: Point, state: State) -> tuple[Point, State]:
        """Always the current point."""
        return point, state


def log(value: float | Tensor, like: Tensor) -> Tensor:
    """log(value) as a tensor of the type of ``like``; value is a number, or a tensor, () or (R,)."""
    if isinstance(value, Tensor):
        return value.to(like).log()
    return _log(float(value), like.dtype, like.device)


@lru_cache(maxsize=256)
def _log(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """By torch, as of tensors, so that a number has the same log whether or not it differs within a pack."""
    return torch.tensor(value, dtype=dtype, device=device).log()
