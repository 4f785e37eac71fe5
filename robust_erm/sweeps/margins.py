"""The exact margins that a sweep's radii count in, found by several processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from robust_erm.data.dataset import Data
from robust_erm.store.config import Run
from robust_erm.sweeps.workers import Pool
from robust_erm.training.problem import MARGINS, exact_margin


def find_margins(runs: Sequence[Run], cores: int, tick: Callable[[int, int], None]) -> None:
    """Find eps* wherever ``runs`` count in it, so that ``exact_margin`` knows; on several processes.

    Args:
        runs: not yet trained.
        cores: how many processes.
        tick: told how many have been found, of how many.
    """
    counting = [run for run in runs if run.eps_unit == "margin"]
    keys = [key for key in {(run.data, run.seed, run.attack.p) for run in counting} if key not in MARGINS]
    keys.sort(key=lambda key: -getattr(key[0], "m", 0))  # the longest first
    if len(keys) < 4 or cores == 1:
        for key in keys:
            exact_margin(*key)
        return
    pool = Pool(_find_margin, cores)
    left = deque(keys)
    try:
        while left or pool.jobs:
            for number in pool.idle:
                if left:
                    pool.give(number, left.popleft())
            for event in pool.events(0.25):
                if event.kind == "done":
                    MARGINS[event.job] = event.value
                else:
                    exact_margin(*event.job)  # raises what it raised there, or succeeds here
            tick(len(keys) - len(left) - len(pool.jobs), len(keys))
    finally:
        pool.close()


def _find_margin(key: tuple[Data, int, float], report: Any, stop: Any, number: int) -> float:
    torch.set_num_threads(1)
    return exact_margin(*key)
