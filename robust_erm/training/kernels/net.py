"""Worst-case loss and gradient of one-hidden-layer ReLU nets under l_inf PGD, in few matrix products.

PGD with sign steps changes little from one iteration to the next: most coordinates take the step
that they took before, and most hidden units stay on or off. So ``W x'`` follows the *difference of
two steps* and ``W' (v * 1[W x' > 0])`` the units that have switched, by sparse updates where few
have, by a matrix product where many have. Of the 22 products of a step with 10 iterations some 5 to
9 remain. Runs are computed one after another: none sees its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust_erm.attacks.pgd import PGD
from robust_erm.training.kernels import compiled_net as c
from robust_erm.training.step import Batch, Recipe

_DENSE = 0.2  # share of the coordinates from which a matrix product is faster than a sparse update


class Net:
    """:func:`robust_erm.training.step.loss_and_grad` and ``attacked_outputs`` of several runs of ``recipe``."""

    def __init__(self, recipe: Recipe, attack: PGD) -> None:
        self.recipe, self.attack = recipe, attack
        self.width, self.d = recipe.layout.shapes[0][1]

    def loss_and_grad(self, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log losses (R,) and gradients (R, P) of theta (R, P)."""
        log_loss, grad = torch.empty_like(theta[:, 0]), torch.empty_like(theta)
        for r in range(len(theta)):
            log_loss[r], grad[r] = self._one(theta[r], batch.x[r], batch.y[r], float(batch.eps[r]))
        return log_loss, grad

    def outputs(self, theta: Tensor, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        """Outputs (R, n) at x (R, n, d) after the attack, theta (R, P)."""
        found = []
        for r in range(len(theta)):
            w, v = self._weights(theta[r])
            _, hidden = self._attacked(w, v, x[r], y[r], float(eps[r]))
            found.append(hidden.clamp_min(0) @ v)
        return torch.stack(found)

    def _weights(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        size = self.width * self.d
        return theta[:size].view(self.width, self.d), theta[size:]

    def _one(self, theta: Tensor, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        w, v = self._weights(theta)
        x_adv, hidden = self._attacked(w, v, x, y, eps)
        on = hidden > 0
        active = hidden.clamp_min(0)
        log_loss, share = self.recipe.objective.shares(-y * (active @ v))
        slope = -y * share  # d log L / d f
        grad_w = ((slope.unsqueeze(-1) * on) * v).mT @ x_adv
        return log_loss, torch.cat([grad_w.reshape(-1), slope @ active])

    def _attacked(self, w: Tensor, v: Tensor, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """X' (n, d) and its pre-activations (n, width)."""
        attack = self.attack
        low, high = (self.recipe.domain if attack.box else None) or (-float("inf"), float("inf"))
        if eps == 0:
            return x, x @ w.mT
        x_adv, hidden, wt = x.clone(), x @ w.mT, w.mT.contiguous()
        on = hidden > 0
        pull = (on * v) @ w  # gradient of f in x'
        last, change = torch.zeros_like(x), torch.zeros_like(x)
        moved = torch.zeros_like(hidden)
        arrays = [a.numpy() for a in (x_adv, pull, last, change, moved, hidden, on)]
        x_, pull_, last_, change_, moved_, hidden_, on_ = arrays
        given, labels, w_, wt_, v_ = (a.numpy() for a in (x.contiguous(), y.contiguous(), w, wt, v))
        # of moves, below which they are rounding of inputs near 1; far below any step
        tolerance = min(32 * torch.finfo(x.dtype).eps, 1e-3 * attack.relative_step * eps)
        for k in range(attack.steps):
            counts = c.pgd_step(
                x_, given, pull_, labels, last_, change_, attack.relative_step * eps, eps, low, high, tolerance
            )
            moves, turns = (count / x.numel() for count in counts)
            if min(moves, turns) > _DENSE:
                torch.mm(last, wt, out=moved)
            elif moves < turns:
                moved.zero_()
                c.add_rows(last_, wt_, moved_, tolerance)
            else:
                c.add_rows(change_, wt_, moved_, tolerance)
            hidden += moved
            if k == attack.steps - 1:
                break
            switched = c.count_switched(hidden_, on_) / hidden.numel()
            if switched > _DENSE:
                torch.gt(hidden, 0, out=on)
                torch.mm(on * v, w, out=pull)
            else:
                c.switch(hidden_, on_, v_, w_, pull_)
        return x_adv, hidden


def warm_up(dtype: torch.dtype) -> None:
    """Have everything compiled that :class:`Net` calls, for numbers of ``dtype``."""
    square = [torch.eye(2, dtype=dtype).numpy() for _ in range(6)]
    line, on = torch.ones(2, dtype=dtype).numpy(), torch.zeros(2, 2, dtype=torch.bool).numpy()
    c.pgd_step(square[0], square[1], square[2], line, square[3], square[4], 0.1, 0.1, 0.0, 1.0, 1e-9)
    c.add_rows(square[0], square[1], square[2], 1e-9)
    c.count_switched(square[0], on)
    c.switch(square[0], on, line, square[1], square[2])
