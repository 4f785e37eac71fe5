"""Distance from a KKT point of the margin problem."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_erm.core.errors import one_of, require
from robust_erm.core.fields import later
from robust_erm.core.norms import Norm
from robust_erm.measures.measure import Look
from robust_erm.oracles.kkt import fully_connected, in_span, kkt, one_hidden, pooled
from robust_erm.oracles.linearised import margin_gap


@dataclass(frozen=True)
class KKTResidual:
    """Residuals of ``min ||theta||_2^2 / 2  s.t.  margins >= 1`` at the direction of theta, and in the optimizer's.

    ``kkt_stationarity``, ``kkt_complementarity``: of the best multipliers (:class:`robust_erm.oracles.kkt.KKT`). With
    ``kinks`` above 0 also ``kkt_stationarity_kinks``, where the slopes of ReLUs at their kinks are free in [0, 1], and
    ``kkt_kink_share``, of the pre-activations of the points within the slack. With ``span`` also ``kkt_off_span``, the
    share ``||W - P W|| / ||theta||`` of the first layer's weights off the span of the points, which no gradient ever
    moves from where it started, and ``kkt_stationarity_span``, the residual of what is left without it. With ``blocks``
    also ``kkt_stationarity_W1``, ...: of each parameter of the model alone, relative to its own length. With ``own``
    also ``kkt_gap_own``, what theta misses, to first order, of the margin over the optimizer's own norm: 0 at a KKT
    point in that norm (:func:`robust_erm.oracles.linearised.margin_gap`). With ``iterates`` above 1 also
    ``kkt_stationarity_pooled``, with the constraints of so many iterates together, each with its gradient at its own
    parameters and attacked points (:func:`robust_erm.oracles.kkt.pooled`): theta itself, and gradient descent on L from
    there, in steps of l_2 length ``stride ||theta||``. Attacked points jump across kinks of ReLUs while the direction
    of theta hardly moves; what the limit's cone holds is seen by several iterates only. All are nan where the least
    margin is not positive: nothing is feasible.

    Args:
        when: ``end``, or ``along`` training: a least-squares problem in all training points.
        attack: ``clean`` points, or the name of an attack whose points, held fixed, are the constraints.
        slack: multipliers for points with margins of at most (1 + slack) the least; null: for all.
        kinks: a pre-activation is at its kink up to this distance of hyperplane and point, relative to the point's
            length (with the 1 of a bias); 0: none is. One hidden layer of ReLUs only.
        span: the residual in the span of the points too. Fully connected nets only.
        blocks: the residual of each parameter too.
        own: the gap in the optimizer's own norm too, from the gradients of all points, one by one.
        iterates: whose constraints are pooled; 1: none but theta's.
        stride: of the steps between them, relative to the length of theta.
    """

    when: str = "end"
    attack: str = "clean"
    slack: float | None = None
    kinks: float = 0.0
    span: bool = later(False)
    blocks: bool = later(False)
    own: bool = later(False)
    iterates: int = later(1)
    stride: float = later(1e-3)

    def __post_init__(self) -> None:
        one_of("when", self.when, ("along", "end"))
        require(self.slack is None or self.slack >= 0, "slack", self.slack, "must be 0 or more, or null")
        require(0 <= self.kinks < 1, "kinks", self.kinks, "must be 0 or more, and below 1")
        require(1 <= self.iterates <= 10**6, "iterates", self.iterates, "must be 1 or more, at most 1e6")
        require(0 < self.stride < 1, "stride", self.stride, "must be above 0 and below 1: it is relative to ||theta||")

    def check_fits(self, run: Any) -> None:
        """Raise :class:`ConfigError` for models that have no such problem, or no known kinks."""
        name = type(run.model).__name__.lower()
        require(run.model.degree is not None, "model", name, "is not homogeneous: it has no KKT problem")
        says = "are known of nets with one hidden layer of ReLUs and one logit, both layers trained; use kinks=0"
        require(not self.kinks or (one_hidden(run.model) and run.outputs == 1), "kinks", self.kinks, says)
        says = "needs an optimizer that says its norm, as those made of a geometry do; this one does not"
        require(not self.own or getattr(run.optimizer, "norm", None) is not None, "own", "true", says)
        says = "the span of the points is known of nets by matrix products alone: fully connected, no power activation"
        require(not self.span or fully_connected(run.model), "span", self.span, says)

    def holds(self, n: int, parameters: int, outputs: int) -> float:
        """Bytes of the gradients that are held at once, float64."""
        of_own, of_pool = self.own * outputs, self.iterates * (self.iterates > 1)
        return 8.0 * n * parameters * max(of_own, of_pool)

    def measure(self, look: Look) -> dict[str, float | Tensor]:
        """As above."""
        names = ["kkt_stationarity", "kkt_complementarity"]
        names += ["kkt_stationarity_kinks", "kkt_kink_share"] if self.kinks else []
        names += ["kkt_off_span", "kkt_stationarity_span"] if self.span else []
        names += [f"kkt_stationarity_{name}" for name in look.params] if self.blocks else []
        names += ["kkt_gap_own"] if self.own else []
        names += ["kkt_stationarity_pooled"] if self.iterates > 1 else []
        if not float(look.margins(self.attack).min()) > 0:
            return dict.fromkeys(names, math.nan)
        x, y = look.attacked(self.attack), look.points()[1]
        found = kkt(look.model, look.params, x, y, self.slack, self.kinks)
        numbers = [found.stationarity, found.complementarity]
        numbers += [found.stationarity_kinks, found.kink_share] if self.kinks else []
        if self.span:
            inside, off = in_span(look.model, look.params, x)
            numbers += [off, kkt(look.model, inside, x, y, self.slack).stationarity]
        numbers += [found.blocks[name] for name in look.params] if self.blocks else []
        numbers += [margin_gap(look.model, look.params, x, y, look.optimizer.norm)] if self.own else []
        numbers += [self._pooled(look)] if self.iterates > 1 else []
        return dict(zip(names, numbers, strict=True))

    def _pooled(self, look: Look) -> float:
        at, found = look, [(look.params, look.attacked(self.attack))]
        for _ in range(1, self.iterates):
            down = at.gradient / Norm(2.0).value(at.gradient).clamp_min(torch.finfo(at.theta.dtype).tiny)
            at = at.at(at.theta - self.stride * Norm(2.0).value(at.theta) * down)
            found.append((at.params, at.attacked(self.attack)))
        return pooled(look.model, found[::-1], look.points()[1])
