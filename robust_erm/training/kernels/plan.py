"""Which recipes have a compiled step, and what that step needs to know of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.activations import Activation
from robust_erm.core.fields import unchanged
from robust_erm.core.stack import Stack
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.bounded_loss import BoundedLoss
from robust_erm.schedules.constant import Constant
from robust_erm.schedules.growing import Growing
from robust_erm.training.step import Recipe

# columns of Rows.num: radius, target, a and b of the schedule, best log loss, and log L as SHIFT + log(TOTAL)
EPS, TARGET, STEP_A, STEP_B, BEST, SHIFT, TOTAL = range(7)
MANY = 2**15  # parameters; below, whole products near a core are faster: 1.3 to 2.6 times at 64 inputs
# columns of Rows.info: the run's slot in stacked arrays, status (0 is running), step at which it ended
SLOT, STATUS, ENDED = range(3)
CONSTANT, BOUNDED_LOSS, GROWING = range(3)
_KINDS = {Constant: CONSTANT, BoundedLoss: BOUNDED_LOSS, Growing: GROWING}
_FIELDS = {CONSTANT: ("lr", None), BOUNDED_LOSS: ("eta_plus", None), GROWING: ("lr", "factor")}


@dataclass(frozen=True)
class Plan:
    """A recipe in the terms of the compiled loops.

    Args:
        depth: of the diagonal network; 0 for the linear model.
        r: the optimizer's norm: 1, 2, or 0 for inf.
        dual: the norm in ``eps ||w||``: 1 or 2.
        normalized: of the optimizer.
        schedule, kind: the schedule, and its kind as above.
        adversarial: whether eps counts.
        mean: reduction of the objective.
        sparse: coordinate descent on points that are mostly zeros.
    """

    depth: int
    r: int
    dual: int
    normalized: bool
    schedule: Any
    kind: int
    adversarial: bool
    mean: bool
    sparse: bool

    @property
    def every(self) -> int:
        """Steps between two growths of the step size."""
        return getattr(self.schedule, "every", 1)

    def step_numbers(self, numbers: dict[str, Tensor], eps: Tensor, bound: Tensor) -> Tensor:
        """The a and b of the schedule, (R, 2), float64."""

        def column(name: str | None) -> Tensor:
            value = None if name is None else numbers.get(f"schedule.{name}")
            return torch.full_like(eps, getattr(self.schedule, name or "", 1.0)) if value is None else value

        a, b = (column(name).log() for name in _FIELDS[self.kind])
        if self.kind == BOUNDED_LOSS:
            b = -2 * (bound + eps).log()
        return torch.stack([a, b], dim=-1).double()


@dataclass
class Rows:
    """R running runs, as the compiled loops take and leave them.

    Args:
        theta, best: (R, P).
        num, info: (R, 7) float64 and (R, 3) int64, columns as above.
        state: of the kernel.
        of_run: the data set of each run.
    """

    theta: Tensor
    best: Tensor
    num: Tensor
    info: Tensor
    state: dict[str, Tensor]
    of_run: list[int]

    @staticmethod
    def of(
        theta: Tensor,
        best: Tensor,
        scalars: tuple[Tensor, Tensor, Tensor, Tensor],
        state: dict[str, Tensor],
        of_run: list[int],
    ) -> Rows:
        """None has ended; ``scalars``: eps (R,), target (R,), those of the schedule (R, 2), best log loss (R,)."""
        num = torch.zeros(len(theta), 7, dtype=torch.float64)
        num[:, EPS], num[:, TARGET], num[:, STEP_A : STEP_B + 1], num[:, BEST] = scalars
        info = torch.zeros(len(theta), 3, dtype=torch.int64)
        info[:, ENDED] = -1
        return Rows(theta, best, num, info, state, of_run)


def plan(recipe: Recipe) -> Plan | None:
    """The plan of ``recipe``, or None where no compiled step knows it."""
    model, attack, optimizer = recipe.model, recipe.attack, recipe.optimizer
    if not unchanged(optimizer, Steepest) or optimizer.r not in (1, 2, math.inf):
        return None
    kind = _KINDS.get(type(optimizer.schedule))
    linear = unchanged(model, Linear, "init") and len(recipe.layout.shapes[0][1]) == 1
    depth = model.depth if unchanged(model, Diagonal, "init") else 0
    known = (linear or depth > 0) and unchanged(recipe.objective, Objective)
    threat = unchanged(attack, NoAttack) or (unchanged(attack, Exact) and attack.p in (2, math.inf))
    if kind is None or not known or not threat or recipe.objective.loss != "exponential":
        return None
    return Plan(
        depth=depth,
        r=0 if optimizer.r == math.inf else int(optimizer.r),
        dual=2 if attack.p == 2 else 1,
        normalized=optimizer.normalized,
        schedule=optimizer.schedule,
        kind=kind,
        adversarial=not isinstance(attack, NoAttack),
        mean=recipe.objective.reduction == "mean",
        sparse=recipe.sparse and optimizer.r == 1,
    )


def known_net(recipe: Recipe, attack: Any) -> bool:
    """Whether this is a one-hidden-layer ReLU net, trained whole, no biases, one logit, under l_inf PGD from x.

    And of so many parameters that what changes from step to step is less work than the products.
    """
    model = recipe.model
    net = (
        unchanged(model, MLP, "init")
        and unchanged(recipe.objective, Objective)
        and (model.layers, model.bias, model.activation, model.trained) == (2, "none", "relu", "all")
    )
    pgd = unchanged(attack, PGD) and attack.p == math.inf and not attack.random_start
    return net and pgd and recipe.layout.size >= MANY and recipe.layout.shapes[-1][1][0] == 1


def known_stack(stack: Stack, objective: Objective) -> bool:
    """Whether the loops for small nets know the layers and the loss.

    All weights must be parameters, and the sign of what the activation gives must tell where it has a kink. Not a
    single layer, between whose products there is nothing.
    """
    activation = stack.activation
    if not (unchanged(objective, Objective) and unchanged(stack, Stack) and unchanged(activation, Activation)):
        return False
    known = activation.kind in ("identity", "relu") or (activation.kind == "leaky" and activation.slope >= 0)
    return known and len(stack.layers) > 1 and all(weight is not None for weight, _ in stack.layers)
