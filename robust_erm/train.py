"""Train one run, or with -m a sweep:

python -m robust_erm.train -m optimizer=gd,sd eps=0,0.2
"""

from __future__ import annotations

import hashlib
import logging
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


def _logging() -> None:
    from rich.logging import RichHandler

    from robust_erm.report import console

    log = logging.getLogger("robust_erm")
    if not log.handlers:
        handler = RichHandler(console=console, show_path=False, show_time=False, markup=False)
        handler.setLevel(logging.WARNING)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


_prepare()


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
def _main(config: DictConfig) -> Any:
    from robust_erm.report import report
    from robust_erm.run_folder import folder_of
    from robust_erm.sweep import check_all, train_all

    _logging()
    runs = check_all([config], [""])
    results = train_all(runs, 1)
    report(runs, results, folder_of(runs[0]))
    if isinstance(results[0], BaseException):
        raise SystemExit(1)
    return results[0]


def main() -> None:
    """The console command ``robust-erm-train``."""
    _logging_later = any(a in sys.argv for a in ("-m", "--multirun"))
    if _logging_later:
        _logging()
    _main()


if __name__ == "__main__":
    main()
