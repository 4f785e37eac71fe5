"""A run as the overrides that give it, and what a user's own overrides change of them.

Keys and values are written as literals, and a line counts only if what it composes has the run's own id.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from robust_erm.core.errors import ConfigError, require
from robust_erm.store.config import Named, Run, resolve
from robust_erm.store.identity import COMPONENTS, Section, names, target_of
from robust_erm.store.imports import imported
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.compose import composed
from robust_erm.sweeps.lines import FLAG, points

Plain = dict[str, Any]
_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WORD = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z]\w*", re.ASCII | re.IGNORECASE)


def line_of(run: Run) -> list[str]:
    """The overrides that give ``run`` as far as its result goes; where and how it is trained is left to the user.

    Raises:
        ConfigError: no line of ours composes it.
    """
    wanted: Plain = _results_of(run)
    loader, master, _ = points([])

    def tried(lines: list[list[str]]) -> list[Any]:
        return list(composed(loader, master, lines))

    groups = list(_groups(wanted, names(run)))
    line = groups.copy()
    for keys in ([k for k, v in wanted.items() if not isinstance(v, dict)], list(wanted)):  # others look at numbers
        (base,) = tried([line])
        if isinstance(base, ConfigError):
            raise base
        line += [change for key in keys for change in _changes(base[key], wanted[key], key)]
    values = line[len(groups) :]
    shorter = tried([[o for o in line if o != value] for value in values])
    follows = {
        value for value, config in zip(values, shorter, strict=True) if _id(config) == run.id
    }  # as k_x follows d
    short = [o for o in line if o not in follows]
    as_short, as_long = tried([short, line])
    found = short if _id(as_short) == run.id else line
    require(run.id in (_id(as_short), _id(as_long)), FLAG, run.name, "no line of this version gives its config")
    return found


def _id(config: Any) -> str | None:
    try:
        return None if isinstance(config, ConfigError) else resolve(config, Named).id
    except ConfigError:
        return None


def _results_of(value: Any) -> Any:
    """``value`` as plain data, of all that may change a result."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [f for f in dataclasses.fields(value) if f.metadata.get("identity", True)]
        named = {} if isinstance(value, Section) else {"_target_": target_of(value)}
        return named | {f.name: _results_of(getattr(value, f.name)) for f in kept}
    if isinstance(value, dict):
        return {k: _results_of(v) for k, v in value.items()}
    return [_results_of(v) for v in value] if isinstance(value, (list, tuple)) else value


def _groups(wanted: Plain, named: dict[str, str]) -> Iterator[str]:
    """The choices from groups that come nearest to ``wanted``, whose components have these names, but for defaults."""
    default = _defaults(conf_dir() / "train.yaml")
    for group in COMPONENTS:
        yield from _choices(group, wanted[group], default.get(group), named[group])
    if own := [name for name, node in wanted["measure"].items() if _nearest("measure", node) == name]:
        yield f"measure=[{','.join(own)}]"
    for name, node in wanted["eval_attacks"].items():
        if (nearest := _nearest("attack", node)) is not None:
            yield f"+attack@eval_attacks.{_key(name)}={nearest}"


def _choices(group: str, node: Plain, default: str | None, named: str | None = None) -> Iterator[str]:
    """That of ``group``, and of the groups inside it."""
    name = _nearest(group, node, default if named is None else named)
    if name not in (None, default):
        yield f"{group}={name}"
    chosen = name or default
    inner = _defaults(conf_dir() / group / f"{chosen}.yaml")
    for key, value in node.items():
        if key in inner and isinstance(value, dict):
            yield from _choices(f"{group}/{key}", value, inner[key])


def _defaults(path: Path) -> dict[str, str]:
    """What a yaml chooses from groups by default."""
    entries = OmegaConf.to_container(OmegaConf.load(path), resolve=False).get("defaults", [])  # type: ignore[union-attr]
    return {k: v for entry in entries if isinstance(entry, dict) for k, v in entry.items()}


def _nearest(group: str, node: Plain, *first: str | None) -> str | None:
    """The yaml of ``group`` that names the class of ``node`` and shares most of its values, of those alike one of
    ``first``; None where none names it.
    """
    found: dict[str, int] = {}
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if content.get("_target_") == node.get("_target_"):
            found[path.stem] = sum(key in content and content[key] == value for key, value in node.items())
    return max(found, key=lambda name: (found[name], name in first)) if found else None


def _changes(base: Any, wanted: Any, path: str) -> Iterator[str]:
    """Overrides that make ``base``, at ``path`` of a config, what is ``wanted``."""
    if not (isinstance(base, dict) and isinstance(wanted, dict)):
        if base != wanted or isinstance(base, bool) != isinstance(wanted, bool):
            yield f"{path}={literal(wanted)}"
        return
    for key, value in wanted.items():
        inner = f"{path}.{_key(key)}"
        if key in base:
            yield from _changes(base[key], value, inner)
        else:
            yield f"+{inner}={literal(value)}"
    left = [key for key in base if key not in wanted]
    if left and "_target_" in wanted:  # what the class has and no result depends on stays this machine's
        own = {f.name for f in dataclasses.fields(imported(wanted["_target_"]))}
        left = [key for key in left if key not in own]
    yield from (f"~{path}.{key}" for key in left)


def _key(name: Any) -> str:
    word = str(name)
    require(_KEY.fullmatch(word) is not None, FLAG, f"{word!r:.40}", "is no name that a line can have; letters only")
    return word


def literal(value: Any) -> str:
    """``value`` as a literal of Hydra's grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if isinstance(value, dict):
        return "{" + ",".join(f"{_key(k)}:{literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(literal, value)) + "]"
    if isinstance(value, str):
        require(value.isprintable(), FLAG, f"{value!r:.40}", "is no text that a line can have")
        return value if _WORD.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def place(override: str) -> str:
    """Where in a config an override puts its value: ``optimizer.schedule`` of ``optimizer/schedule=constant``."""
    key = override.lstrip("+~").partition("=")[0]
    return (key.partition("@")[2] or key).replace("/", ".")


def changed(line: Sequence[str], changes: Sequence[str]) -> list[str]:
    """``line`` and then ``changes``; what a change replaces is left out, a component with all of its options."""
    gone, below = set(), []
    for change in changes:
        if not change.startswith("~"):
            gone.add(place(change))
            group = change.lstrip("+").partition("=")[0].partition("@")[0]
            below += [f"{place(change)}."] if (conf_dir() / group).is_dir() else []
    kept = [o for o in line if place(o) not in gone and not place(o).startswith(tuple(below))]
    return [*kept, *changes]


def as_typed(flags: Sequence[str], overrides: Sequence[str]) -> str:
    """The command that a shell takes."""
    return shlex.join(["python", "-m", "robust_erm.train", *flags, *overrides])
