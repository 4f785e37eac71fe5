"""What every optimizer states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from robust_erm.core.fields import unchanged
from robust_erm.core.params import Layout

State = dict[str, Tensor]
Accumulate = Callable[[Any, Tensor, Tensor, State, Layout], tuple[Tensor, Tensor, State]]


class Optimizer(Protocol):
    """Turns the gradient of log L into an update, in the log domain.

    The step that it stands for is ``theta - eta * exp(log_scale) * direction``, with eta from the
    schedule. With ``grad L = L grad log L``, an update that is linear in the gradient has
    ``log_scale = log L``, one that does not depend on its length has ``log_scale = 0``.

    Those of this package are :class:`Composed` of three factors: a geometry, an accumulator and a schedule.

    One with a method ``moved(theta, step)`` says where the step ``eta * exp(log_scale) * direction`` leads from theta,
    if not to theta - step; of R runs too.

    A class with ``run_axis = True`` has an ``update`` that also takes R runs at once, vectors (R, P) and numbers (R,).
    Unless it, its schedule and its other parts have, it is mapped. A class says so of itself, not of what inherits.
    """

    schedule: Any
    """A :class:`robust_erm.schedules.schedule.Schedule`; optimizers only carry it."""

    @property
    def scales_with_loss(self) -> bool:
        """Whether the update is proportional to the length of the gradient of L."""
        ...

    def init(self, theta: Tensor) -> State:
        """The state before the first step: tensors only, so that a checkpoint holds it."""
        ...

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """(direction (P,), log_scale (), next state) from grad = grad log L (P,)."""
        ...


class Composed:
    """Steepest descent of what an accumulator makes of the gradients: ``u = argmax_{||u|| <= 1} <u, a>``.

    The update is u where ``normalized``, else ``||a||_* u``.

    Attributes:
        geometry: the norm, a :class:`robust_erm.geometries.geometry.Geometry`.
        accumulator: gives a, a :class:`robust_erm.accumulators.accumulator.Accumulator`.
        normalized: leave out ``||a||_*``.
    """

    geometry: Any
    accumulator: Any
    normalized: bool

    @property
    def norm(self) -> Any:
        """The geometry whose margin is known to be maximised; that of the steps, but for Adam."""
        norm = self.accumulator.norm(self.geometry)
        return getattr(norm, "exact", norm)

    @property
    def scales_with_loss(self) -> bool:
        """Unless normalized, if what is accumulated does."""
        return not self.normalized and bool(self.accumulator.scales_with_loss)

    def init(self, theta: Tensor) -> State:
        """That of the accumulator, with all of theta as one layer; of more: :func:`first_state`."""
        return self.init_layers(theta, Layout((("theta", tuple(theta.shape)),)))

    def init_layers(self, theta: Tensor, layout: Layout) -> State:
        """That of the accumulator."""
        state: State = self.accumulator.init(theta, layout)
        return state

    def update(
        self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout, accumulate: Accumulate | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """See :class:`Optimizer`; ``accumulate`` does what the accumulator's own ``update`` does, of R runs, faster."""
        if accumulate is None:
            a, log_scale, state = self.accumulator.update(grad, log_loss, state, layout)
        else:
            a, log_scale, state = accumulate(self.accumulator, grad, log_loss, state, layout)
        if self.normalized:
            return self.geometry.steepest(a, layout), torch.zeros_like(log_loss), state
        return self.geometry.sharp(a, layout), log_scale, state


def first_state(optimizer: Optimizer, theta: Tensor, layout: Layout) -> State:
    """The state before the first step; of each layer where a composed optimizer has no ``init`` of its own."""
    if unchanged(optimizer, Composed, "norm", "scales_with_loss", "init_layers", "update"):
        return optimizer.init_layers(theta, layout)
    return optimizer.init(theta)
