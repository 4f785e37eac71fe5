"""Independent random streams of one run, all derived from its seed.

The streams have names (``teacher``, ``train``, ``test``, ``init``, ``attack``, ``eval``), so that
drawing more from one never moves another: the test set does not change with m.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def _sequence(seed: int, stream: str) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(stream.encode())])


def numpy_stream(seed: int, stream: str) -> np.random.Generator:
    """The NumPy generator of ``stream`` under ``seed``."""
    return np.random.default_rng(_sequence(seed, stream))


def torch_stream(seed: int, stream: str) -> torch.Generator:
    """The torch generator of ``stream`` under ``seed``; on the CPU, so that every device agrees."""
    state = int(_sequence(seed, stream).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)
