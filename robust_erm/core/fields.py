"""Fields of components that may differ between the runs of one pack."""

from __future__ import annotations

import copy
from dataclasses import MISSING, field
from typing import Any

from torch import Tensor


def per_run(default: Any = MISSING) -> Any:
    """A dataclass field that changes neither shapes nor code, only numbers.

    Runs that differ in such fields alone are trained together. In an optimizer or a schedule the
    field must then be used as a tensor without axes (see :func:`substituted`); in a model or a data
    set it is used before training only.
    """
    return field(default=default, metadata={"per_run": True})


def numbers(component: Any) -> dict[str, float]:
    """The per-run fields of ``component`` and of the components in it, by dotted path."""
    found: dict[str, float] = {}
    for f in component.__dataclass_fields__.values():
        value = getattr(component, f.name)
        if f.metadata.get("per_run"):
            found[f.name] = float(value)
        elif hasattr(value, "__dataclass_fields__"):
            found |= {f"{f.name}.{name}": number for name, number in numbers(value).items()}
    return found


def substituted(component: Any, values: dict[str, Tensor]) -> Any:
    """``component`` with its per-run fields replaced by tensors; paths as :func:`numbers` gives them."""
    new = copy.copy(component)
    inner: dict[str, dict[str, Tensor]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = value
        else:
            object.__setattr__(new, name, value)
    for name, rests in inner.items():
        object.__setattr__(new, name, substituted(getattr(component, name), rests))
    return new
