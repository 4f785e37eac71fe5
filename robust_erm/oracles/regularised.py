"""The regularised problem that robust ERM is equivalent to."""

from __future__ import annotations

import clarabel
import numpy as np
import numpy.typing as npt

from robust_erm.core.errors import require
from robust_erm.oracles.cones import ConeProgram

Array = npt.NDArray[np.float64]


def least_penalty(z: Array, r: float, q: float, lam: float) -> float:
    """The optimum of ``min ||w||_r + lam ||w||_q  s.t.  <z_i, w> >= 1``, by a cone program (Clarabel).

    An upper bound whatever the solver says: the value at its w, scaled to be feasible.

    Args:
        z: (m, d), rows ``y_i x_i``, linearly separable.
        r: exponent of the optimizer's norm.
        q: exponent of the dual of the threat's norm.
        lam: coefficient, 0 or more.

    Raises:
        ArithmeticError: the solver's w separates nothing.

    Reference:
        tsilivis2024 eq. (13).
    """
    require(lam >= 0, "lam", lam, "must be 0 or more")
    m, d = z.shape
    scale = float(np.abs(z).max())
    program = ConeProgram()
    w, t, s, total = program.variables(d), program.variables(1), program.variables(1), program.variables(1)
    program.constrain([(np.arange(m)[:, None], w[None], -z / scale)], -np.ones(m), [clarabel.NonnegativeConeT(m)])
    program.norm_at_most(w, r, t)
    program.norm_at_most(w, q, s)
    program.constrain([(0, t, 1.0), (0, s, lam), (0, total, -1.0)], [0.0], [clarabel.ZeroConeT(1)])
    x, _ = program.solve(total)
    found = x[w]
    least = float((z @ found).min())
    if not least > 0:
        raise ArithmeticError(
            f"regularised problem (r = {r:g}, q = {q:g}, lam = {lam:g}): the solver found no separator"
        )
    found = found / least
    return float(np.linalg.norm(found, r) + lam * np.linalg.norm(found, q))
