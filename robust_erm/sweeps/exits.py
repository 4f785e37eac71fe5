"""How commands end: an interruption or a refusal is one line and an exit status.

Nothing heavy is imported here, so that Ctrl-C is heard from the first moment.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from robust_erm.store.source import conf_dir, version


class Parser(argparse.ArgumentParser):
    """Arguments of a command: ``--version`` as everywhere, and what it refuses in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not options.get("prog", "").count(" "):  # not the parser of a verb
            self.add_argument("--version", action="version", version=version())

    def error(self, message: str) -> NoReturn:
        """Status 2."""
        from robust_erm.reports.terminal import told

        raise SystemExit(told([f"{message}; --help shows what there is"], 2))


def callable_too(name: str, function: Callable[..., Any]) -> None:
    """Let a command's module be called as well, as ``function``."""

    class Called(ModuleType):
        def __call__(self, *arguments: Any, **keys: Any) -> Any:
            return function(*arguments, **keys)

    sys.modules[name].__class__ = Called


def interrupted(*_: Any) -> None:
    """SIGTERM is as Ctrl-C: leave checkpoints."""
    raise KeyboardInterrupt


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """An interruption, and what Hydra refuses, in one line and an exit status.

    Modules of the working directory are found, by a console command as by ``python -m``.
    """
    if os.getcwd() not in (os.path.realpath(place or ".") for place in sys.path):
        sys.path.insert(0, os.getcwd())
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
        from robust_erm.sweeps.refusals import refused

        line = refused(error, conf_dir())
        if line is None:
            raise
        from robust_erm.reports.terminal import told

        raise SystemExit(told([line], 2)) from None
