"""From plain values to the types of a dataclass's fields: unknown keys and wrong types are refused, by name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from robust_erm.core.errors import ConfigError, require
from robust_erm.store.imports import imported

_SPELLED = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}  # as YAML has them
BUILT: set[str] = set()
"""The ``_target_`` of every component that has been built in this process."""


def contained(cfg: DictConfig) -> dict[str, Any]:
    """A composed Hydra config as plain data, interpolations resolved; what is missing stays ``???``."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error.full_key), "", str(error).splitlines()[0]) from None
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}


@lru_cache(maxsize=4096)
def section(cls: Any, text: str, key: str) -> Any:
    """The section ``cls`` (a dataclass) that ``text``, JSON, describes; kept, for sweeps ask for the same again."""
    return typed(cls, json.loads(text), key)


def component(node: Any, key: str) -> Any:
    """The component that ``{_target_: class, ...}``, interpolations resolved, describes; raises ConfigError."""
    return _built(json.dumps(node), key)


@lru_cache(maxsize=4096)
def _built(text: str, key: str) -> Any:
    return _build(json.loads(text), key)


def _build(node: Any, key: str) -> Any:
    """The component that ``{_target_: class, ...}`` describes; nested ones first."""
    valid = isinstance(node, dict) and "_target_" in node
    require(valid, key, node, "must name a component of this group, a mapping with _target_")
    values = {k: _build(v, f"{key}.{k}") if isinstance(v, dict) and "_target_" in v else v for k, v in node.items()}
    target = values.pop("_target_")
    try:
        cls = imported(target)
    except ImportError as error:
        raise ConfigError(f"{key}._target_", target, f"cannot be imported: {error}") from error
    require(dataclasses.is_dataclass(cls), f"{key}._target_", target, "must be a (frozen) dataclass")
    BUILT.add(target)
    return typed(cls, values, key)


@lru_cache(maxsize=256)
def _schema(cls: Hashable) -> Any:
    """An OmegaConf node with the fields of ``cls``, used to convert one value at a time."""
    schema = OmegaConf.structured(cls)
    OmegaConf.set_readonly(schema, False)
    return schema


def _kind(field: dataclasses.Field[Any]) -> str:
    """The type of a field as its source spells it, with or without ``from __future__ import annotations``."""
    kind = field.type
    text = kind.__name__ if isinstance(kind, type) else str(kind)
    return text.replace("typing.", "")


def _must_be_given(field: dataclasses.Field[Any]) -> bool:
    return field.default in (MISSING, dataclasses.MISSING) and field.default_factory is dataclasses.MISSING


def typed(cls: type[Any], values: dict[str, Any], key: str) -> Any:
    """``cls(**values)`` with every value converted to the type of its field."""
    prefix = f"{key}." if key else ""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in values.keys() - fields.keys():
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{prefix}{name}", values[name], f"unknown option: has {', '.join(fields)}{hint}")
    converted: dict[str, Any] = {}
    schema: Any = _schema(cls)  # type: ignore[arg-type]
    for name, value in values.items():
        kind = _kind(fields[name])
        if kind == "Any" or dataclasses.is_dataclass(value):
            converted[name] = value
            continue
        require(value != MISSING, f"{prefix}{name}", value, "must be given")
        if isinstance(value, str) and re.search(r"\bfloat\b", kind):
            value = _SPELLED.get(value.lower(), value)
        number = re.search(r"\bint\b", kind) and not re.search(r"\bfloat\b", kind)
        whole = number and isinstance(value, float) and value.is_integer()  # 1e3
        try:
            schema[name] = int(value) if whole else value
        except ValidationError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{prefix}{name}", value, f"has the wrong type: {reason}") from None
        converted[name] = tuple(schema[name]) if "tuple" in kind.lower() and schema[name] is not None else schema[name]
    missing = [n for n, f in fields.items() if n not in values and _must_be_given(f)]
    require(not missing, prefix + (missing or [""])[0], "???", "must be given")
    try:
        return cls(**converted)
    except ConfigError as error:
        raise (error.under(key) if key else error) from None
