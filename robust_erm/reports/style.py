"""How all figures look, and how they are saved."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_erm.store.files import write_whole

# Okabe & Ito's colour-blind-safe palette, grey for its yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
# one for each optimizer in all pictures; those that share one do not stand together
OF_OPTIMIZER = {name: COLOURS[k] for k, name in enumerate(("gd", "sd", "spectral", "cd", "adam"))}
DASHES = ("-", "--", ":", "-.")
COLUMN, PAGE = 3.35, 6.8  # inches: one column of a paper, and two


def style() -> AbstractContextManager[Any]:
    """8 pt, no box around the axes."""
    return plt.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})


def colour(word: str, words: Sequence[str]) -> str:
    """Of an optimizer its own, alone or with options behind a comma; of others, and where two share one, by place."""
    own = [OF_OPTIMIZER.get(each.partition(",")[0]) for each in words]
    if None not in own and len(set(own)) == len(own):
        return OF_OPTIMIZER[word.partition(",")[0]]
    return COLOURS[list(words).index(word) % len(COLOURS)]


def over_steps(ax: Axes) -> None:
    """A log scale of steps, with step 0, drawn at 1/2, labelled so."""
    ax.set_xscale("log")
    last = max((float(np.max(line.get_xdata())) for line in ax.lines if np.size(line.get_xdata())), default=1.0)
    powers = range(max(1, math.floor(math.log10(max(last, 1)))) + 1)
    every = 1 if len(powers) <= 4 else 2
    labels = [f"$10^{{{k}}}$" if k > 1 else str(10**k) for k in powers]
    shown = [label if k % every == 0 else "" for k, label in zip(powers, labels, strict=True)]
    ax.set_xticks([0.5, *(10.0**k for k in powers)], ["0", *shown])


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.png (200 dpi) and ``stem``.pdf whole, close the figure, and return the paths.

    Where lines of an axis end outside of what it shows, the axis says how many. A legend that is wider than the figure
    gets more rows.
    """
    for ax in figure.axes:
        _say_cut_off(ax)
    _into_width(figure)
    paths = []
    for suffix in (".png", ".pdf"):
        path = stem.with_name(stem.name + suffix)
        write_whole(path, rendered(figure, suffix[1:]))
        paths.append(path)
    plt.close(figure)
    return paths


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as a ``png`` (200 dpi), ``pdf`` or ``svg``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=200)
    return buffer.getvalue()


def _into_width(figure: Figure) -> None:
    """Fewer columns for legends of the whole figure, below it, that it would cut off."""
    for legend in list(figure.legends):
        figure.draw_without_rendering()
        texts = legend.get_texts()
        columns = len({round(text.get_window_extent().x0) for text in texts})
        looks = {"frameon": legend.get_frame_on(), "fontsize": texts[0].get_fontsize() if texts else None}
        while legend.get_window_extent().width > figure.bbox.width and columns > 1:
            rows = math.ceil(len(texts) / (columns - 1))
            columns = math.ceil(len(texts) / rows)  # of about one length
            given: dict[str, Any] = {"handles": legend.legend_handles, "title": legend.get_title().get_text() or None}
            given |= {"labels": [text.get_text() for text in texts], "ncols": columns, **looks}
            legend.remove()
            legend = figure.legend(loc="outside lower center", **given)
            figure.draw_without_rendering()


def _say_cut_off(ax: Axes) -> None:
    lines = [line for line in ax.lines if line.get_linestyle() != "None" and np.size(line.get_ydata()) > 2]
    ends = [_end(line.get_xydata()) for line in lines]
    values = np.asarray([end for end in ends if end is not None])
    low, high = sorted(ax.get_ylim())
    for word, at, count in (("below", 0.04, int((values < low).sum())), ("above", 0.96, int((values > high).sum()))):
        if count:
            text = f"{count} of {len(ends)} lines end{'s' if count == 1 else ''} {word}"
            box = {"facecolor": "white", "alpha": 0.8, "pad": 1, "lw": 0}
            ax.text(0.02, at, text, fontsize=6, color="0.3", va="center", transform=ax.transAxes, bbox=box)


def _end(points: Any) -> float | None:
    """The last finite y of a line; None: there is none."""
    known = points[np.isfinite(points).all(axis=1)]
    return float(known[-1, 1]) if len(known) else None
