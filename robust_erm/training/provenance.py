"""What a result says of where it was computed."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from robust_erm.store.source import revision


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """Versions and the git revision of the code (null outside a checkout; ``+`` when changed)."""
    packages = ("robust-erm", "torch", "lightning", "numpy", "scipy")
    return {
        "git": revision(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "host_cores": os.cpu_count(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
