"""A run's folder, opened: what it was, what was measured, and the network that it left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from robust_erm.core.errors import ConfigError, first_line, require
from robust_erm.core.params import Params
from robust_erm.data.images import OfClasses
from robust_erm.evaluation.as_module import as_module
from robust_erm.reports.tables import as_row, read_metrics
from robust_erm.store import fingerprint
from robust_erm.store.config import Run
from robust_erm.store.files import Damaged
from robust_erm.store.reading import CONFIG, Recorded, parameters_of, read_config, read_summary, run_of

_FAR = 10  # times what a data set's numbers reach: an attack goes a little beyond, bytes of pixels far
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LoadedRun:
    """A run that has ended; made by :func:`load_run`.

    Args:
        folder: where it lies.
        config: all of its options, as config.yaml has them.
        summary: its final metrics, status, versions, git revision, device, seconds.
        trust: modules of your own whose components its config may name.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    trust: tuple[str, ...] = ()

    @cached_property
    def run(self) -> Run:
        """Its components: ``run.run.model``, ``.data``, ``.attack``, ...

        Raises:
            ConfigError: a component is not trusted, or the data are not where they were: say where with ``data.file``
                and the like on a command line, ``train --run``.
        """
        try:
            return run_of(self.folder, self.trust)
        except Damaged as error:
            if isinstance(error.__cause__, ConfigError):  # nothing is damaged: data that have moved, say
                raise error.__cause__ from None
            raise ConfigError("folder", self.folder, str(error)) from None

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row a measurement: ``step``, ``log_loss``, accuracies, margins."""
        table: pd.DataFrame = read_metrics(self.folder).to_pandas()
        return table

    @cached_property
    def parameters(self) -> Params:
        """The final parameters by name, float64 tensors."""
        return parameters_of(self.folder, self.run)

    @property
    def module(self) -> torch.nn.Module:
        """The network as a plain ``torch.nn.Module``, float64: x (n, d) -> (n,) for two classes, (n, C) for more.

        Fully connected and convolutional nets are an ``nn.Sequential`` of torch's own layers, so that
        ``torch.save(module.state_dict(), ...)``, ``torch.jit`` and ONNX know what to do with it. Its inputs are those
        that the run was trained on; see :meth:`predict` for standardised ones.
        """
        return as_module(self.run.model, self.parameters)

    def outputs(self, x: Any) -> Points:
        """The network's outputs at x (n, d) or (n, ...), as the data set has its points: (n,) or (n, C)."""
        given = self._numbers(x)
        d = self.run.data.dimension
        flat = given.reshape(len(given), -1) if given.ndim > 1 else given
        says = f"must have shape (n, {d}) as the run's points"
        require(flat.ndim == 2 and flat.shape[1] == d, "x", f"array of shape {given.shape}", says)
        require(bool(np.isfinite(flat).all()), "x", "numbers", "hold some that are missing or not finite")
        interval, size = self._interval, float(np.abs(flat).max(initial=0))
        says = f"must be numbers in {list(interval or ())}, as the run's points are, or near it: are these bytes?"
        require(interval is None or size <= _FAR * max(map(abs, interval)), "x", f"up to {size:g}", says)
        with torch.no_grad():
            found: Points = self.run.model.apply(self.parameters, torch.from_numpy(self._prepared(flat))).numpy()
        return found

    def predict(self, x: Any) -> npt.NDArray[Any]:
        """The class of each of x (n, d) or (n, ...), as the data set's file or ``data.classes`` calls it.

        Inputs are as the data set has them *before* ``data.standardise``: what that does to the training points is done
        to x. An output of exactly 0 has no class: of two, the second is said.
        """
        self._require_same_data()
        f = self.outputs(x)
        place = (f <= 0).astype(int) if f.ndim == 1 else f.argmax(-1)
        names = self._classes
        return np.asarray(names)[place] if names is not None else place if f.ndim > 1 else 1 - 2 * place

    @property
    def _classes(self) -> tuple[Any, ...] | None:
        data = self.run.data
        names = getattr(data, "names", None) or getattr(data, "classes", None)
        return tuple(names) if names is not None else None

    def _numbers(self, x: Any) -> Points:
        """As an array; the columns of a table in the order of the run's."""
        if isinstance(x, pd.DataFrame):
            columns = self.run.data.columns if hasattr(self.run.data, "columns") else ()
            x = x.rename(columns=str)
            lacking = [name for name in columns if name not in x]
            require(not lacking, "x", "table", f"lacks columns of the run's points: {', '.join(lacking[:4])}")
            says = f"has {x.shape[1]} columns, the run's points have no names: give an array"
            require(bool(columns), "x", "table", says)
            x = x[list(columns)]
        try:
            found: Points = np.array(x, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError("x", type(x).__name__, f"must be numbers ({first_line(error)})") from None
        return found

    def _require_same_data(self) -> None:
        """Raise ConfigError where the data's files are no longer those that the run was trained on."""
        recorded = Recorded.of(self.summary, ended=True).fingerprint or {}
        now = fingerprint.of_components([self.run.data])
        changed = [
            name.removeprefix("file ") for name in now if name.startswith("file ") and now[name] != recorded.get(name)
        ]
        says = "is not what the run was trained on: classes and standardised inputs would be others; .module needs none"
        require(not changed, "data", ", ".join(changed[:2]), says)

    @property
    def _interval(self) -> tuple[float, float] | None:
        data = self.run.data
        return (0.0, 1.0) if isinstance(data, OfClasses) else getattr(data, "interval", None)

    def _prepared(self, x: Points) -> Points:
        data = self.run.data
        if not hasattr(data, "prepared"):
            return x
        self._require_same_data()
        found: Points = data.prepared(x, self.run.seed)
        return found

    @property
    def row(self) -> dict[str, Any]:
        """As one row of :func:`robust_erm.results.load`: every config key, every final metric."""
        return as_row(self.config, self.summary, self.folder)

    def __repr__(self) -> str:
        kept = {key: self.summary.get(key) for key in ("status", "step", "train_robust_acc", "test_robust_acc")}
        return f"LoadedRun({self.folder}, {', '.join(f'{k}={v}' for k, v in kept.items())})"


def load_run(folder: str | Path, trust: Iterable[str] = ()) -> LoadedRun:
    """Open the folder of a run that has ended.

    Nothing in the folder is executed: its config is plain data, and names components of this package only, or of the
    modules that you trust.

    Args:
        folder: ``outputs/digits-mlp-gd-eps0.2-s0-...``.
        trust: modules of your own whose components the config may name: ``["parts"]``.

    Raises:
        ConfigError: there is no such folder, it holds no run that has ended, or a file of it is damaged.
    """
    path = Path(folder)
    require(path.is_dir(), "folder", folder, "there is no such folder" if not path.exists() else "is no folder")
    require((path / CONFIG).is_file(), "folder", folder, f"holds no {CONFIG}: no run of ours")
    try:
        return LoadedRun(path, read_config(path), read_summary(path), tuple(trust))
    except FileNotFoundError:
        raise ConfigError("folder", folder, "holds a run that has not ended") from None
    except Damaged as error:
        raise ConfigError("folder", folder, str(error)) from None
