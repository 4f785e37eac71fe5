"""What becomes of memory that is freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

KEPT = 2**26  # bytes at the top of the heap that glibc keeps for this process
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_MMAP_MAX = 2**25  # bytes from which a block is mapped, and given back, by itself


@cache
def keep_freed() -> None:
    """Have glibc keep what this process frees, up to ``KEPT``; with another C library, nothing.

    A step frees and asks for the same few MiB over and over. A page that went back to the system in between costs a
    fault: a thousand of them, a quarter of the time, in a step of 16 small nets.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_MAX)
