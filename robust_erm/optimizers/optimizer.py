"""What every optimizer states."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from robust_erm.core.params import Layout

State = dict[str, Tensor]


class Optimizer(Protocol):
    """Turns the gradient of log L into an update, in the log domain.

    The step that it stands for is ``theta - eta * exp(log_scale) * direction``, with eta from the
    schedule. With ``grad L = L grad log L``, an update that is linear in the gradient has
    ``log_scale = log L``, one that does not depend on its length has ``log_scale = 0``.

    A class with ``run_axis = True`` has an ``update`` that also takes R runs at once, vectors (R, P) and numbers (R,),
    and so has its schedule; others are mapped. It says so of itself: what inherits from it is mapped until it does too.
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


class Stateless:
    """What an optimizer without a memory shares."""

    def init(self, theta: Tensor) -> State:
        """No state."""
        return {}


class Normalizable(Stateless):
    """What steepest descent in any norm shares: the factor of the dual norm, which ``normalized`` leaves out."""

    normalized: bool

    @property
    def scales_with_loss(self) -> bool:
        """Unless normalized."""
        return not self.normalized
