"""Precision of a device's products: float32 without TF32, and a word where float64 is slow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

log = logging.getLogger("robust_erm")

_FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}  # P100, V100, A100, H100, B200; others have 1/32 or 1/64


def no_tf32() -> None:
    """Products and convolutions of float32 are those of float32, whatever the environment says."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


@contextmanager
def without_tf32() -> Iterator[None]:
    """The same for a while, in a process that is somebody else's."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    no_tf32()
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@cache
def warn_of_slow_float64(dtype: torch.dtype, device: torch.device) -> None:
    """Say, once a process, where float64 is trained on a CUDA device that computes 1/32 or 1/64 as much of it."""
    if dtype != torch.float64 or device.type != "cuda" or torch.version.hip is not None:
        return
    if torch.cuda.get_device_capability(device) not in _FAST_FLOAT64:
        name = torch.cuda.get_device_name(device)
        log.warning("%s computes float64 at 1/32 of the pace of float32 or less; dtype=float32 is faster there", name)
