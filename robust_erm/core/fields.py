"""Fields of components that may differ between the runs of one pack; and whether a component is what it inherits."""

from __future__ import annotations

import copy
from dataclasses import MISSING, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def per_run(default: Any = MISSING) -> Any:
    """A dataclass field that changes neither shapes nor code, only numbers.

    Runs that differ in such fields alone are trained together. In an optimizer, and what is in its fields, such as a
    schedule, the field must then be used as a tensor without axes (see :func:`substituted`), which :func:`number` makes
    of it in any case; a data set uses it in ``draw``. Our models use it in ``init`` alone. In models of others, in
    attacks, objectives and measurements it changes nothing: runs that differ in it are trained apart.
    """
    return field(default=default, metadata={"per_run": True})


def beside(scalar: Any) -> Any:
    """A number of each run, () or (R,), as what multiplies vectors (P,) or (R, P); a plain number stays one."""
    return scalar.unsqueeze(-1) if isinstance(scalar, Tensor) else scalar


def number(value: float | Tensor, like: Tensor) -> Tensor:
    """A per-run field, () or (R,), as a tensor of the type of ``like``, whether or not it differs within a pack.

    ``1 - beta`` in Python and as a tensor of float32 are not the same number: what is computed from this has the same
    bits alone and in a pack.
    """
    if isinstance(value, Tensor):
        return value.to(like)
    return _number(float(value), like.dtype, like.device)


@lru_cache(maxsize=256)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


def takes_runs(component: object) -> bool:
    """Whether a component says ``run_axis = True``; its class says so of itself, not of what inherits."""
    return bool(vars(type(component)).get("run_axis", False))


def parts(component: Any) -> list[Any]:
    """The components in the fields of a component, such as the schedule of an optimizer."""
    found = [getattr(component, f.name) for f in fields(component)]
    return [part for part in found if is_dataclass(part)]


def later(default: Any, per_run: bool = False) -> Any:
    """A dataclass field that was added after runs had been named: at its default it is no part of their identity.

    With ``per_run`` it is also what :func:`per_run` says.
    """
    return field(default=default, metadata={"later": True, "per_run": per_run})


def unchanged(component: object, cls: type[T], *but: str) -> TypeGuard[T]:
    """Whether ``component`` does what ``cls`` does: it is one, and overrides no method or property, ``but`` these.

    What knows the formulas of a class must ask this and not ``isinstance``: a component of a user's own may inherit
    from ours and compute something else.
    """
    return isinstance(component, cls) and _same(type(component), cls, but)  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _same(kind: type[Any], cls: type[Any], but: tuple[str, ...]) -> bool:
    fields = getattr(cls, "__dataclass_fields__", {})
    names = [name for name in dir(cls) if not name.startswith("__") and name not in fields and name not in but]
    return all(getattr(kind, name) is getattr(cls, name) for name in names)


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
