"""Adam's moments of several runs in one pass over them: what torch takes some forty calls and twelve passes for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robust_erm.accumulators.accumulator import State, most
from robust_erm.accumulators.moments import Moments as Reference
from robust_erm.core.fields import number
from robust_erm.core.params import Layout
from robust_erm.training.kernels import compiled_moments as c

_NAMES = ("m", "v", "unit", "count")


class Moments:
    """What :class:`robust_erm.accumulators.moments.Moments` gives, over the run axis.

    All arrays that the loop is given are contiguous: for others numba would compile anew, in this process.
    """

    @staticmethod
    def update(
        accumulator: Reference, grad: Tensor, log_loss: Tensor, state: State, layout: Layout
    ) -> tuple[Tensor, Tensor, State]:
        """Its ``update`` of grad (R, P) and log_loss (R,)."""
        given, after = grad.new_empty(grad.shape), {name: a.new_empty(a.shape) for name, a in state.items()}
        numbers = (number(beta, log_loss).expand_as(log_loss) for beta in (accumulator.beta1, accumulator.beta2))
        arrays = [a.contiguous().numpy() for a in (grad, log_loss, *numbers)]
        states = [tuple(some[name].contiguous().numpy() for name in _NAMES) for some in (state, after)]
        loop: Any = c.moments_into
        loop(*arrays, float(accumulator.epsilon), most(grad.dtype), *states, given.numpy())
        return given, torch.zeros_like(log_loss), after


def warm_up(dtype: torch.dtype) -> None:
    """Have everything compiled that :class:`Moments` calls, for numbers of ``dtype``."""
    grad, layout = torch.ones(2, 3, dtype=dtype), Layout((("theta", (3,)),))
    accumulator = Reference()
    state = {name: torch.stack([a, a]) for name, a in accumulator.init(grad[0], layout).items()}
    Moments.update(accumulator, grad, grad[:, 0].clone(), state, layout)
