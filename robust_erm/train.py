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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The configs: inside the package in a wheel, beside it in a checkout."""
    places = (_HERE / "conf", _HERE.parent / "conf")
    return next(place for place in places if (place / "train.yaml").is_file())


def _sweep_name(overrides: list[str]) -> str:
    """The folder of a sweep: its overrides, made readable, and a hash of them."""
    given = [
        o for o in overrides if not o.startswith(("output_dir=", "fresh=", "trainer", "logger", "returns=", "report="))
    ]
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


def points(overrides: Sequence[str]) -> tuple[Any, Any, list[list[str]]]:
    """Hydra's config loader, a sweep's own config, and the overrides of each of its points."""
    from hydra import version
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    prepare()
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("robust_erm", create_config_search_path(str(conf_dir())))
    config = hydra.compose_config("train", list(overrides), RunMode.MULTIRUN, with_log_configuration=False)
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    given = parser.parse_overrides(list(config.hydra.overrides.task))
    (found,) = BasicSweeper.split_arguments(given, None)
    return hydra.config_loader, config, [list(point) for point in found]


def sweep(overrides: Sequence[str]) -> list[Any]:
    """What ``python -m robust_erm.train -m ...`` does; a JobReturn a point, its ``working_dir`` the run's folder.

    Points that failed are among them, with their status.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    loader, config, found = points(overrides)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    launcher = Plugins.instance().instantiate_launcher(context, task, config)
    return list(launcher.launch(found, 0))


def interrupted(*_: Any) -> None:
    """SIGTERM is as Ctrl-C: leave checkpoints."""
    raise KeyboardInterrupt


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """An interruption, and what Hydra refuses, in one line and an exit status."""
    try:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that what Hydra refuses comes back here
        yield
    except KeyboardInterrupt:
        print("robust_erm: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # the output of --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        from robust_erm.refusals import refused

        line = refused(error, conf_dir())
        if line is None:
            raise
        print(f"robust_erm: {line}", file=sys.stderr)
        raise SystemExit(2) from None


def main() -> None:
    """The console command ``robust-erm-train``."""
    with ended_cleanly():
        signal.signal(signal.SIGTERM, interrupted)
        import hydra

        prepare()
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()


if __name__ == "__main__":
    main()
