"""Which direction Adam goes to that sees one point a step: a fixed point of separators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from robust_erm.core.norms import Norm
from robust_erm.data.dataset import Array
from robust_erm.oracles.margin import max_margin

_ROUNDS = 500
_DAMPING = 0.3
_NEAR = 1e-8


@dataclass(frozen=True)
class FixedPoint:
    """The direction, and whether it is one.

    Args:
        w: (d,).
        moved: by how much the last round changed multipliers and attack; a fixed point where it is 0.
    """

    w: Array
    moved: float

    @property
    def found(self) -> bool:
        """Whether the rounds have come to rest."""
        return self.moved < _NEAR


def fixed_point(z: Array, p: float, eps: float) -> FixedPoint:
    """``w = argmax min_i <a_i, w> / ||w||_D``, where D is made from the multipliers lam of that very problem.

    With ``a_i = z_i - eps s``, s the gradient of ``||w||_{p*}``, and ``D_k = sqrt(sum_i lam_i^2 a_ik^2)``,
    ``||w||_D^2 = sum_k D_k w_k^2``. Late in training the gradient of point i is ``-r_i a_i``, r going to a multiple of
    lam. Where a step sees one point, Adam's second moment is the mean of their squares, for beta2 near 1: that of D.
    A step that sees all points has ``sum_i r_i a_i`` alone, and the root of its square is its size: sign descent.

    Clean this is the limit that Baek, Song & Yun describe; with an attack it is ours. Under an l_inf threat w may have
    entries at 0, where s is no one vector: then there may be no such point. Rounds of separator and multipliers,
    damped; that they come to rest is not proved, and ``found`` says whether they have.

    Args:
        z: (m, d), rows ``y_i x_i``, linearly separable by more than eps.
        p: exponent of the threat's norm.
        eps: radius.

    Reference:
        Baek, Song & Yun 2025 (arXiv 2510.26303); its text was not at hand, the formula is our derivation.
    """
    lam, threat = np.full(len(z), 1 / len(z)), Norm(p)
    s, w, moved = _attack(threat, z.mean(0)), np.zeros(z.shape[1]), np.inf
    for _ in range(_ROUNDS):
        a = z - eps * s
        root = (lam[:, None] ** 2 * a**2).sum(0) ** 0.25  # of D
        root = np.maximum(root, 1e-9 * root.max())
        found = max_margin(a / root, 2)
        w = found.w / root
        to = _attack(threat, w)
        moved = float(np.abs(found.lam - lam).sum() + (np.abs(to - s).max() if eps else 0.0))
        if moved < _NEAR:
            break
        lam, s = lam + _DAMPING * (found.lam - lam), s + _DAMPING * (to - s)
    return FixedPoint(w, moved)


def _attack(threat: Norm, w: Array) -> Array:
    """The direction of the worst perturbation, (d,)."""
    found: Array = threat.steepest(torch.from_numpy(w)).numpy()
    return found
