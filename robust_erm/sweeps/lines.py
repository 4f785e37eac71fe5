"""Lines of ``python -m robust_erm.train``, for the command and for others that need what it does."""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from robust_erm.core.errors import require
from robust_erm.store.source import conf_dir

# overrides that change no result
_ASIDE = ("output_dir=", "fresh=", "stale=", "trainer", "logger", "returns=", "report=")
FLAG = "--run"  # <folder>: of a stored run


def folder_asked(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The folder that ``--run`` names, or None, and the other arguments; raises ConfigError."""
    found, rest, words = [], [], iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == FLAG:
            found.append(value if equals else next(words, ""))
        else:
            rest.append(word)
    advice = "takes the folder of one run, as outputs/<run>"
    require(not found or (len(found) == 1 and found[0] != ""), FLAG, " ".join(found), advice)
    return found[0] if found else None, rest


def sweep_name(overrides: list[str]) -> str:
    """The folder of a sweep: its overrides, made readable, and a hash of them."""
    given = [o for o in overrides if not o.startswith(_ASIDE)]
    words = re.sub(r"[^\w.=,+-]+", "_", "_".join(given))[:80]
    return f"{words or 'defaults'}-{hashlib.sha256(' '.join(given).encode()).hexdigest()[:6]}"


def prepare() -> None:
    """Let Hydra find the launcher of a checkout that is not installed, our sweepers, and the resolvers of conf/."""
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf

    launch = conf_dir().parent / "launch"
    if (launch / "hydra_plugins").is_dir() and str(launch) not in sys.path:
        sys.path.insert(0, str(launch))  # before the copy that an editable install has made
    Plugins.instance()
    from hydra_plugins.robust_erm_packed.optuna import register

    register()
    OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
    OmegaConf.register_new_resolver("conf_dir", lambda: str(conf_dir()), replace=True)


def task(config: Any) -> float:
    """One run; the final metric that ``returns`` names."""
    from robust_erm.sweeps.run import run_one  # heavy imports wait until there is something to train

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
    GlobalHydra.instance().clear()  # whoever calls may have a use for it
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
