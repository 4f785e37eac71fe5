"""A step as one CUDA graph: a host launches it at once, and not kernel by kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from robust_erm.training.stepper import Carry

Inputs = tuple[Tensor, ...]  # of a step: its noise; and of a mini-batch x and y
Step = Callable[..., Carry]  # of a carry and the inputs

_WARM = 3  # steps before the graph is made: handles and constants are made by the first ones


class Graph:
    """``step`` from ``now`` on, over buffers of its own; what else the step looks at must stay where it is.

    Inputs of the same shapes may follow.

    Raises:
        RuntimeError: something in the step cannot be part of a graph: it asks the device, or copies to it.
    """

    def __init__(self, step: Step, now: Carry, inputs: Inputs) -> None:
        self.step = step  # kept: what it looks at is read where it lies, whatever else lies there by then
        self.now: Carry = pytree.tree_map(torch.clone, now)
        self.inputs = tuple(_once(a).clone().expand_as(a) for a in inputs)
        self._replay = recorded(lambda: self.step(self.now, *self.inputs), self._keep, now.theta.device)

    def run(self, now: Carry, given: Iterable[Inputs]) -> Carry:
        """A step for each of the inputs."""
        self._keep(now)
        for inputs in given:
            for own, new in zip(self.inputs, inputs, strict=True):
                if new.numel():
                    _once(own).copy_(_once(new))
            self._replay()
        after: Carry = pytree.tree_map(torch.clone, self.now)
        return after

    def _keep(self, after: Carry) -> None:
        both = zip(pytree.tree_leaves(self.now), pytree.tree_leaves(after), strict=True)
        changed = [(own, new) for own, new in both if not own.is_set_to(new)]
        held = {a.untyped_storage().data_ptr() for a in pytree.tree_leaves(self.now)}
        # a schedule may keep theta itself, which is written before what it keeps
        apart = [new.clone() if new.untyped_storage().data_ptr() in held else new for _, new in changed]
        for (own, _), new in zip(changed, apart, strict=True):
            own.copy_(new)


def _once(a: Tensor) -> Tensor:
    """What runs that share it see: one row, whose copies are views."""
    return a[:1] if a.stride(0) == 0 else a


def recorded(work: Callable[[], Carry], keep: Callable[[Carry], None], device: torch.device) -> Callable[[], None]:
    """What runs ``keep(work())`` as a graph; it has been recorded, and not run.

    Raises:
        RuntimeError: it cannot be recorded; what is asked of the device from here on is as before.
    """
    side, before = _side(device), torch.cuda.current_stream(device)
    with torch.cuda.device(device):
        try:
            side.wait_stream(before)
            with torch.cuda.stream(side):
                for _ in range(_WARM):
                    work()
                _without_waiting(work)
            before.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*graph is empty")  # as where work is on another device
                with torch.cuda.graph(graph, stream=side):
                    keep(work())
        except UserWarning as nothing:
            raise RuntimeError(str(nothing)) from nothing
        finally:
            torch.cuda.set_stream(before)  # torch leaves its own where a recording fails
    return graph.replay


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """The one to record on: with every further one CUDA's libraries would set more memory aside, and keep it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _without_waiting(work: Callable[[], Carry]) -> None:
    """``work()``, which may wait for nothing: recorded, what does may leave CUDA's libraries unable to go on."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        try:
            torch.cuda.set_sync_debug_mode("error")
            work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
