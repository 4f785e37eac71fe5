"""What a result was computed by: hashes of the source files and of the data files that it depends on.

A run's id says which configuration it is; its fingerprint says which code and data answered it. It covers what may
change a number: the mathematics of the package, the components of this very run wherever they live, with what they
import, and files that the data set names. Comments, docstrings and layout do not count, nor do other components.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from robust_erm.store.config import Run
from robust_erm.store.fits import attacks_of
from robust_erm.store.source import PACKAGE

Fingerprint = dict[str, str]  # of every file, by its module's name or ``file <path>``

_NAME = PACKAGE.name
# what every run goes through, beside its components
_ENGINE = ("runs", "module", "measure", "problem", "kernels", "kernels.dense", "kernels.sparse", "kernels.net")
_ROOMS = (
    *("data", "models", "objectives", "attacks", "measures", "oracles"),
    *("optimizers", "geometries", "accumulators", "schedules"),
)
_EXACT, _OF_CLASSES = ("margin", "robust_margin", "cones"), ("classes", "cones")
_INSTALLED = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def of_run(run: Run) -> Fingerprint:
    """The fingerprint of ``run`` as it would be trained now."""
    components = [run.data, run.model, run.objective, run.optimizer, *attacks_of(run).values(), *run.measure.values()]
    counts = run.eps_unit == "margin" or getattr(run.optimizer, "limit", False)
    exact = () if not counts else _EXACT if run.outputs == 1 else _OF_CLASSES
    engine = [*(f"{_NAME}.training.{name}" for name in _ENGINE), f"{_NAME}.oracles.risk"]
    engine += [f"{_NAME}.oracles.{name}" for name in exact]
    return _of_modules(tuple(engine)) | of_components(components)


def of_components(components: Iterable[Any]) -> Fingerprint:
    """The fingerprint of components alone, with those in their fields: classes, what these import, files they name."""
    found: Fingerprint = {}
    for part in (part for component in components for part in _with_parts(component)):
        classes = [cls.__module__ for cls in type(part).__mro__ if cls.__module__ not in ("builtins", "typing")]
        found |= _of_modules(tuple(classes), components=True) | _files(part)
    return found


def _with_parts(value: Any) -> Iterator[Any]:
    """A component, those in its fields, and in theirs, also in lists and mappings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        inner = [getattr(value, f.name) for f in dataclasses.fields(value) if f.metadata.get("identity", True)]
    elif isinstance(value, dict | tuple | list):
        inner = list(value.values() if isinstance(value, dict) else value)
    else:
        inner = []
    for part in inner:
        yield from _with_parts(part)


def of_modules(*names: str) -> Fingerprint:
    """The fingerprint of modules of this package and of what they import, components aside."""
    return _of_modules(tuple(f"{_NAME}.{name}" for name in names))


def remember() -> None:
    """Hash what is loaded of this package, as it is now: processes that are forked later run that."""
    for name in list(sys.modules):
        if name.startswith(f"{_NAME}.") and any(_followed(name, components) for components in (False, True)):
            path = _path(name)
            with suppress(OSError, SyntaxError, ValueError):  # half-written, or gone: it is looked at when asked for
                if path is not None:
                    _of_source(name, path)


def differing(now: Fingerprint, recorded: Fingerprint) -> list[str]:
    """What is not as recorded, in words: changed, new and missing files."""
    names = sorted(n for n in now.keys() | recorded.keys() if now.get(n) != recorded.get(n))
    return [
        name.removeprefix("file ") if name.startswith("file ") else f"{name.replace('.', '/')}.py" for name in names
    ]


def continued(now: Fingerprint, recorded: Fingerprint) -> Fingerprint:
    """Of what goes on where other code or data had begun: of the files that differ, both, one after the other."""
    found = dict(now)
    for name in now.keys() | recorded.keys():
        before, after = recorded.get(name, "nothing"), now.get(name, "nothing")
        if before != after:
            found[name] = before if before.endswith(f", then {after}") else f"{before}, then {after}"
    return found


