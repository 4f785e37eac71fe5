"""What every geometry states."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from robust_erm.core.params import Layout


class Geometry(Protocol):
    """A norm ``||theta||`` of all parameters; its dual is ``||g||_* = max_{||u|| <= 1} <u, g>``.

    Vectors are (P,), numbers without axes. ``run_axis = True`` means what it means in
    :class:`robust_erm.optimizers.optimizer.Optimizer`: also (R, P) and (R,).
    """

    @property
    def name(self) -> str:
        """What columns call it: a word, ``l2``, ``spectral``."""
        ...

    def value(self, theta: Tensor, layout: Layout) -> Tensor:
        """``||theta||``."""
        ...

    def dual_value(self, g: Tensor, layout: Layout) -> Tensor:
        """``||g||_*``."""
        ...

    def steepest(self, g: Tensor, layout: Layout) -> Tensor:
        """``argmax_{||u|| <= 1} <u, g>`` (P,); zero where g is zero."""
        ...

    def sharp(self, g: Tensor, layout: Layout) -> Tensor:
        """``||g||_* steepest(g)`` (P,), the gradient of ``||g||_*^2 / 2``: the step of descent not normalized."""
        ...
