"""The memory that ended packs leave behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


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
