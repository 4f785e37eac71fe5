"""A data set that goes wrong in a chosen way when it is drawn; workers import it by its name."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import torch

from robust_erm.core.fields import per_run
from robust_erm.data.dataset import Dataset
from robust_erm.data.gaussian import Gaussian


@dataclass(frozen=True)
class Faulty(Gaussian):
    """raise, kill (as the system does when memory runs out), memory, or none."""

    fault: str = per_run("none")

    def draw(self, seed: int) -> Dataset:
        drawn = super().draw(seed)
        if self.fault == "raise":
            raise ValueError("the teacher has left\nand taken the labels")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "memory":
            torch.empty(2**60)
        return drawn
