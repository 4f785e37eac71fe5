"""Trainings and sweeps from Python: the command line's keys as keyword arguments, its results as tables."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import io
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from robust_erm.api.run import LoadedRun, load_run
from robust_erm.core.errors import ConfigError, require
from robust_erm.data.part import check_labels, check_numbers
from robust_erm.reports.compare import compare
from robust_erm.reports.tables import load, read_curves
from robust_erm.store.files import write_whole
from robust_erm.sweeps.lines import sweep_name

_MARK = "robust_erm: "


@dataclass(frozen=True, eq=False)
class Arrays:
    """Points of your own, in memory: ``re.train(data=re.Arrays(x, y, m=50))``.

    They are written to ``<output_dir>/arrays/<hash>.npz``, and the run's data is ``data=arrays`` of that file: the hash
    of their contents names them.

    Args:
        x: inputs (n, d) or (n, ...), numbers; the columns of a table keep their names.
        y: labels (n,): any numbers or words.
        options: of ``data=arrays``: ``m``, ``classes``, ``standardise``, ``domain``, ...
    """

    x: npt.ArrayLike
    y: npt.ArrayLike
    options: Mapping[str, Any]
    columns: tuple[str, ...]

    def __init__(self, x: npt.ArrayLike, y: npt.ArrayLike, **options: Any) -> None:
        columns = tuple(str(column) for column in x) if isinstance(x, pd.DataFrame) else ()
        for name, value in (("x", _numbers(x)), ("y", np.asarray(y)), ("options", options), ("columns", columns)):
            object.__setattr__(self, name, value)
        twice = [name for k, name in enumerate(columns) if name in columns[:k]]
        require(not twice, "x", "table", f"has more than one column {', '.join(twice[:1])}")
        shape, labels = np.shape(self.x), np.shape(self.y)
        require(len(shape) >= 2, "x", f"array of shape {shape}", "must have (n, d) or (n, ...)")
        check_numbers("x", f"array of shape {shape}", np.asarray(self.x), columns)
        require(labels == shape[:1], "y", f"array of shape {labels}", f"must have ({shape[0]},), as many as x")
        check_labels("y", f"array of shape {labels}", np.asarray(self.y))

    def written(self, folder: Path) -> list[str]:
        """Write them below ``folder``, and the overrides that name them."""
        buffer = io.BytesIO()
        y = np.asarray(self.y)
        kept: dict[str, Any] = {"x": np.asarray(self.x), "y": y.astype(str) if y.dtype.kind == "O" else y}
        if self.columns:
            kept["columns"] = np.array(self.columns)
        np.savez(buffer, **kept)
        path = folder / "arrays" / f"{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, buffer.getvalue())
        options = [f"data.{key}={spelled(value)}" for key, value in self.options.items()]
        return ["data=arrays", f"data.file={spelled(str(path))}", *options]


def _numbers(x: npt.ArrayLike) -> npt.NDArray[Any]:
    """``x`` as an array of numbers, also where it holds them as objects, as tables of several types do."""
    found = np.asarray(x)
    if found.dtype.kind == "O":
        try:
            return found.astype(np.float64)
        except (TypeError, ValueError):
            pass
    words = [str(c) for c, t in x.dtypes.items() if t.kind not in "fiub"] if isinstance(x, pd.DataFrame) else []
    where = f": column {words[0]} does not" if words else ""
    require(found.dtype.kind in "fiub", "x", f"array of {found.dtype}", f"must hold numbers{where}")
    return found


@dataclass(frozen=True)
class Trained:
    """What :func:`train` gives back.

    Args:
        line: the command that does the same.
        folders: of the runs that have ended, in the order of the sweep.
        failures: a line for each run that has not.
    """

    line: str
    folders: tuple[Path, ...]
    failures: tuple[str, ...] = ()

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a run: every config key, every final metric."""
        return load(self.folders)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row a measurement, beside the config columns."""
        return read_curves(self.table)

    @cached_property
    def runs(self) -> list[LoadedRun]:
        """Each run, opened."""
        return [load_run(folder) for folder in self.folders]

    def compare(self, key: str, metric: str = "test_robust_acc") -> pd.DataFrame:
        """Which value of ``key`` is better: differences by seed, see :func:`robust_erm.reports.compare.compare`."""
        return compare(self.table, key, metric)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Trained({len(self.folders)} runs{failed}: {self.line})"


def train(*overrides: str, quiet: bool = False, **keys: Any) -> Trained:
    """Train a run, or a sweep of them, as ``python -m robust_erm.train -m`` does, on processes of its own.

    ``re.train(optimizer=["gd", "sd"], eps=[0, 0.2], seed=range(3), stop__steps=500)`` is ``optimizer=gd,sd eps=0,0.2
    seed=0,1,2 stop.steps=500``. What has been trained is taken from its folder. The main script needs no guard.

    Args:
        overrides: as on the command line: ``"data.m=20"``, ``"+attack@eval_attacks.strong=pgd_strong"``.
        quiet: print neither progress nor table.
        keys: names of options, two underscores for a dot. A list or range is a sweep; a tuple is one value that is a
            list, ``data__classes=(2, 7)``; a mapping holds the keys below: ``stop={"steps": 500}``. Of a group also
            an object: :class:`Arrays` for ``data``, or a frozen dataclass of your own from a module that can be
            imported, or a list of such.

    Raises:
        ConfigError: the command refuses the line; nothing has been trained.
        RuntimeError: no run of the sweep has ended well.
    """
    root = Path(next((str(v) for k, v in keys.items() if k == "output_dir"), "outputs"))
    with tempfile.TemporaryDirectory() as made:
        given = [*overrides]
        for key, value in keys.items():
            given += list(_spelled(key.replace("__", "."), value, root, Path(made)))
        own = ["--config-dir", made] if any(Path(made).iterdir()) else []
        sweep = root / "sweeps" / sweep_name(given)
        table = sweep / "table.csv"
        table.unlink(missing_ok=True)  # of the same line before
        code, said = _run([*own, *given, f"hydra.sweep.dir={spelled(str(sweep))}"], quiet)
        folders = tuple(Path(f) for f in pd.read_csv(table)["folder"]) if table.is_file() else ()
    errors = [text.removeprefix(_MARK) for text in said if text.startswith(_MARK)]
    failures = tuple(text for text in said if text.startswith("failed: "))
    if code == 2 and not folders:
        raise ConfigError.said("; ".join(errors))
    if code and not folders:
        raise RuntimeError("\n".join([*errors, *failures] or said[-5:]))
    for failure in failures:
        warnings.warn(failure, stacklevel=2)
    return Trained(" ".join(["python -m robust_erm.train -m", *given]), folders, failures)


def _run(arguments: list[str], quiet: bool) -> tuple[int, list[str]]:
    """The command's exit status and lines, which are printed as they come unless ``quiet``."""
    places = [str(Path(place).resolve()) for place in sys.path if place == "" or Path(place).is_dir()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "robust_erm.train", "-m", *arguments]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    said = []
    with subprocess.Popen(command, env=environment, **streams) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                said.append(text.rstrip("\n"))
                if not quiet:
                    print(text, end="", flush=True)
        except BaseException:
            process.terminate()  # it leaves checkpoints
            raise
    return process.returncode, said


