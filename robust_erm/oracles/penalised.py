"""Robust empirical risk minimisation with the hinge loss and a penalty, exactly, under an l_inf threat."""

from __future__ import annotations

from dataclasses import dataclass

import clarabel
import numpy as np
import numpy.typing as npt
import torch

from robust_erm.core.errors import require
from robust_erm.core.norms import Norm
from robust_erm.oracles.cones import ConeProgram
from robust_erm.oracles.margin import norm

Array = npt.NDArray[np.float64]

_ACCEPTED = 1e-7


@dataclass(frozen=True)
class Penalised:
    """``min_w mean_i max(0, 1 - <z_i, w> + eps ||w||_1) + lam ||w||_r``.

    Args:
        w: (d,), which reaches ``value``; zero where no w is better.
        value: at most 1, that of w = 0.
        lower: no w is below; proved by multipliers.
    """

    w: Array
    value: float
    lower: float

    @property
    def gap(self) -> float:
        """``value - lower``, of a value that is 1 at w = 0."""
        return self.value - self.lower


def largest_penalty(z: Array, r: float, eps: float) -> float:
    """The least lam from which on w = 0 is optimal: ``|| soft(mean_i z_i, eps) ||_{r*}``, of signed points z (m, d)."""
    return norm(_soft(z.mean(0), eps), Norm(r).dual.p)


def last_direction(z: Array, r: float, eps: float) -> Array:
    """Where :func:`penalised` points as lam comes to :func:`largest_penalty` from below: ``||w||_r = 1``, (d,).

    The w of ``||w||_r <= 1`` with the largest ``mean_i <z_i, w> - eps ||w||_1``.
    """
    found: Array = Norm(r).steepest(torch.from_numpy(_soft(z.mean(0), eps))).numpy()
    return found


def penalised(z: Array, r: float, eps: float, lam: float) -> Penalised:
    """By a cone program (Clarabel), of which w and multipliers are evaluated in our own arithmetic.

    For weights ``0 <= a_i <= 1/m`` with ``|| soft(Z' a, eps sum a) ||_{r*} <= lam``, soft the shrinking of each entry,
    no w has a value below ``sum a``. Weights that exceed lam are scaled down.

    Args:
        z: (m, d), rows ``y_i x_i``.
        r: exponent of the penalty's norm, in [1, inf].
        eps: radius of the l_inf threat.
        lam: coefficient, positive.
    """
    require(lam > 0, "lam", lam, "must be positive")
    best = Penalised(np.zeros(z.shape[1]), 1.0, 0.0)
    for scale in (1.0, 1 / lam, 0.1 / lam):  # ||w||_r is at most 1 / lam
        w, a = _solved(scale * z, r, scale * eps, scale * lam)
        w = scale * w
        needed = norm(_soft(z.T @ a, eps * a.sum()), Norm(r).dual.p)
        lower = float(a.sum()) * (min(1.0, lam / needed) if needed > 0 else 1.0)
        value = float(np.maximum(0, 1 - z @ w + eps * norm(w, 1)).mean() + lam * norm(w, r))
        w, value = (w, value) if value < best.value else (best.w, best.value)
        best = Penalised(w, value, max(lower, best.lower))
        if best.gap < _ACCEPTED:
            break
    return best


def _solved(z: Array, r: float, eps: float, lam: float) -> tuple[Array, Array]:
    """(w, a), a in its bounds, not judged."""
    m, d = z.shape
    each, program = np.arange(m), ConeProgram()
    w, size, pushed = program.variables(d), program.variables(1), program.variables(1)
    loss, total = program.variables(m), program.variables(1)
    scores = [(each, loss, -1.0), (each[:, None], w[None], -z), (each, pushed, eps)]
    program.constrain(scores, -np.ones(m), [clarabel.NonnegativeConeT(m)])
    program.constrain([(each, loss, -1.0)], np.zeros(m), [clarabel.NonnegativeConeT(m)])
    program.norm_at_most(w, r, size)
    program.norm_at_most(w, 1.0, pushed)
    program.constrain([(0, loss, 1 / m), (0, size, lam), (0, total, -1.0)], [0.0], [clarabel.ZeroConeT(1)])
    x, multipliers = program.solve(total)
    return np.nan_to_num(x[w]), np.clip(np.nan_to_num(multipliers[:m]), 0.0, 1 / m)


def _soft(v: Array, by: float) -> Array:
    shrunk: Array = np.sign(v) * np.maximum(np.abs(v) - by, 0)
    return shrunk
