"""Cone programs with norms, put together in blocks and solved by Clarabel."""

from __future__ import annotations

import math
from typing import Any

import clarabel
import numpy as np
import numpy.typing as npt
from scipy import sparse

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class ConeProgram:
    """Least of some variables where ``b - A x`` is in a product of cones, built constraint by constraint."""

    def __init__(self) -> None:
        self.n = 0
        self._parts: list[tuple[Index, Index, Array]] = []
        self._right: list[Array] = []
        self._cones: list[Any] = []
        self._m = 0

    def variables(self, count: int) -> Index:
        """Indices of ``count`` new variables."""
        self.n += count
        return np.arange(self.n - count, self.n)

    def constrain(self, entries: list[tuple[Any, Any, Any]], right: Any, cones: list[Any]) -> None:
        """``right - A x`` in the cones; ``entries``: rows, columns and values of A, broadcast together."""
        for rows, columns, values in entries:
            i, j, v = np.broadcast_arrays(rows, columns, np.asarray(values, dtype=np.float64))
            self._parts.append((i.ravel() + self._m, j.ravel(), v.ravel()))
        self._right.append(np.asarray(right, dtype=np.float64))
        self._cones += cones
        self._m += len(self._right[-1])

    def combine(self, lam: Index, z: Array, *parts: Index, weights: Any = 1.0) -> None:
        """``Z' x[lam] = sum of x[part]``, lam >= 0, <weights, lam> = 1; the first d multipliers are of the equation."""
        m, d = z.shape
        each = np.arange(d)
        definition = [(each[:, None], lam[None], -z.T), *((each, part, 1.0) for part in parts)]
        self.constrain(definition, np.zeros(d), [clarabel.ZeroConeT(d)])
        self.constrain([(0, lam, weights)], [1.0], [clarabel.ZeroConeT(1)])
        self.constrain([(np.arange(m), lam, -1.0)], np.zeros(m), [clarabel.NonnegativeConeT(m)])

    def norm_at_most(self, u: Index, q: float, t: Any) -> None:
        """``||x[u]||_q <= x[t]``, q in [1, inf]."""
        d = len(u)
        each = np.arange(d)
        if q in (1, math.inf):
            above = self.variables(d) if q == 1 else t  # of every |u_j|
            for sign in (1.0, -1.0):
                self.constrain([(each, above, -1.0), (each, u, sign)], np.zeros(d), [clarabel.NonnegativeConeT(d)])
            if q == 1:
                self.constrain([(0, above, 1.0), (0, t, -1.0)], [0.0], [clarabel.NonnegativeConeT(1)])
        elif q == 2:
            self.constrain([(0, t, -1.0), (1 + each, u, -1.0)], np.zeros(d + 1), [clarabel.SecondOrderConeT(d + 1)])
        else:  # |u_j| <= r_j^(1/q) t^(1 - 1/q), sum r = t
            r = self.variables(d)
            self.constrain([(0, r, 1.0), (0, t, -1.0)], [0.0], [clarabel.ZeroConeT(1)])
            blocks = [(3 * each, r, -1.0), (3 * each + 1, t, -1.0), (3 * each + 2, u, -1.0)]
            self.constrain(blocks, np.zeros(3 * d), [clarabel.PowerConeT(1 / q)] * d)

    def solve(self, least: Index) -> tuple[Array, Array]:
        """X with the least sum of ``x[least]``, and the multipliers, in the order of the constraints; not judged."""
        cost = np.zeros(self.n)
        cost[least] = 1.0
        i, j, v = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        a = sparse.csc_matrix((v, (i, j)), shape=(self._m, self.n))
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
        quadratic = sparse.csc_matrix((self.n, self.n))
        solver = clarabel.DefaultSolver(quadratic, cost, a, np.concatenate(self._right), self._cones, settings)
        solution = solver.solve()
        return np.asarray(solution.x), np.asarray(solution.z)
