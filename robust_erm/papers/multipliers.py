"""What each training point adds to a network with one hidden layer of ReLUs, at a point near a KKT point."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from robust_erm.core.params import Params
from robust_erm.data.dataset import Array
from robust_erm.oracles.kkt import at_kinks, kkt
from robust_erm.store.config import Run


def sides(run: Run, params: Params, x: Tensor, y: Tensor, lam: Array | None = None) -> tuple[Array, Array]:
    """``S_i = lam_i sum_{j: sgn v_j = y_i} v_j^2 sigma'_ij`` (n,), and C_i, the same over the other units.

    With margins scaled to a least one of 1. Multipliers and slopes are those of the residual that says whether this is
    a KKT point (:func:`robust_erm.oracles.kkt.at_kinks`), free at the kinks of ``run.measure``'s ``kkt``.

    Args:
        run: whose model and measures count.
        params: float64, of positive margins.
        x: (n, d).
        y: (n,).
        lam: (n,), multipliers for slopes of 0 and 1, whatever the length of theta; None: they are found.

    Reference:
        vardi2022 App. D and frei2023 App. A, D, in our notation.
    """
    lam = kkt(run.model, params, x, y).lam if lam is None else lam
    scale = float((y * run.model.apply(params, x)).min()) ** -0.5
    params = {name: scale * value for name, value in params.items()}
    found = at_kinks(run.model, params, x, y, lam, run.measure["kkt"].kinks)
    v, labels = params["W2"].numpy()[0], y.numpy()
    same = np.sign(v) == labels[:, None]
    own, other = (found.lam * (found.slopes * side * v**2).sum(1) for side in (same, ~same))
    return own, other
