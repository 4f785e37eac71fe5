"""An optimizer that takes its time without taking the machine's; workers import it by its name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from robust_erm.optimizers.steepest import Steepest


@dataclass(frozen=True)
class Slow(Steepest):
    """In a job, sleeps for SLOW seconds (of the environment) before each step of a pack."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        if "SLURM_JOB_ID" in os.environ:
            time.sleep(float(os.environ.get("SLOW", "0")))
        return super().update(*args, **kwargs)
