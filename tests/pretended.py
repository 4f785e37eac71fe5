"""A pretended accelerator: device "pretended", whose tensors hold CPU tensors, in pure Python.

It raises where tensors of host and device meet, and counts what costs time on a real one: launches of kernels, copies
to it, and reads back from it, for which a host waits. Numbers are the CPU's. Not pretended: streams, memory, rounding.

Import it before anything has been differentiated in the process, so: in a process of its own.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

T = TypeVar("T")

NAME = "pretended"
_setup_privateuseone_for_python_backend(NAME)

VIEWS = (
    "view _unsafe_view expand unsqueeze squeeze select slice transpose permute t alias detach as_strided unbind split "
    "split_with_sizes reshape _reshape_alias diagonal unfold empty empty_like new_empty empty_strided lift_fresh"
)
FREE = frozenset(re.findall(r"\w+", VIEWS))  # of these a device does nothing: no memory is written
MASKED = ("index", "index_put_", "_index_put_impl_")  # of a mask: the host must know how many are true


@dataclass
class Counts:
    """What has been asked of the device: names of kernels; places in the package that copied."""

    launches: Counter[str] = field(default_factory=Counter)
    to_device: Counter[str] = field(default_factory=Counter)
    to_host: Counter[str] = field(default_factory=Counter)

    def totals(self) -> tuple[int, int, int]:
        """Launches, copies to the device, and reads from it."""
        return self.launches.total(), self.to_device.total(), self.to_host.total()


COUNTS = Counts()


def counted(work: Callable[[], T]) -> tuple[T, Counts]:
    """What ``work`` gives, and what it asks of the device."""
    global COUNTS
    COUNTS = asked = Counts()
    found = work()
    COUNTS = Counts()
    return found, asked


def _place() -> str:
    for frame in reversed(traceback.extract_stack()):
        if "robust_erm/" in frame.filename:
            return f"{frame.filename.rpartition('robust_erm/')[2]}:{frame.lineno}"
    return "elsewhere"


class Pretended(torch.Tensor):
    """A tensor of the device; ``held`` is on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    held: torch.Tensor


_HELD: dict[int, torch.Tensor] = {}  # by storage: autograd keeps shallow copies, which are no Pretended


def _wrapped(held: torch.Tensor) -> torch.Tensor:
    made = torch._C._acc.create_empty_tensor(list(held.shape), held.dtype)
    made.__class__ = Pretended
    made.held = held
    _HELD[made.untyped_storage()._cdata] = held
    return made


def _held(x: torch.Tensor) -> torch.Tensor:
    if isinstance(x, Pretended):
        return x.held
    return _HELD[x.untyped_storage()._cdata].contiguous().reshape(x.shape)


def _here(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.device.type == NAME


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Every operation that is not named below: by the CPU, on what the tensors hold."""
    name = op._schema.name.split("::")[1]
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in op._schema.arguments)
    given: list[Pretended] = []

    def opened(x: Any) -> Any:
        if isinstance(x, torch.device):
            return torch.device("cpu")
        if not isinstance(x, torch.Tensor):
            return x
        if isinstance(x, Pretended):
            given.append(x)
            if writes or (x.held.is_contiguous() and not x.held.storage_offset()):
                return x.held
            return x.held.clone(memory_format=torch.contiguous_format)  # strides and offset are those of _wrapped
        if _here(x):
            return _held(x)
        if x.ndim:
            raise RuntimeError(f"a CPU tensor {tuple(x.shape)} meets the device in {name}, at {_place()}")
        return x

    args, kwargs = pytree.tree_map(opened, args), pytree.tree_map(opened, kwargs)
    _count(name, args)
    found = args[0].reshape(*args[1:]) if name == "view" else op(*args, **kwargs)

    def closed(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        for own in given:
            if own.held is x:
                if own.shape != x.shape:  # an ``out=`` that was resized
                    own.data = _wrapped(x)
                    own.held = x
                return own
        return _wrapped(x)

    return pytree.tree_map(closed, found)


def _count(name: str, args: Any) -> None:
    masked = name in MASKED and any(
        i.dtype in (torch.bool, torch.uint8) for i in args[1] if isinstance(i, torch.Tensor)
    )
    if name == "_local_scalar_dense" or name == "nonzero" or masked:
        COUNTS.to_host[f"{name} {_place()}"] += 1
    if name != "_local_scalar_dense" and name not in FREE:
        COUNTS.launches[name] += 1


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    if not source.numel():
        return target
    if not _here(target):
        COUNTS.to_host[f"copy {_place()}"] += 1
        target.copy_(_held(source))
    elif not _here(source):
        COUNTS.to_device[f"{tuple(source.shape)} {_place()}"] += 1
        _held(target).copy_(source)
    else:
        COUNTS.launches["copy_"] += 1
        _held(target).copy_(_held(source))
    return target


def _convolution(*args: Any) -> torch.Tensor:
    COUNTS.launches["convolution"] += 1
    return _wrapped(torch.ops.aten.convolution.default(*(_held(a) if _here(a) else a for a in args)))


def _convolution_backward(grad: Any, x: Any, weight: Any, *rest: Any) -> Any:
    COUNTS.launches["convolution_backward"] += 1
    *options, mask = rest
    opened = (_held(a) for a in (grad, x, weight))
    found = torch.ops.aten.convolution_backward.default(*opened, [weight.shape[0]], *options, mask)
    return tuple(None if a is None else _wrapped(a) for a in found)


def _empty(size: Any, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> torch.Tensor:
    return _wrapped(torch.empty(list(size), dtype=dtype))


_ALL, _ATEN = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_ALL.fallback(_run, "PrivateUse1")
for _name, _function in {
    "_copy_from": _copy_from,
    "convolution_overrideable": _convolution,
    "convolution_backward_overrideable": _convolution_backward,
    "empty_strided": _empty,
    "empty.memory_format": _empty,
}.items():
    _ATEN.impl(_name, _function, "PrivateUse1")
