"""Which worker may take which pack: GPUs are for the first workers, and nothing stays on a device that fails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection

import torch

from robust_erm.sweeps import plan

log = logging.getLogger("robust_erm")

_BAD = 2  # device errors in a row after which a worker's device gets no more, where another one does


class Seats:
    """Of ``count`` workers, of which worker n has the n-th GPU.

    Args:
        count: how many.
        asked: how many the user asked for, if any.
    """

    def __init__(self, count: int, asked: int | None) -> None:
        self.count, self.asked = count, asked
        self.of: dict[torch.device, int] = {}  # how many workers may train there
        self.errors: Counter[int] = Counter()  # of a worker's device, in a row

    def may(self, number: int, device: torch.device, broke_on: int | None, idle: Collection[int]) -> bool:
        """Whether worker ``number`` may train a pack there.

        A pack that met an error of a device on worker ``broke_on`` goes to another one, if that is idle.
        """
        if device not in self.of:
            self.of[device] = plan.workers_for(self.count, self.asked, device)
        if number >= self.of[device]:
            return False
        if not self._bad(number) and number != broke_on:
            return True
        good = {n for n in range(self.of[device]) if n != number and not self._bad(n)}
        return not (good if self._bad(number) else good & {*idle})

    def ended(self, number: int, kind: str) -> None:
        """Learn how a pack of worker ``number`` ended: ``broken`` is an error of its device."""
        if kind != "broken":
            self.errors[number] = 0
            return
        self.errors[number] += 1
        if self.errors[number] == _BAD:
            what = "the device of worker %d has failed %d times in a row; while another one works, it gets no more"
            log.error(what, number, _BAD)

    def _bad(self, number: int) -> bool:
        return self.errors[number] >= _BAD
