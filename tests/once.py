"""Yaml files are read once in a process: Hydra reads them for every composition, a third of its time."""

from __future__ import annotations

import os
import pickle
from typing import Any

from omegaconf import OmegaConf


def read_yaml_once() -> None:
    """Let ``OmegaConf.load`` give copies of what it has read of an open file that has not changed since."""
    read, load = {}, OmegaConf.load

    def loaded(file: Any) -> Any:
        if not hasattr(file, "fileno"):
            return load(file)
        stat = os.fstat(file.fileno())
        key = stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
        if key not in read:
            read[key] = pickle.dumps(load(file))
        return pickle.loads(read[key])

    OmegaConf.load = staticmethod(loaded)  # type: ignore[method-assign,assignment]
