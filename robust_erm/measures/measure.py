"""What every measurement states, and what it may look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from robust_erm.core.params import Layout, Params

CLEAN, WORST, TRAIN = "clean", "worst", "train"


class Look(Protocol):
    """One run at one step. Everything is computed when it is asked for, once for all measurements.

    Shapes are those of one run. A measurement with ``run_axis = True`` gets all runs of a pack at once, and every
    tensor has a leading axis R.

    Attributes:
        step: () the step.
        epoch_steps: of an epoch of mini-batches; None for full batches.
        model, objective, optimizer, attack: components of the run.
        attacks: names of the attacks of the evaluation: ``train``, the training attack, then those of
            ``eval_attacks``.
        layout: of theta.
        theta: (P,).
        eps: () radius of the evaluation.
    """

    step: Tensor
    epoch_steps: int | None
    model: Any
    objective: Any
    optimizer: Any
    attack: Any
    attacks: tuple[str, ...]
    layout: Layout
    theta: Tensor
    eps: Tensor

    @property
    def params(self) -> Params:
        """Theta by name and shape."""
        ...

    @property
    def predictor(self) -> Tensor | None:
        """The weight (d,) or (C, d) of a model linear in its input."""
        ...

    @property
    def log_loss(self) -> Tensor:
        """Of the training set under the training attack at the training radius, ()."""
        ...

    @property
    def gradient(self) -> Tensor:
        """Its gradient (P,) in theta, at fixed attacked points; a subgradient at kinks."""
        ...

    def at(self, theta: Tensor) -> Look:
        """The same run at other parameters (P,), attacked anew."""
        ...

    def points(self, part: str = "train") -> tuple[Tensor, Tensor]:
        """X (n, d) and y (n,) of the training or test points."""
        ...

    def attacked(self, attack: str, part: str = "train") -> Tensor:
        """The points (n, d) after an attack; after ``clean`` as they are."""
        ...

    def margins(self, attack: str, part: str = "train") -> Tensor:
        """Margins (n,) after an attack; of ``clean`` points; at the ``worst`` of all of these, point by point."""
        ...

    def loss(self, attack: str) -> Tensor:
        """Log loss () of the training set after an attack, or of ``clean`` points."""
        ...

    def accuracy(self, attack: str, part: str = "train") -> Tensor | None:
        """Share () of positive margins; None where this part is known for the worst case and clean points only."""
        ...


class Measure(Protocol):
    """Named numbers of a run: a frozen dataclass with this one method.

    An attribute ``when`` says where: ``along`` training, at each measurement (the default); or at its ``end``, for
    what takes long. A method ``check_fits(run)`` may refuse, by :class:`robust_erm.core.errors.ConfigError` and before
    anything is trained, what it cannot be taken of. A method ``holds(n, parameters, outputs)`` says how many bytes it
    needs at once for n training points: more than 1 GiB are refused then too.

    ``python -m robust_erm.evaluate measure=...`` takes any of trained runs.
    """

    def measure(self, look: Look) -> Mapping[str, float | Tensor]:
        """The same names at every step; numbers may be nan."""
        ...
