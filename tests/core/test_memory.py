"""What becomes of memory that is freed."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from robust_erm.core.memory import keep_freed


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps what it likes")
def test_what_a_step_frees_is_there_for_the_next() -> None:
    """Blocks of a step of some nets: pages that came from the system once do not come again."""
    keep_freed()

    def step() -> None:
        blocks = [torch.ones(2**18) for _ in range(8)]  # 1 MiB each
        del blocks

    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2000  # of 40,960 pages
