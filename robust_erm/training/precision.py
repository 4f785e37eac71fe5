"""What a device computes: float32 without TF32, the same bits each time; and a word where float64 is slow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch

log = logging.getLogger("robust_erm")

_FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}  # P100, V100, A100, H100, B200; others have 1/32 or 1/64


def strict() -> None:
    """Products and convolutions of float32 are those of float32, with the same bits each time, whatever others say."""
    torch.backends.cudnn.deterministic = True  # else the gradients of convolutions are added in any order
    torch.backends.cudnn.benchmark = False  # else how is decided by a race
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    for switch in _switches():  # which overrule those, where somebody has set them
        switch.fp32_precision = "ieee"


@contextmanager
def strictly() -> Iterator[None]:
    """The same for a while, in a process that is somebody else's."""
    products: str | None = None
    convolutions: bool | None = None
    deterministic, benchmark = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with suppress(RuntimeError):  # of torch, where one of the newer switches says otherwise
        convolutions = torch.backends.cudnn.allow_tf32
        products = torch.get_float32_matmul_precision()
    newer = [switch.fp32_precision for switch in _switches()]
    strict()
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for switch, value in zip(_switches(), newer, strict=True):
            switch.fp32_precision = value


def _switches() -> list[Any]:
    """Those of torch since 2.9, one for each kind of operation."""
    kinds = (torch.backends.cuda.matmul, *(getattr(torch.backends.cudnn, kind, None) for kind in ("conv", "rnn")))
    return [kind for kind in kinds if hasattr(kind, "fp32_precision")]


@cache
def warn_of_slow_float64(dtype: torch.dtype, device: torch.device) -> None:
    """Say, once a process, where float64 is trained on a CUDA device that computes 1/32 or 1/64 as much of it."""
    if dtype != torch.float64 or device.type != "cuda" or torch.version.hip is not None:
        return
    if torch.cuda.get_device_capability(device) not in _FAST_FLOAT64:
        name = torch.cuda.get_device_name(device)
        log.warning("%s computes float64 at 1/32 of the pace of float32 or less; dtype=float32 is faster there", name)
