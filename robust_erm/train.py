"""Train one run, or with -m a sweep:

python -m robust_erm.train -m optimizer=gd,sd eps=0,0.2
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The configs: inside the package in a wheel, beside it in a checkout."""
    places = (_HERE / "conf", _HERE.parent / "conf")
    return next(place for place in places if (place / "train.yaml").is_file())


def _sweep_name(overrides: list[str]) -> str:
    """The folder of a sweep: its overrides, made readable, and a hash of them."""
    given = [o for o in overrides if not o.startswith(("output_dir=", "fresh=", "trainer", "logger", "returns="))]
    words = re.sub(r"[^\w.=,+-]+", "_", "_".join(given))[:80]
    return f"{words or 'defaults'}-{hashlib.sha256(' '.join(given).encode()).hexdigest()[:6]}"


def prepare() -> None:
    """Let Hydra find the launcher of a checkout that is not installed, and the resolvers of conf/."""
    from omegaconf import OmegaConf

    launch = _HERE.parent / "launch"
    if (launch / "hydra_plugins").is_dir() and str(launch) not in sys.path:
        sys.path.insert(0, str(launch))  # before the copy that an editable install has made
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
    OmegaConf.register_new_resolver("conf_dir", lambda: str(conf_dir()), replace=True)


def task(config: Any) -> float:
    """One run; the final metric that ``returns`` names."""
    from robust_erm.sweep import run_one  # heavy imports wait until there is something to train

    return float(run_one(config).get(config.returns, math.nan))


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The console command ``robust-erm-train``."""
    try:
        signal.signal(signal.SIGTERM, _interrupted)  # as Ctrl-C: leave checkpoints
        import hydra

        from robust_erm.refusals import refused

        prepare()
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that what Hydra refuses comes back here
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()
    except KeyboardInterrupt:
        print("robust_erm: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # the output of --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        line = refused(error, conf_dir())
        if line is None:
            raise
        print(f"robust_erm: {line}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
