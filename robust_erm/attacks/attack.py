"""What every attack states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robust_erm.norms import Norm


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


def steepest_step(norm: Norm, gradient: Tensor, x: Tensor, length: Tensor, box: tuple[float, float] | None) -> Tensor:
    """X minus the step of ``||.||_p``-length ``length`` that lowers the margin most, to first order.

    In l_inf and l_2 the box is left to the clipping afterwards. In l_1 the steepest coordinate takes
    what the box leaves it, the next one the rest, and so on: the exact maximiser over ball and box
    (a fractional knapsack). Without a box one coordinate takes all.

    Args:
        norm: the threat's.
        gradient: of the margins, (n, d).
        x: where to step from, (n, d).
        length: ().
        box: bounds of every coordinate, or None.
    """
    if norm.p != 1 or box is None:
        return x - length * norm.steepest(gradient)
    size, order = gradient.abs().sort(dim=-1, descending=True)
    room = torch.where(gradient > 0, x - box[0], box[1] - x).clamp_min(0).gather(-1, order)
    room = torch.where(size > 0, room, torch.zeros_like(room))
    before = room.cumsum(-1) - room
    taken = torch.minimum(room, (length - before).clamp_min(0))
    return x - torch.zeros_like(x).scatter(-1, order, taken) * gradient.sign()


def into_box(x: Tensor, box: tuple[float, float] | None) -> Tensor:
    """Clip x to the box, where there is one.

    Clipping towards an interval that holds the clean point never leaves the l_p ball.
    """
    return x if box is None else x.clamp(*box)
