"""How all figures look, and how they are saved."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.store.files import write_whole

# Okabe & Ito's colour-blind-safe palette, grey for its yellow
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
DASHES = ("-", "--", ":", "-.")
COLUMN, PAGE = 3.35, 6.8  # inches: one column of a paper, and two


def style() -> AbstractContextManager[Any]:
    """8 pt, no box around the axes."""
    return plt.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.png (200 dpi) and ``stem``.pdf whole, close the figure, and return the paths."""
    paths = []
    for suffix in (".png", ".pdf"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=200)
        path = stem.with_name(stem.name + suffix)
        write_whole(path, buffer.getvalue())
        paths.append(path)
    plt.close(figure)
    return paths
