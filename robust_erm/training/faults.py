"""Errors of a device, and the memory that ended packs leave behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

DEVICE, MEMORY = "device", "memory"


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


@contextmanager
def set_aside() -> Iterator[None]:
    """Within, :func:`release` looks at what has been made since: a millisecond, where all of torch takes 200."""
    frozen = gc.get_freeze_count() > 0
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def release() -> None:
    """Give back what ended packs held: Lightning's trainers are cycles, which only the collector frees."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):  # of a device that has failed
            torch.cuda.empty_cache()
