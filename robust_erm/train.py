"""Train one run, or with -m a sweep:

python -m robust_erm.train -m optimizer=gd,sd eps=0,0.2
"""

from __future__ import annotations

import signal
import sys
from types import ModuleType
from typing import Any, NoReturn

from robust_erm.store.source import conf_dir, version
from robust_erm.sweeps.exits import ended_cleanly, interrupted
from robust_erm.sweeps.lines import prepare, task


def _require_known_flags() -> None:
    """Say in one line what Hydra's parser would say in seven."""
    from hydra._internal.utils import get_args_parser

    class Refused(Exception):
        pass

    def refuse(message: str) -> NoReturn:
        raise Refused(message)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    if {"-h", "--help"} & set(sys.argv[1:]):
        return
    try:
        parser.parse_args()
    except Refused as error:
        between = "unrecognized arguments" in str(error) and "=" in str(error)
        advice = "put -m and other flags before the overrides" if between else "--help shows what there is"
        from robust_erm.reports.terminal import told

        raise SystemExit(told([f"{error}; {advice}"], 2)) from None


def main() -> None:
    """The console command ``robust-erm-train``."""
    with ended_cleanly():
        signal.signal(signal.SIGTERM, interrupted)
        if "--version" in sys.argv[1:]:  # else Hydra says its own
            print(version())
            return
        import hydra

        prepare()
        _require_known_flags()
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()


class _Callable(ModuleType):
    """A command's module, which may also be called: ``re.train(...)`` is :func:`robust_erm.api.train`."""

    def __call__(self, *arguments: Any, **keys: Any) -> Any:
        from robust_erm.api import train

        return train(*arguments, **keys)


sys.modules[__name__].__class__ = _Callable


if __name__ == "__main__":
    main()
