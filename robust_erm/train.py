"""Train one run, or with -m a sweep:

python -m robust_erm.train -m optimizer=gd,sd eps=0,0.2
python -m robust_erm.train --run outputs/<run> eps=0.3       # a stored run again, changed
"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

from robust_erm.core.errors import ConfigError
from robust_erm.store.source import conf_dir, version
from robust_erm.sweeps.exits import callable_too, ended_cleanly, interrupted
from robust_erm.sweeps.lines import folder_asked, prepare, task
from robust_erm.training.agent import go_online


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


def _write_out(folder: str) -> None:
    """Put the overrides that give the run in ``folder`` on the line, before the user's own, and say so."""
    from robust_erm.reports.terminal import console, say
    from robust_erm.sweeps.overrides import as_typed
    from robust_erm.sweeps.stored import expanded

    flags, overrides = expanded(folder, sys.argv[1:])
    say(f"as: {as_typed(flags, overrides)}", console)
    sys.argv[1:] = [*flags, *overrides]


def main() -> None:
    """The console command ``robust-erm-train``."""
    with ended_cleanly():
        signal.signal(signal.SIGTERM, interrupted)
        if "--version" in sys.argv[1:]:  # else Hydra says its own
            print(version())
            return
        import hydra

        prepare()
        go_online()
        try:
            folder, sys.argv[1:] = folder_asked(sys.argv[1:])
            _require_known_flags()
            if folder is not None:
                _write_out(folder)
        except ConfigError as error:
            from robust_erm.reports.terminal import told

            raise SystemExit(told([str(error)], 2)) from None
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()


def _from_python(*arguments: Any, **keys: Any) -> Any:
    """``re.train(...)``: :func:`robust_erm.api.train`."""
    from robust_erm.api import train

    return train(*arguments, **keys)


callable_too(__name__, _from_python)


if __name__ == "__main__":
    main()
