"""Coordinate descent on sparse points: a step costs what the moved column touches, not n d."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from robust_erm.training.kernels import compiled as c
from robust_erm.training.kernels.plan import SHIFT, TOTAL, Plan, Rows

REFRESH = 1024  # steps between two full recomputations, against rounding; counted from step 0


def _parts(z: Tensor) -> tuple[Any, Any]:
    """Z (n, d) by rows and by columns: (start of each, index, value)."""
    rows = scipy.sparse.csr_array(z.double().numpy())
    by_rows, by_columns = (
        (a.indptr.astype(np.int64), a.indices.astype(np.int64), a.data) for a in (rows, rows.tocsc())
    )
    return by_rows, by_columns


class Sparse:
    """Runs of one recipe on the sets x (D, n, d), y (D, n); used as ``dense.Dense``."""

    def __init__(self, plan: Plan, x: Tensor, y: Tensor) -> None:
        self.plan = plan
        self.m, self.d = x.shape[-2:]
        self.sets = [_parts(z) for z in x * y.unsqueeze(-1)]

    def init(self, theta: Tensor, of_run: list[int]) -> dict[str, Tensor]:
        """State of runs at theta (R, P); always float64. A total of 0 has the first step compute it anew."""
        sizes = {"margins": self.m, "weights": self.m, "sums": self.d, "scale": 2}
        return {name: torch.zeros(len(theta), size, dtype=torch.float64) for name, size in sizes.items()}

    def run(self, given: Rows, t: int, n: int, last: bool) -> None:
        """See :meth:`robust_erm.training.kernels.dense.Dense.run`."""
        theta, best, state, of_run = given.theta, given.best, given.state, given.of_run
        num, plan, d = given.num, self.plan, self.d
        num[:, SHIFT : TOTAL + 1] = state["scale"]
        moving, kept = theta.contiguous().numpy(), best.contiguous().numpy()
        w = moving if plan.depth == 0 else np.zeros((len(of_run), d), dtype=moving.dtype)
        for row in range(len(of_run)):
            c.product_weight(moving[row], w[row], d, plan.depth)
        g, bits = np.empty(2 * d), np.empty(self.m, dtype=np.int64)
        rule = (d, plan.depth, plan.dual, plan.normalized, plan.kind, math.log(self.m) if plan.mean else 0.0)
        parts = [state[name].numpy() for name in ("margins", "weights", "sums")]
        for k, which in enumerate(of_run):
            one = slice(k, k + 1)
            mine = [array[one] for array in (moving, w, kept, *parts, given.info.numpy(), num.numpy())]
            arguments: list[Any] = [*self.sets[which], *mine, g, bits, *rule, plan.every, t, n, last, REFRESH]
            c.sparse_descent(*arguments)
        theta.copy_(torch.from_numpy(moving))
        best.copy_(torch.from_numpy(kept))
        state["scale"].copy_(num[:, SHIFT : TOTAL + 1])
