"""What is found of data sets before anything is trained, on processes of their own: contracts, exact margins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from robust_erm.core.errors import ConfigError, in_one_line
from robust_erm.data.dataset import Data
from robust_erm.store.config import Run
from robust_erm.store.fits import attacks_of
from robust_erm.store.identity import target_of, word
from robust_erm.sweeps.workers import Pool
from robust_erm.training import contracts
from robust_erm.training.problem import MARGINS, exact_margin, unattacked


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
            _tried(*key)
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
                elif event.kind != "progress":
                    _tried(*event.job)  # once more, here
            tick(len(keys) - len(left) - len(pool.jobs), len(keys))
    finally:
        pool.close()


def _find_margin(key: tuple[Data, int, float], report: Any, stop: Any, number: int) -> float | str:
    torch.set_num_threads(1)
    _tried(*key)
    return MARGINS[key]


def _tried(data: Data, seed: int, p: float) -> None:
    """Find a margin; where it cannot be found, that is what is known of it."""
    with suppress(ArithmeticError):
        exact_margin(data, seed, p)


def described(runs: Sequence[Run], most: int = 3) -> list[str]:
    """What data sets say of a draw (``describe``), where they say anything: one draw and line each, ``most`` of them.

    ``clusters, seed 0: literal: Assumption 2.2 holds (...)``, and a line for each attack that leaves the ball, and one
    where nothing attacks. An empty line says nothing.

    Raises:
        ConfigError: ``describe`` of a user's own component does.
    """
    draws: dict[Data, int] = {}
    for run in runs:
        if hasattr(run.data, "describe"):
            draws.setdefault(run.data, run.seed)
    lines: list[str] = []
    todo = deque(draws.items())
    while todo and len(lines) < most:
        data, seed = todo.popleft()
        with in_one_line("data", target_of(data), "describe"):
            if said := data.describe(seed):  # type: ignore[attr-defined]
                lines.append(f"{type(data).__name__.lower()}, seed {seed}: {said}")
    left = len(todo)
    lines += [f"... and {left} more data set{'s' * (left > 1)}"] if left > 0 else []
    loose = {word(a) for run in runs for a in attacks_of(run).values() if not getattr(a, "keeps_ball", True)}
    says = "moves points out of the l_p ball: what stands after it is no robust accuracy"
    lines += [f"{name}: {says}" for name in sorted(loose)]
    measured = (
        "nothing attacks at eps above 0; robust numbers are under PGD (10 steps), or a formula where one is known"
    )
    return [*lines, *([measured] if any(map(unattacked, runs)) else [])]


def check_data(runs: Sequence[Run]) -> list[ConfigError]:
    """Hold the data sets that users bring against their contract, one draw of each; what they break.

    Of a sweep that is done on another process: whatever a draw does to it (memory, a crash) ends no more than its own
    runs later, and so does what it raises.
    """
    keys = list({run.data: (run.data, run.seed) for run in runs if not contracts.ours(run.data)}.values())
    if len(runs) == 1 or not keys:
        return [error for key in keys if (error := _broken(*key)) is not None]
    pool, faults = Pool(_checked, 1), []
    try:
        for key in keys:
            pool.give(0, key)
            while pool.jobs:
                faults += [e.value for e in pool.events(0.25) if e.kind == "done" and e.value is not None]
    finally:
        pool.close()
    return faults


def _checked(key: tuple[Data, int], *_: Any) -> ConfigError | None:
    error = _broken(*key)
    return None if error is None or error.__cause__ is not None else error


def _broken(data: Data, seed: int) -> ConfigError | None:
    try:
        contracts.check_data(data, seed)
    except ConfigError as error:
        return error
    return None
