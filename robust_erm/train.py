"""Train one run, or with -m a sweep:

python -m robust_erm.train -m optimizer=gd,sd eps=0,0.2
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

_HERE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The configs: inside the package in a wheel, beside it in a checkout."""
    places = (_HERE / "conf", _HERE.parent / "conf")
    return next(place for place in places if (place / "train.yaml").is_file())


def _sweep_name(overrides: list[str]) -> str:
    """The folder of a sweep: its overrides, made readable, and a hash of them."""
    given = [o for o in overrides if not o.startswith(("output_dir=", "fresh=", "trainer", "logger"))]
    words = re.sub(r"[^\w.=,+-]+", "_", "_".join(given))[:80]
    return f"{words or 'defaults'}-{hashlib.sha256(' '.join(given).encode()).hexdigest()[:6]}"


def _prepare() -> None:
    launch = _HERE.parent / "launch"
    if (launch / "hydra_plugins").is_dir() and str(launch) not in sys.path:
        sys.path.append(str(launch))  # a checkout that is not installed
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
    OmegaConf.register_new_resolver("conf_dir", lambda: str(conf_dir()), replace=True)


_prepare()


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
def main(config: DictConfig) -> Any:
    """The console command ``robust-erm-train``. Heavy imports wait until there is something to train."""
    from robust_erm.sweep import run_one

    return run_one(config)


if __name__ == "__main__":
    main()
