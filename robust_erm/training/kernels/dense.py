"""Steepest descent on the closed-form worst case, with one matrix product for all runs of a data set.

A step is two matrix products for each data set, ``W Z'`` and ``E Z`` with Z = diag(y) X and E the
weights of the points, and two compiled loops over the runs. Coordinate descent moves one weight, so
its margins change by one column: it needs the first product only every :data:`REFRESH` steps,
against rounding.

A run's bits depend on that run alone: Z is padded with zeros to a multiple of 16 on both sides and
the rows of every data set to a multiple of 4. On the processors tried, a row of such a product does
not change with the number of rows; the tests hold it there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_erm.training.kernels import compiled as c
from robust_erm.training.kernels.plan import SLOT, Plan, Rows

REFRESH = 64  # steps between two full products of coordinate descent; counted from step 0

_ROWS, _COLUMNS = 4, 16


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


class Dense:
    """Runs of one recipe on the sets x (D, n, d), y (D, n), a block of rows for each set."""

    def __init__(self, plan: Plan, x: Tensor, y: Tensor) -> None:
        self.plan = plan
        sets, self.m, self.d = x.shape
        self.z = x.new_zeros(sets, _up(self.m, _COLUMNS), _up(self.d, _COLUMNS))
        self.z[:, : self.m, : self.d] = x * y.unsqueeze(-1)
        self.zt = self.z.mT.contiguous()
        self.incremental = plan.r == 1

    def init(self, theta: Tensor, of_run: list[int]) -> dict[str, Tensor]:
        """State of runs at theta (R, P), of these sets: the margins (R, m), for coordinate descent."""
        if not self.incremental:
            return {}
        w = theta.new_zeros(len(theta), self.z.shape[-1])
        w[:, : self.d] = theta[:, : self.d]  # of the linear model; the next lines do nothing to it
        for k in range(len(theta)):
            c.product_weight(theta[k].numpy(), w[k].numpy(), self.d, self.plan.depth)
        products = [self.zt[which].mT @ w[k] for k, which in enumerate(of_run)]
        return {"margins": torch.stack(products)[:, : self.m]}

    def run(self, given: Rows, t: int, n: int, last: bool) -> None:
        """Take n steps from step t, and where ``last`` judge what is reached then; all in place."""
        theta, best, state, of_run = given.theta, given.best, given.state, given.of_run
        plan, d, m, p = self.plan, self.d, self.m, theta.shape[-1]
        spans, slots = _blocks(of_run)
        rows = max(stop for _, _, stop in spans)
        w, grads = (theta.new_zeros(rows, self.z.shape[-1]) for _ in range(2))
        margins, weights = (theta.new_zeros(rows, self.z.shape[-2]) for _ in range(2))
        moving = w if plan.depth == 0 else theta.new_zeros(rows, p)
        kept = torch.zeros_like(moving)
        moving[slots, :p], kept[slots, :p], given.info[:, SLOT] = theta, best, slots
        if self.incremental:
            margins[slots, :m] = state["margins"]
        zt = self.zt.numpy() if self.incremental else np.empty((0, 0, 0), dtype=self.z.numpy().dtype)
        g, bits, block = np.empty(max(m, 2 * d)), np.empty(m, dtype=np.int64), np.array(of_run)
        w_, grads_, margins_, weights_ = w.numpy(), grads.numpy(), margins.numpy(), weights.numpy()
        theta_, best_, info_, num_ = moving.numpy(), kept.numpy(), given.info.numpy(), given.num.numpy()
        for slot in slots.tolist():
            c.product_weight(theta_[slot], w_[slot], d, plan.depth)
        loss = (info_, num_, m, d, plan.dual, g[:m], bits)
        rule = (d, plan.depth, plan.dual, plan.r, plan.normalized, plan.kind, math.log(m) if plan.mean else 0.0)
        for at in range(t, t + n + last):
            if not self.incremental or at % REFRESH == 0:
                for k, start, stop in spans:
                    torch.mm(w[start:stop], self.zt[k], out=margins[start:stop])
            c.weigh(margins_, weights_, w_, *loss)
            for k, start, stop in spans:
                torch.mm(weights[start:stop], self.z[k], out=grads[start:stop])
            arrays = (grads_, theta_, w_, best_, margins_, zt, block, info_, num_, g)
            if not c.update(*arrays, *rule, float(at // plan.every), at, at < t + n):
                break
        theta.copy_(moving[slots, :p])
        best.copy_(kept[slots, :p])
        if self.incremental:
            state["margins"].copy_(margins[slots, :m])


def _blocks(of_run: list[int]) -> tuple[list[tuple[int, int, int]], Tensor]:
    """(set, first row, end) of every set in use, and the row of every run."""
    spans, start, slots = [], 0, torch.empty(len(of_run), dtype=torch.int64)
    for k in sorted(set(of_run)):
        members = [i for i, which in enumerate(of_run) if which == k]
        slots[members] = torch.arange(start, start + len(members))
        spans.append((k, start, start + _up(len(members), _ROWS)))
        start = spans[-1][2]
    return spans, slots


def tiny_run(kernel: Any, dtype: torch.dtype) -> None:
    """One step of one run on two points: has everything compiled that ``kernel`` calls, for numbers of ``dtype``."""
    plan = Plan(0, 1, 1, False, None, 0, True, False, False)
    made = kernel(plan, torch.eye(2, dtype=dtype).unsqueeze(0), torch.ones(1, 2, dtype=dtype))
    theta, zero = torch.zeros(1, 2, dtype=dtype), torch.zeros(1)
    scalars = (zero, zero, torch.zeros(1, 2), zero)
    made.run(Rows.of(theta, theta.clone(), scalars, made.init(theta, [0]), [0]), 0, 1, True)
