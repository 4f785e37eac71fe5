"""One self-contained HTML page of a sweep: table, curves, gaps and heatmap; opens without a network."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robust_erm.core.errors import first_line, require
from robust_erm.core.statistics import LEGEND
from robust_erm.reports.answer import conclusions
from robust_erm.reports.compare import compare, setting_of
from robust_erm.reports.dots import picture
from robust_erm.reports.style import OF_OPTIMIZER
from robust_erm.reports.tables import read_curves, varying
from robust_erm.reports.terminal import SHOWN
from robust_erm.store.files import Damaged, read_bytes, read_text
from robust_erm.store.reading import CONFIG, SUMMARY, found_below

TEMPLATE = Path(__file__).with_suffix(".html")


# the metrics that the menus list first
_FIRST = (
    *("test_robust_acc", "train_robust_acc", "test_clean_acc", "train_clean_acc", "gap_robust", "gap_clean"),
    *("log_loss", "margin_robust_l1", "margin_robust_l2", "margin_robust_linf"),
)
_NUMBERS = 1_200_000  # of all curves together, each 8 bytes of the page or so
_LEAST = 8  # measurements that a thinned curve keeps


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """Run folders, and folders of them, as they are; a sweep's folder as the run folders that its table names.

    These are looked for where the sweep wrote them (from the working directory), then beside its ``sweeps`` folder.
    """
    found = []
    for path in map(Path, paths):
        table = path / "table.csv"
        if not table.is_file() or (path / SUMMARY).is_file():
            found.append(path)
            continue
        try:
            runs = pd.read_csv(io.BytesIO(read_bytes(table)))
        except (ValueError, pd.errors.ParserError) as error:  # of which most of pandas' are
            raise Damaged(table, f"is no table of a sweep: {first_line(error)}") from None
        named = "folder" in runs and len(runs) > 0 and runs["folder"].map(lambda f: isinstance(f, str)).all()
        require(bool(named), "paths", table, "is no table of a sweep: it has no column folder that names runs")
        for run in map(Path, runs["folder"]):
            moved = path.resolve().parents[1] / run.name
            found.append(moved if moved.exists() and not run.exists() else run)
    return found


def not_ended(paths: Sequence[Path]) -> int:
    """The number of run folders below ``paths`` without a summary: under way, cut off or failed."""
    folders = {f.resolve() for path in paths for f in found_below(path, CONFIG) if not (f / SUMMARY).exists()}
    return sum(_is_ours(folder / CONFIG) for folder in folders)  # W&B leaves a config.yaml of another kind


def _is_ours(config: Path) -> bool:
    try:
        return read_text(config).startswith("id:")
    except Damaged:
        return False


def thinned(frame: pd.DataFrame, numbers: int = _NUMBERS) -> tuple[dict[str, list[Any]], int]:
    """The curves to draw, to 6 significant digits, with null for what is not finite.

    Args:
        frame: the runs.
        numbers: about how many to keep of all curves together; a run keeps its first and last measurement.

    Returns:
        ``{metric: [values of run 0, values of run 1, ...]}``, ``step`` first (null: the run has no such
        metric), and how many runs are thinned.
    """
    table = read_curves(frame[["folder"]])
    metrics = [str(c) for c in table if c != "folder"]
    most = max(_LEAST, numbers // (len(frame) * len(metrics)))
    curves: dict[str, list[Any]] = {metric: [] for metric in metrics}
    thin = 0
    for _, run in table.groupby("folder", sort=False):
        thin += len(run) > most
        index = np.linspace(0, len(run) - 1, min(most, len(run))).round().astype(int)
        for metric, lists in curves.items():
            values = [_short(v) for v in run[metric].to_numpy(dtype=float)[index].tolist()]
            lists.append(None if all(v is None for v in values) else values)
    return curves, thin


def _short(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN as null, an infinity (``p=inf``) as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def content(frame: pd.DataFrame, title: str, unfinished: int = 0, numbers: int = _NUMBERS) -> dict[str, Any]:
    """All that the page shows, as JSON; a column that is equal in all runs stands once, in ``constant``.

    ``keys`` are the varying ones, without those that repeat another (``attack.p`` takes its value from ``p``).
    """
    keys = [str(key) for key in frame[varying(frame)].map(str).T.drop_duplicates().index]
    curves, thin = thinned(frame, numbers)
    metrics = [m for m in dict.fromkeys((*_FIRST, *curves)) if m in curves and m != "step"]
    columns = {str(c): [_plain(v) for v in frame[c].tolist()] for c in frame}
    shown = [
        c
        for c in (*keys, *SHOWN, "gap_clean", "gap_robust", "folder")
        if c in columns and any(v is not None for v in columns[c])
    ]
    kept = {*shown, *(m for m in metrics if m in columns)}
    constant = {c: v[0] for c, v in columns.items() if c not in kept and len({*map(str, v)}) == 1}
    return {
        "title": title,
        "made": time.strftime("%Y-%m-%d %H:%M %Z"),
        "count": len(frame),
        "not_ended": unfinished,
        "thinned": thin,
        "keys": keys,
        "shown": list(dict.fromkeys(shown)),
        "metrics": metrics,
        "constant": constant,
        "columns": {c: v for c, v in columns.items() if c not in constant},
        "curves": curves,
        "colours": OF_OPTIMIZER,
    }


def comparison(frame: pd.DataFrame, key: str, metric: str) -> str:
    """A section that says which value of ``key`` is better: a dot plot with intervals, and each answer in words.

    Raises:
        ConfigError: as :func:`robust_erm.reports.compare.compare`.
    """
    compared = compare(frame, key, metric)
    image = base64.b64encode(picture(compared, metric, setting_of(compared), "svg")).decode()
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in conclusions(frame, compared, key, metric))
    legend = f"{html.escape(metric)}, first less second; {LEGEND}; p after Holm's correction."
    shown = f'<figure><img alt="dot plot of the differences" src="data:image/svg+xml;base64,{image}"></figure>'
    head = f'<section id="comparison">\n<h2>Which {html.escape(key)} is better?</h2>\n'
    return f'{head}{shown}\n<ul>{lines}</ul>\n<p class="note">{legend}</p>\n</section>\n'


def page(data: dict[str, Any], section: str = "") -> bytes:
    """The template with ``data`` and a :func:`comparison` in it; no text of ``data`` can end the script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    before, after = TEMPLATE.read_text(encoding="utf-8").replace("{{comparison}}\n", section).split("{{data}}")
    return (before.replace("{{title}}", html.escape(data["title"])) + text + after).encode()
