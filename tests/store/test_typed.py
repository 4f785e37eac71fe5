"""Components of one's own, however their types are written: no ``from __future__ import annotations`` here."""

import dataclasses
import math
from typing import Any, Optional

import pytest

from robust_erm.core.errors import ConfigError
from robust_erm.store.typed import typed


@dataclasses.dataclass(frozen=True)
class Own:
    """A field of every kind."""

    path: str
    rate: float = 1.0
    most: Optional[float] = None  # noqa: UP045
    least: float | None = None
    count: int = 1
    few: int | None = None
    both: tuple[int, ...] = (1, 2)
    perhaps: tuple[int, ...] | None = None
    other: Any = None
    flag: bool = False
    names: list[str] = dataclasses.field(default_factory=list)


def test_values_of_every_kind() -> None:
    given = {"path": "x", "rate": "inf", "most": ".inf", "least": 2, "count": 1e3, "few": 7.0, "both": [3, 7]}
    made = typed(Own, {**given, "other": {"a": 1}, "flag": True, "perhaps": [1]}, "data")
    assert (made.rate, made.most, made.least, made.count, made.few) == (math.inf, math.inf, 2.0, 1000, 7)
    assert (made.both, made.perhaps, made.other, made.flag, made.names) == ((3, 7), (1,), {"a": 1}, True, [])
    assert isinstance(made.count, int)
    assert typed(Own, {"path": "x", "perhaps": None}, "data").perhaps is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "data.path = ???: must be given"),
        ({"path": "x", "count": 1.5}, "data.count = 1.5: has the wrong type"),
        ({"path": "x", "rate": "fast"}, "data.rate = fast: has the wrong type"),
        ({"path": "x", "rat": 3}, "data.rat = 3: unknown option"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        typed(Own, values, "data")
