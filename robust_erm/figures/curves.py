"""Robust accuracy and normalised margins against steps, one line for each run."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_erm.run_folder import write_whole

# Okabe & Ito's colour-blind-safe palette
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_MANY = 12  # lines; more get no legend entry of their own

PANELS = {
    "train_robust_acc": "robust train accuracy",
    "test_robust_acc": "robust test accuracy",
    "margin_robust_l2": r"robust margin $/\,\|\theta\|_2^L$",
    "margin_robust_linf": r"robust margin $/\,\|\theta\|_\infty^L$",
}


def curves(table: pd.DataFrame, keys: list[str]) -> Figure:
    """Four panels over steps (log scale, step 0 drawn at 1/2).

    Args:
        table: :func:`robust_erm.results.read_curves`.
        keys: the config columns that name the lines; colour follows the first, dashes the rest.
    """
    panels = [column for column in PANELS if column in table]
    with plt.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(2, 2, figsize=(6.8, 4.6), layout="constrained")
        colours: dict[str, str] = {}
        dashes: dict[tuple[str, ...], str] = {}
        for _, run in table.groupby("folder", sort=False):
            head = run.iloc[0]
            parts = tuple(f"{k}={head[k]:g}" if isinstance(head[k], float) else f"{k}={head[k]}" for k in keys)
            colour = colours.setdefault(parts[0] if parts else "", COLOURS[len(colours) % len(COLOURS)])
            dash = dashes.setdefault(parts[1:], ("-", "--", ":", "-.")[len(dashes) % 4])
            for ax, column in zip(axes.flat, panels, strict=False):
                label = ", ".join(parts) if parts else "run"
                steps = run["step"].clip(lower=0.5)
                ax.plot(steps, run[column], dash, color=colour, lw=1.2, label=label)
                ax.plot(steps.iloc[-1:], run[column].iloc[-1:], "o", color=colour, ms=2.5)
        for ax, column in zip(axes.flat, panels, strict=False):
            ax.set(xscale="log", title=PANELS[column])
            if column.startswith("margin"):
                _show_positive(ax)
            else:
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for ax in list(axes.flat)[len(panels) :]:
            ax.set_axis_off()
        for ax in axes[-1]:
            ax.set_xlabel("step")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        if len(labels) > _MANY:  # one entry for each colour
            handles = [Line2D([], [], color=colour) for colour in colours.values()]
            labels = list(colours)
        if any(labels) and len(labels) <= _MANY:
            columns = 2 if len(labels) <= 4 else max(1, min(4, 96 // (max(map(len, labels)) + 8)))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _show_positive(ax: Axes) -> None:
    """Margins start far below zero; what matters is how they end: show from slightly below zero."""
    top = max((float(np.nanmax(np.append(line.get_ydata(), 0.0))) for line in ax.lines), default=0.0)
    if top > 0:
        ax.set_ylim(-0.25 * top, 1.08 * top)
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.png (200 dpi) and ``stem``.pdf whole, close the figure, and return the paths."""
    paths = []
    for suffix in (".png", ".pdf"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=200)
        path = stem.with_suffix(suffix)
        write_whole(path, buffer.getvalue())
        paths.append(path)
    plt.close(figure)
    return paths
