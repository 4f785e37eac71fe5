"""What every attack states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Victim:
    """One model on one batch, as an attack sees it.

    Args:
        margin: x (n, d) -> (n,), ``y f(x)``, or true minus best other logit. Attacks ascend minus
            this: it has the sign and direction of every loss used here, and does not underflow.
        x: clean inputs (n, d).
        y: labels (n,), in {-1, +1} or classes.
        domain: the interval that inputs live in ([0, 1] for images), or None.
        weight: the predictor (d,) or (C, d) of a model linear in its input, else None.
    """

    margin: Callable[[Tensor], Tensor]
    x: Tensor
    y: Tensor
    domain: tuple[float, float] | None
    weight: Tensor | None

    def margin_gradient(self, x: Tensor) -> Tensor:
        """Gradient (n, d) of every sample's own margin at x (n, d)."""
        gradient: Tensor = torch.func.grad(lambda z: self.margin(z).sum())(x)
        return gradient


class Attack(Protocol):
    """A threat (p) and a way to find a point of the l_p ball of radius eps with a small margin."""

    @property
    def p(self) -> float:
        """Exponent of the threat's norm."""
        ...

    @property
    def closed_form(self) -> bool:
        """Whether the answer is exact, for models linear in their input only."""
        ...

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """The random numbers (k, n, d), float64, that ``perturb`` takes as ``noise``; k may be 0."""
        ...

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d) with ``||x' - x||_p <= eps`` row by row (and in the domain, where boxed)."""
        ...


class Deterministic:
    """What an attack without random numbers shares."""

    @property
    def closed_form(self) -> bool:
        """No."""
        return False

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return torch.empty(0, n, d, dtype=torch.float64)


def into_box(x: Tensor, box: bool, domain: tuple[float, float] | None) -> Tensor:
    """Clip x to the domain where ``box`` asks for it and the data has one.

    Clipping towards an interval that holds the clean point never leaves the l_p ball.
    """
    return x.clamp(*domain) if box and domain is not None else x
