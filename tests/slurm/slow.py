"""An optimizer that takes its time without taking the machine's; workers import it by its name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from robust_erm.optimizers.steepest import Steepest


@dataclass(frozen=True)
class Slow(Steepest):
    """Sleeps for SLOW seconds (of the environment) before each step of a pack."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(float(os.environ.get("SLOW", "0")))
        return super().update(*args, **kwargs)
