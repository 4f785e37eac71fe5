"""What may be asked of a tensor without waiting for its device; and a device's errors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

DEVICE, MEMORY = "device", "memory"


def readable(x: Tensor) -> bool:
    """Whether Python may branch on a number of ``x`` for nothing: it lies on a CPU, and no graph is being made of it.

    What branches so gives the same bits either way, and saves work on a CPU alone.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def fault_of(error: BaseException) -> str:
    """Whether an error is the device's: DEVICE, MEMORY where it had too little of that, "" for any other.

    After DEVICE every further call of this process may fail. What an error was raised from, or beside, counts too.
    """
    kinds = {_kind(one) for one in _chain(error)}
    return next((kind for kind in (DEVICE, MEMORY) if kind in kinds), "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str:
    text = str(error)
    if not isinstance(error, RuntimeError):
        return ""
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in text or "STATUS_ALLOC_FAILED" in text:
        return MEMORY
    accelerators: type[BaseException] | None = getattr(torch, "AcceleratorError", None)  # of torch since 2.8
    ours = accelerators is not None and isinstance(error, accelerators)
    return DEVICE if ours or "CUDA error" in text else ""
