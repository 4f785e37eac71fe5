"""The one exception for input that a user can mend."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SHOWN = 12  # choices named in a refusal


class ConfigError(Exception):
    """Bad input: says which key, which value, and what would be right.

    Printed as ``key = value: what would be right``; entry points turn it into exit status 2.
    """

    _line = ""

    def __init__(self, key: str, value: object, expected: str) -> None:
        self.key, self.value, self.expected = key, value, expected
        super().__init__(key, value, expected)

    @classmethod
    def said(cls, line: str) -> ConfigError:
        """The error that a line tells, which may name no value: ``key: what would be right``."""
        key, equals, rest = line.partition(" = ")
        value, _, expected = rest.partition(": ")
        if not equals or ": " in key:
            (key, _, expected), value = line.partition(": "), ""
        found = cls(key, value, expected)
        found._line = line
        return found

    def under(self, prefix: str) -> ConfigError:
        """The same error seen from one level above: ``k_w`` becomes ``data.k_w``."""
        return ConfigError(f"{prefix}.{self.key}" if self.key else prefix, self.value, self.expected)

    def __str__(self) -> str:
        return self._line or f"{self.key} = {self.value}: {self.expected}"


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise :class:`ConfigError` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(key, value, expected)


def positive(key: str, value: float, expected: str = "must be positive and finite") -> None:
    """Raise :class:`ConfigError` unless ``value`` is above 0 and finite."""
    require(value > 0 and math.isfinite(value), key, value, expected)


def at_most(key: str, value: int, most: int, least: int = 1) -> None:
    """Raise :class:`ConfigError` unless ``least <= value <= most``, which is more than any of use."""
    require(least <= value <= most, key, value, f"must be {least} or more, and at most {most:,}")


def one_of(key: str, value: str, choices: Iterable[str]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is among ``choices``; says the nearest, of many the nearer ones."""
    names = list(choices)
    near = difflib.get_close_matches(value, names, n=_SHOWN, cutoff=0.0) if len(names) > _SHOWN else names
    more = f" and {len(names) - len(near)} more" if len(near) < len(names) else ""
    require(value in names, key, value, f"must be one of {', '.join(near)}{more}{hint(value, names)}")


def home(key: str, value: str) -> Path:
    """``value`` as a path, with ``~`` for the user's home folder.

    Raises:
        ConfigError: there is none, as in some containers.
    """
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ConfigError(key, value, "there is no home folder here: write the path in full") from None


def hint(word: str, words: list[str]) -> str:
    """What to add to a refusal: the nearest of ``words``, or nothing where none is near."""
    near = difflib.get_close_matches(str(word), words, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


@contextmanager
def in_one_line(key: str, value: object, what: str) -> Iterator[None]:
    """Whatever somebody's component raises in ``what`` it does is a :class:`ConfigError`; a device's errors stay."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        from robust_erm.core.devices import fault_of  # here: torch takes a second to import

        if fault_of(error):
            raise
        raise ConfigError(key, value, f"{what} raises {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """``ValueError: what it says``, in one line of at most some 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message':.200}"