def _spelled(key: str, value: Any, root: Path, made: Path) -> Iterator[str]:
    """The overrides for one keyword argument."""
    if isinstance(value, Arrays):
        require(key == "data", key, "Arrays", "is points: data=re.Arrays(...)")
        yield from value.written(root)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _spelled(f"{key}.{name}", one, root, made)
    elif isinstance(value, np.ndarray) and value.ndim == 1:
        yield from _spelled(key, value.tolist(), root, made)
    elif isinstance(value, (list, range)):
        require(len(value) > 0, key, "[]", "has nothing to sweep over")
        words = [_of_group(key, one, made) if _is_component(one) else spelled(one) for one in value]
        yield f"{key}={','.join(words)}"
    elif _is_component(value):
        yield f"{key}={_of_group(key, value, made)}"
    else:
        yield f"{key}={spelled(value)}"


def _is_component(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _of_group(group: str, component: Any, made: Path) -> str:
    """Leave a yaml for an object of the group below ``made``; its name."""
    kind = type(component)
    target = f"{kind.__module__}.{kind.__qualname__}"
    says = f"is {kind.__qualname__} of this script or notebook, which other processes cannot import; put it in a file"
    require(kind.__module__ != "__main__" and "<" not in target, group, kind.__qualname__, f"{says}, and import it")
    text = yaml.safe_dump(_plain(component), sort_keys=False)
    name = f"{kind.__name__.lower()}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    path = made / group.replace(".", "/") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def _plain(component: Any) -> dict[str, Any]:
    """A dataclass as its yaml: ``_target_`` and its fields, dataclasses in it likewise."""
    kind = type(component)
    found: dict[str, Any] = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    for field in dataclasses.fields(component):
        if field.name not in inspect.signature(kind).parameters:
            continue
        value = getattr(component, field.name)
        found[field.name] = _plain(value) if _is_component(value) else _as_yaml(value)
    return found


def _as_yaml(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_as_yaml(one) for one in value]
    return value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value


def spelled(value: Any) -> str:
    """A value as Hydra's command line has it: ``null``, ``true``, ``[2,7]``, ``.inf``, words in quotes where needed."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(str(value), repr(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return f"[{','.join(map(spelled, value))}]"
    text = str(value)
    if text and all(c.isalnum() or c in "_./-+@:" for c in text):
        return text
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
