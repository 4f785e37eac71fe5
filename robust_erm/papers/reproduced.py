"""What the figures of papers are made from: the runs of several sweeps as one table."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robust_erm.core.params import Params
from robust_erm.data.dataset import Array
from robust_erm.reports.ends import differ
from robust_erm.reports.tables import as_row
from robust_erm.store.files import Damaged, read_json
from robust_erm.store.reading import parameters_of, read_config, read_summary, run_of
from robust_erm.training.problem import draw


def read(folders: Mapping[str, Sequence[Path]], evaluation: str | None = None) -> pd.DataFrame:
    """One row a run, as :func:`robust_erm.reports.tables.load`, with the column ``sweep``, its label.

    Of all evaluations only that called ``evaluation`` is kept, as ``strong.test_attacked``, ...
    """
    rows = [
        {"sweep": label, **as_row(read_config(folder), read_summary(folder), folder)}
        for label, some in folders.items()
        for folder in some
    ]
    frame = pd.DataFrame(rows, columns=None if rows else ["sweep"])
    own = {c: f"strong.{str(c).rpartition('.')[2]}" for c in frame if str(c).startswith(f"evaluated.{evaluation}.")}
    others = [c for c in frame if str(c).startswith("evaluated.") and c not in own]
    return frame.drop(columns=others).rename(columns=own)


def parameters(folder: str | Path) -> Params:
    """The final parameters of a run, float64."""
    return parameters_of(folder, run_of(folder))


def predictor(folder: str | Path) -> Array:
    """The final weights (d,) of a run whose model is linear in its input."""
    w: Array = run_of(folder).model.weight(parameters(folder)).numpy()
    return w


def signed_points(folder: str | Path) -> Array:
    """The training set of a run: rows ``y_i x_i`` (m, d)."""
    run = run_of(folder)
    dataset = draw(run.data, run.seed)
    z: Array = dataset.x_train * dataset.y_train[:, None]
    return z


def caption(figure: Callable[..., Any]) -> str:
    """What a picture shows, as the docstring of the function that draws it says."""
    return " ".join((inspect.getdoc(figure) or "").split("\n\n")[0].split())


def facts(title: str, picture: str, command: str, frame: pd.DataFrame, seconds: float, folder: Path) -> dict[str, Any]:
    """What a page of claims says of itself; seconds are those of the longest call, the one that trained."""
    runs = len(frame)
    try:
        before = read_json(folder / "claims.json")
    except (FileNotFoundError, Damaged):
        before = {}
    same = before.get("runs") == runs and before.get("command") == command
    devices = sorted(set(frame["device"])) if runs else []
    return {
        "title": title,
        "picture": picture,
        "command": command,
        "runs": runs,
        "status": ", ".join(f"{n} {word}" for word, n in frame["status"].value_counts().items()) if runs else "none",
        "losses": differ(frame) or "all at equal loss",
        "seconds": round(max(seconds, before.get("seconds", 0)) if same else seconds, 1),
        "device": ", ".join(devices)
        + f"; {int(np.max(frame['host_cores'])) if runs else 0} cores, {platform.machine()}",
        "dtype": ", ".join(sorted(set(frame["dtype"]))) if runs else "",
        "versions": {str(k)[9:]: frame[k].iloc[-1] for k in frame if str(k).startswith("versions.")},
        "git": ", ".join(sorted({str(revision) for revision in frame["git"]})) if runs else None,
    }
