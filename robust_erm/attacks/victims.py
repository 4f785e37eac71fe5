"""Fully connected models as attacks see them: outputs and slopes as batched matrix products, without autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robust_erm.attacks.attack import Victim
from robust_erm.core.linalg import own_class
from robust_erm.core.margins import squeeze_logit
from robust_erm.core.norms import Box
from robust_erm.core.params import Params
from robust_erm.core.stack import Stack, Trace


def victim_of(model: Any, params: Params, x: Tensor, y: Tensor, box: Box) -> Victim:
    """One model at ``params`` on x (n, d) and y (n,), inputs kept to ``box``; of a :class:`Stack` where it is one."""
    stack = getattr(model, "stack", None)
    if isinstance(stack, Stack):
        batched = {name: p.unsqueeze(0) for name, p in params.items()}
        return StackVictim(stack, lambda: batched, x[None], y[None], box)
    return Victim(lambda at: model.apply(params, at), x, y, box, None)


class StackVictim(Victim):
    """R models on n samples each, as one batch of R n: x (R, n, d), y (R, n), every parameter with a run axis.

    What only some attacks ask for is made when they do: ``params``, and the batch, of runs on one data set a copy.
    """

    def __init__(self, stack: Stack, params: Callable[[], Params], x: Tensor, y: Tensor, domain: Box) -> None:
        self.stack, self._params, self._domain = stack, params, domain
        self.of_runs, self.labels, self._y = x, y, y.flatten()
        self._x: Tensor | None = None  # no cached_property: torch.compile does not know its lock
        self._made: Params | None = None

    @property
    def domain(self) -> Box:
        """The interval that inputs are kept to, or None."""
        return self._domain

    @property
    def weight(self) -> None:
        """Models that are linear in their input are attacked otherwise."""

    @property
    def params(self) -> Params:
        """With a run axis."""
        if self._made is None:
            self._made = self._params()
        return self._made

    @property
    def x(self) -> Tensor:
        """Clean inputs (R n, d)."""
        if self._x is None:
            self._x = self.of_runs.flatten(0, 1)
        return self._x

    @property
    def y(self) -> Tensor:
        """Labels (R n,)."""
        return self._y

    def outputs(self, x: Tensor) -> Tensor:
        """At x (R n, d): (R n,) for one logit, (R n, C) for several."""
        return _flat(self._trace(x).outputs)

    def margin_gradient(self, x: Tensor) -> Tensor:
        """Of every sample's own margin, (R n, d)."""
        trace = self._trace(x)
        single = trace.outputs.shape[-1] == 1
        slope = self.labels.unsqueeze(-1) if single else self.margin_slopes(trace.outputs, self.labels)
        return self.stack.to_inputs(self.params, trace, slope).flatten(0, 1)

    def margin_slopes(self, f: Tensor, y: Tensor) -> Tensor:
        """Of the true minus the best other logit, in f (R, n, C); those that tie share."""
        own = own_class(f.shape[-1], y)
        others = torch.where(own, torch.full_like(f, -torch.inf), f)
        best = (others == others.amax(-1, keepdim=True)).to(f)
        return own.to(f) - best / best.sum(-1, keepdim=True)

    def gradient(self, of: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (R n,) of a function of the outputs, sample by sample, and their gradients (R n, d) in x."""
        trace = self._trace(x)
        with torch.enable_grad():  # of a few numbers a sample
            f = trace.outputs.detach().requires_grad_()
            values = of(_flat(f))
            (slope,) = torch.autograd.grad(values.sum(), f)
        return values.detach(), self.stack.to_inputs(self.params, trace, slope).flatten(0, 1)

    def _trace(self, x: Tensor) -> Trace:
        return self.stack.forward(self.params, x.reshape(self.of_runs.shape))


def _flat(f: Tensor) -> Tensor:
    """(R, n, C) as outputs of R n samples, (R n,) or (R n, C)."""
    return squeeze_logit(f.flatten(0, 1))
