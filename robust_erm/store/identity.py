"""What a run is called, and what it is the same as: configs as plain data, names of components, ids."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_erm.store.config import Run

COMPONENTS = ("data", "model", "optimizer", "objective", "attack")


class Section:
    """A part of a config that is no component: it has no ``_target_``."""


def names(run: Run) -> dict[str, str]:
    """What each component of ``run`` is called."""
    return {key: word(getattr(run, key)) for key in COMPONENTS}


def word(component: Any) -> str:
    """How file names and messages call a component: mlp, gd, sd, ..."""
    named: str = getattr(component, "nickname", type(component).__name__.lower())
    return named


def title(run: Run) -> str:
    """``digits, mlp, gd``."""
    return f"{word(run.data)}, {word(run.model)}, {word(run.optimizer)}"


def as_data(value: Any, purpose: str = "all") -> Any:
    """``value``, a run or a part of it, as plain data.

    Args:
        value: dataclasses become mappings (components with their ``_target_``), tuples lists.
        purpose: ``all`` keeps everything (config.yaml); ``identity`` what may change a result, with
            floats as text so that equal configs give equal hashes; ``pack`` of that what components of
            one pack must share, of those whose :func:`robust_erm.core.fields.per_run` fields it knows of.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [f for f in dataclasses.fields(value) if purpose == "all" or f.metadata.get("identity", True)]
        kept = [f for f in kept if purpose != "pack" or not f.metadata.get("per_run")]
        if purpose != "all":
            kept = [f for f in kept if not f.metadata.get("later") or getattr(value, f.name) != _default(f)]
        found = {f.name: as_data(getattr(value, f.name), purpose) for f in kept}
        return found if isinstance(value, Section) else {"_target_": target_of(value), **found}
    inner = "identity" if purpose == "pack" else purpose  # as robust_erm.core.fields.numbers knows them
    if isinstance(value, dict):
        return {k: as_data(v, inner) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_data(v, inner) for v in value]
    return repr(value) if isinstance(value, float) and purpose != "all" else value


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def target_of(component: Any) -> str:
    """The dotted path of a component's class."""
    return f"{type(component).__module__}.{type(component).__qualname__}"
