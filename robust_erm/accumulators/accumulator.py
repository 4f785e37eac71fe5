"""What every accumulator states."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from robust_erm.core.errors import require
from robust_erm.core.params import Layout

State = dict[str, Tensor]


class Accumulator(Protocol):
    """Turns the gradients of L so far into one vector ``exp(log_scale) a``, in the log domain.

    ``grad L = exp(log L) grad log L``. What is remembered is kept in a unit of its own, ``exp(unit)``, that follows
    log L (:func:`faded`): nothing under- or overflows. Where L falls by more in a step than the memory forgets, old
    gradients outweigh all later ones, and the direction stands still: the margin then stays below what it could be.

    ``run_axis = True`` means what it means in
    :class:`robust_erm.optimizers.optimizer.Optimizer`.
    """

    @property
    def name(self) -> str:
        """What folders and tables call it."""
        ...

    @property
    def scales_with_loss(self) -> bool:
        """Whether the vector is proportional to the length of the gradient of L now."""
        ...

    def norm(self, geometry: Any) -> Any:
        """The geometry whose margin descent in ``geometry`` is known to maximise: mostly that itself."""
        ...

    def init(self, theta: Tensor, layout: Layout) -> State:
        """The state before the first step: tensors only, so that a checkpoint holds it."""
        ...

    def update(self, grad: Tensor, log_loss: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, State]:
        """(a (P,), log_scale (), next state) from grad = grad log L (P,)."""
        ...


class InItsGeometry:
    """What linear accumulators share: directions of averaged gradients are those of gradients in the end."""

    def norm(self, geometry: Any) -> Any:
        """That of the steps."""
        return geometry


def faded(log_loss: Tensor, unit: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The next unit ``max(log L, unit + log_decay)``, and what turns the old unit and L into it.

    It follows log L down at most as fast as what decays by ``exp(log_decay)`` a step can forget. What forgets all at
    once has no such bound: there the old unit's factor is kept below the root of the largest number. All are ().
    """
    new = torch.maximum(log_loss, unit + log_decay)
    return new, (unit - new).clamp_max(most(log_loss.dtype)).exp(), (log_loss - new).exp()


def most(dtype: torch.dtype) -> float:
    """Log of what is below the root of the largest number of ``dtype``."""
    return math.log(torch.finfo(dtype).max) / 2 - 1


def decay(key: str, value: Any) -> None:
    """Raise ConfigError unless ``value`` is in [0, 1); a tensor, where runs differ, has been looked at before."""
    if not isinstance(value, Tensor):
        require(0 <= value < 1, key, value, "must be in [0, 1)")
