"""Rows of the table that were asked for, and the table for other programs."""

from __future__ import annotations

import difflib
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import yaml

from robust_erm.core.errors import require


def where(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows for which every ``key=value`` holds, the value as config.yaml or the table spells it.

    ``seed=3``, ``eps=0.20``, ``optimizer.normalized=true``, ``eval_eps=null``, ``p=.inf`` (or inf),
    ``data.classes=[2,7]``; whole numbers are compared as such, however large.
    """
    for condition in conditions:
        key, equals, text = condition.partition("=")
        require(bool(equals), "--where", condition, "must be key=value")
        known(frame, "--where", key)
        wanted = _read_value(text)
        frame = frame[[_is(value, wanted, text) for value in frame[key]]]
    return frame


def _read_value(text: str) -> Any:
    """What YAML reads, and numbers as the command line has them: 1e-3, inf."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _is(value: Any, wanted: Any, text: str) -> bool:
    """Whether a cell holds what was asked for; ``text`` is what was typed."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return wanted is None or text == "nan"
    if isinstance(value, (bool, np.bool_)) or isinstance(wanted, bool):
        return isinstance(wanted, bool) and isinstance(value, (bool, np.bool_)) and bool(value) == wanted
    if isinstance(value, (int, float, np.number)):
        return isinstance(wanted, (int, float)) and bool(value == wanted)
    return str(value) in (text, str(wanted))


def as_parquet(frame: pd.DataFrame) -> bytes:
    """``frame`` as parquet; columns of several kinds, and whole numbers beyond 64 bits, become text."""

    def text(value: Any) -> str | None:
        return None if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)

    mixed = [c for c in frame if frame[c].dtype == object and set(map(type, frame[c].dropna())) != {str}]
    buffer = io.BytesIO()
    frame.assign(**{str(c): frame[c].map(text) for c in mixed}).to_parquet(buffer, index=False)
    return buffer.getvalue()


def known(frame: pd.DataFrame, option: str, column: str) -> None:
    """Raise ConfigError where ``frame`` lacks ``column``, which ``option`` names; suggests near ones."""
    near = difflib.get_close_matches(column, list(map(str, frame.columns)), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "--csv writes them all"
    require(column in frame, option, column, f"no such column; {advice}")
