"""What every attack states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from robust_erm.core.linalg import own_class
from robust_erm.core.margins import margin
from robust_erm.core.norms import Box, Norm


@dataclass(frozen=True)
class Victim:
    """One model on one batch, as an attack sees it.

    Args:
        outputs: x (n, d) -> f(x), (n,) for one logit, (n, C) for several.
        x: clean inputs (n, d).
        y: labels (n,), in {-1, +1} or classes.
        domain: the interval that inputs live in ([0, 1] for images), or None.
        weight: the predictor (d,) or (C, d) of a model linear in its input, else None.
    """

    outputs: Callable[[Tensor], Tensor]
    x: Tensor
    y: Tensor
    domain: tuple[float, float] | None
    weight: Tensor | None

    def margin(self, x: Tensor) -> Tensor:
        """``y f(x)``, or true minus best other logit: x (n, d) -> (n,).

        Attacks ascend minus this: it has the sign and direction of every loss used here, and does not underflow.
        """
        return margin(self.outputs(x), self.y)

    def margin_gradient(self, x: Tensor) -> Tensor:
        """Gradient (n, d) of every sample's own margin at x (n, d)."""
        return self.gradient(lambda f: margin(f, self.y), x)[1]

    def gradient(self, of: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (n,) of a function of the outputs, sample by sample, at x (n, d), and their gradients (n, d) in x."""

        def total(z: Tensor) -> tuple[Tensor, Tensor]:
            values = of(self.outputs(z))
            return values.sum(), values

        found: tuple[Tensor, Tensor] = torch.func.grad(total, has_aux=True)(x)
        return found[1], found[0]

    def step(self, norm: Norm, gradient: Tensor, x: Tensor, length: Tensor, box: Box) -> Tensor:
        """:func:`steepest_step`."""
        return steepest_step(norm, gradient, x, length, box)

    def step_within(
        self, norm: Norm, gradient: Tensor, x: Tensor, length: Tensor, box: Box, radius: Tensor | None = None
    ) -> Tensor:
        """That, then onto the ball of ``radius`` around the clean inputs, where given, and into the box."""
        moved = self.step(norm, gradient, x, length, box)
        if radius is not None:
            moved = self.x + norm.project(moved - self.x, radius)
        return into_box(moved, box)

    def descend(
        self,
        norm: Norm,
        length: Tensor,
        box: Box,
        radius: Tensor | None = None,
        steps: int = 1,
        start: Tensor | None = None,
    ) -> Tensor:
        """That, ``steps`` times, along the gradient of every sample's own margin; from x, or from ``start`` (n, d)."""
        x = self.x if start is None else start
        for _ in range(steps):
            x = self.step_within(norm, self.margin_gradient(x), x, length, box, radius)
        return x


class Attack(Protocol):
    """A threat (p) and a way to find a point of the l_p ball of radius eps with a small margin."""

    @property
    def p(self) -> float:
        """Exponent of the threat's norm."""
        ...

    @property
    def closed_form(self) -> bool:
        """Whether ``perturb`` is the exact worst case of the whole l_p ball, for models linear in their input only.

        With one logit, its formula ``y <w, x> - eps ||w||_{p*}`` then stands for it, also in gradients.
        """
        ...

    def check_fits(self, outputs: int) -> None:
        """Raise :class:`ConfigError` where a model of so many logits cannot be attacked so."""
        ...

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """The random numbers (k, n, ...), float64, that ``perturb`` takes as ``noise``; k may be 0."""
        ...

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """X' (n, d) with ``||x' - x||_p <= eps`` row by row (and in the domain, where boxed)."""
        ...


class Iterative:
    """What most attacks share: they are searches, for any model."""

    samplewise: ClassVar[bool] = False  # whether ``perturb`` treats every sample by itself, and takes eps (n, 1) too
    keeps_ball: ClassVar[bool] = True  # False: what it leaves is called no robust accuracy, by a line before training

    @property
    def closed_form(self) -> bool:
        """No."""
        return False

    def check_fits(self, outputs: int) -> None:
        """Any model will do."""


class Deterministic(Iterative):
    """What an attack without random numbers shares."""

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return torch.empty(0, n, d, dtype=torch.float64)


def uniform_in_ball(p: float, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Uniform points (k, n, d) of the unit l_p ball, p = 1, 2 or inf, float64.

    Coordinates with density exp(-|t|^p), over the p-norm with one exponential variable added, are uniform in the
    l_p ball (Barthe et al. 2005).
    """
    if p == math.inf:
        return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    extra = torch.empty(shape[:2], dtype=torch.float64).exponential_(generator=generator).unsqueeze(-1)
    if p == 2:
        z = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(2)
        return z / (z.square().sum(-1, keepdim=True) + extra).sqrt()
    z = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)
    sign = 2 * torch.randint(0, 2, shape, generator=generator, dtype=torch.float64) - 1
    return sign * z / (z.sum(-1, keepdim=True) + extra)


def steepest_step(norm: Norm, gradient: Tensor, x: Tensor, length: Tensor, box: Box) -> Tensor:
    """X minus the step of ``||.||_p``-length ``length`` that lowers the margin most, to first order.

    In l_inf a coordinate whose slope is rounding beside the steepest one's (:func:`without_rounding`) stays. In l_inf
    and l_2 the box is left to the clipping afterwards. In l_1 the steepest coordinate takes
    what the box leaves it, the next one the rest, and so on: the exact maximiser over ball and box
    (a fractional knapsack). Without a box one coordinate takes all.

    Args:
        norm: the threat's.
        gradient: of the margins, (n, d).
        x: where to step from, (n, d).
        length: (), or (n, 1).
        box: bounds of every coordinate, or None.
    """
    if norm.p == math.inf:
        return x - length * (gradient.sign() * _beyond_rounding(gradient))
    if norm.p != 1 or box is None:
        return x - length * norm.steepest(gradient)
    size, order = gradient.abs().sort(dim=-1, descending=True)
    room = torch.where(gradient > 0, x - box[0], box[1] - x).clamp_min(0).gather(-1, order)
    room = torch.where(size > 0, room, torch.zeros_like(room))
    before = room.cumsum(-1) - room
    taken = torch.minimum(room, (length - before).clamp_min(0))
    return x - torch.zeros_like(x).scatter(-1, order, taken) * gradient.sign()


def rounding(gradient: Tensor) -> float:
    """Of a row's largest entry, what is no slope: 64 roundings."""
    return 64 * torch.finfo(gradient.dtype).eps


def without_rounding(gradient: Tensor) -> Tensor:
    """0 for entries of ``gradient`` (..., d) within 64 roundings of the largest of their row.

    Where two classes' weights cancel, as they do on pixels of few values, a sign would be rounding's, and with it the
    gradient of the parameters at x'; what such a coordinate could add to the margin is rounding too.
    """
    return torch.where(_beyond_rounding(gradient), gradient, 0.0)


def _beyond_rounding(gradient: Tensor) -> Tensor:
    size = gradient.abs()
    return size > rounding(gradient) * size.amax(-1, keepdim=True)


def into_box(x: Tensor, box: Box) -> Tensor:
    """Clip x to the box, where there is one.

    Clipping towards an interval that holds the clean point never leaves the l_p ball.
    """
    return x if box is None else x.clamp(*box)


def weaker(victim: Victim, tries: Iterable[Tensor]) -> Tensor:
    """Of several x' (n, d), for each sample the one of the smallest margin."""
    best, least = None, None
    for x in tries:
        margin = victim.margin(x)
        if best is None or least is None:
            best, least = x, margin
            continue
        best = torch.where((margin < least).unsqueeze(-1), x, best)
        least = torch.minimum(margin, least)
    assert best is not None, "at least one try"
    return best


def rivals(outputs: Tensor, y: Tensor, k: int) -> list[Tensor | None]:
    """The k classes (n,) that come nearest to each sample's own, by their logits; [None] for one logit."""
    if outputs.ndim == 1:
        return [None]
    own = own_class(outputs.shape[-1], y)
    order = torch.where(own, torch.full_like(outputs, -math.inf), outputs).argsort(-1, descending=True)
    return [order[:, j] for j in range(min(k, outputs.shape[-1] - 1))]


def against(outputs: Tensor, y: Tensor, rival: Tensor | None) -> Tensor:
    """``z_y - z_rival`` (n,), or ``y f`` for one logit."""
    if rival is None:
        return y * outputs
    true = torch.where(own_class(outputs.shape[-1], y), outputs, torch.zeros_like(outputs)).sum(-1)
    return true - outputs.gather(-1, rival.unsqueeze(-1)).squeeze(-1)
