"""What may be asked of a tensor without waiting for its device."""

from __future__ import annotations

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether Python may branch on a number of ``x`` for nothing: it lies on a CPU, and no graph is being made of it.

    What branches so gives the same bits either way, and saves work on a CPU alone.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