def _files(part: Any) -> Fingerprint:
    """Of the files that a component names in its fields and by ``files()``, or what it says by ``fingerprint()``."""
    found: Fingerprint = {}
    if callable(own := getattr(part, "fingerprint", None)):
        found[f"file {type(part).__qualname__}"] = str(own())
        return found
    fields = (field for field in dataclasses.fields(part) if field.metadata.get("identity", True))
    named = [value for field in fields if isinstance(value := getattr(part, field.name), str) and value]
    named += files() if callable(files := getattr(part, "files", None)) else []
    for value in named:
        path = Path(os.path.expanduser(value))  # which leaves it as it is where there is no home folder
        if path.is_file():
            stat = path.stat()
            found[f"file {value}"] = _of_file(str(path), stat.st_mtime_ns, stat.st_size)
    return found


@lru_cache(maxsize=64)
def _of_file(path: str, changed: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@lru_cache(maxsize=256)
def _of_modules(roots: tuple[str, ...], components: bool = False) -> Fingerprint:
    """Of the modules ``roots`` and what they import, as far as :func:`_followed`; what has no file is left out."""
    found: Fingerprint = {}
    todo = list(roots)
    while todo:
        name = todo.pop()
        path = _path(name)
        if name in found or path is None:
            continue
        found[name], imported = _of_source(name, path)
        todo += [other for other in imported if _followed(other, components)]
    return {name: value for name, value in found.items() if value != _NOTHING}


@lru_cache(maxsize=1024)
def _of_source(name: str, path: Path) -> tuple[str, tuple[str, ...]]:
    """The hash of a module, and the modules that it imports."""
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return _hashed(tree), tuple(dict.fromkeys(_imported(tree, package)))


def _followed(name: str, components: bool) -> bool:
    """Of this package: mathematics, and the engine or else components; of others: what is not installed."""
    root, _, rest = name.partition(".")
    if root != _NAME:
        return True  # :func:`_path` knows what is not installed
    room = rest.partition(".")[0]
    rooms = _ROOMS if components else ("training", "measures", "geometries")
    return room in ("core", *rooms) and rest != "core.errors"


def _path(name: str) -> Path | None:
    """The source file of a module, where it is this package's or somebody's own: not installed, not built in."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file = spec.origin if spec is not None else None
    if file is None or not file.endswith(".py") or not Path(file).is_file():
        return None
    path = Path(file).resolve()
    return path if path.is_relative_to(PACKAGE) or not _installed(path) else None


def _installed(path: Path) -> bool:
    """Whether an installer put a file where it is: here, or where ``pip --target`` or a cluster's module did."""
    if str(path).startswith(_INSTALLED):
        return True
    folders = {Path(folder or ".").resolve() for folder in sys.path} & set(path.parents)
    return any(path.relative_to(folder).as_posix() in _recorded(folder) for folder in folders)


@lru_cache(maxsize=64)
def _recorded(folder: Path) -> frozenset[str]:
    """The files that were installed into a folder, by the records that installers leave beside them."""
    found: set[str] = set()
    for record in folder.glob("*.dist-info/RECORD"):
        with suppress(OSError), open(record, encoding="utf-8", errors="replace", newline="") as file:
            found.update(row[0] for row in csv.reader(file) if row)
    return frozenset(found)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """The modules that ``import`` statements name; of ``from a import b`` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module or "")))
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _hashed(tree: ast.Module) -> str:
    """Sixteen hex digits of what a module does: its syntax tree without docstrings, the same on every Python."""
    found = hashlib.sha256()
    todo: list[Any] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.AST):
            found.update(type(node).__name__.encode() + b"(")
            for name in node._fields:
                value = getattr(node, name, None)
                if value not in (None, [], "") and name not in ("ctx", "type_comment", "kind"):
                    found.update(name.encode() + b"=")
                    todo.append(value)
        elif isinstance(node, list):
            some = [child for child in node if not _is_docstring(child)]
            found.update(b"[%d" % len(some))
            todo += some
        else:
            found.update(repr(node).encode() + b",")
    return found.hexdigest()[:16]


def _is_docstring(node: Any) -> bool:
    """Whether a statement is a string by itself: it does nothing."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


_NOTHING = _hashed(ast.parse('"""Says something."""'))
