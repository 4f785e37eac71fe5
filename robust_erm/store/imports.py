"""A component's class by its dotted path, and why it cannot be had."""

from __future__ import annotations

import importlib
import os
import traceback
from typing import Any

from robust_erm.core.errors import hint


def imported(target: str) -> Any:
    """What ``package.module.Class`` names.

    Raises:
        ImportError: in one line: there is no such module (and where it was looked for), it has no such name (and which
            is near), or what its import raised, in which file and line.
    """
    module, _, name = str(target).rpartition(".")
    if not module or not all(part.isidentifier() for part in str(target).split(".")):
        raise ImportError("it must be a class by its dotted path, as in my_module.MyClass")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ImportError(f"there is no module {error.name}, neither in {os.getcwd()} nor installed") from error
        raise ImportError(_cause(error)) from error
    except Exception as error:  # whatever a module of somebody's raises
        raise ImportError(_cause(error)) from error
    if not hasattr(found, name):
        raise ImportError(f"{module} has no {name}{hint(name, [n for n in dir(found) if not n.startswith('_')])}")
    return getattr(found, name)


def _cause(error: Exception) -> str:
    """``NameError: name 'x' is not defined (parts.py, line 3)``."""
    text = str(error).strip().splitlines()
    if isinstance(error, SyntaxError):
        place = f"{os.path.basename(error.filename or '')}, line {error.lineno}"
        return f"SyntaxError: {error.msg} ({place})"
    own = [
        f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename and f.filename != __file__
    ]
    place = f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text[0] if text else 'no message':.200}{place}"
