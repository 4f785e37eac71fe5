"""Robust accuracy and normalised margins against steps, one line for each run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from robust_erm.reports.style import COLOURS, DASHES, PAGE, colour, over_steps, style
from robust_erm.reports.tables import shown
from robust_erm.store.identity import COMPONENTS

LINES = 12  # in a figure; more cannot be told apart

PANELS = {
    "train_robust_acc": "robust train accuracy",
    "test_robust_acc": "robust test accuracy",
    "margin_robust_l2": r"robust margin $/\,\|\theta\|_2^L$",
    "margin_robust_linf": r"robust margin $/\,\|\theta\|_\infty^L$",
}


def curves(table: pd.DataFrame, keys: list[str]) -> Figure:
    """Four panels over steps (log scale, step 0 drawn at 1/2), a line for each setting.

    Where a setting has several seeds, the line is their mean and the band reaches from the least to
    the greatest; a run that has ended counts with its last value.

    Args:
        table: :func:`robust_erm.reports.tables.read_curves`.
        keys: the config columns that tell settings apart; the seed among them is averaged over.
    """
    panels = [column for column in PANELS if column in table]
    named = [key for key in keys if key != "seed"]
    settings = {
        _parts(group.iloc[0], named): group for _, group in table.groupby(named or "model", sort=False, dropna=False)
    }
    styles = _styles(list(settings))
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE, 4.6), layout="constrained")
        for parts, group in settings.items():
            colour, dash = styles[parts]
            for ax, column in zip(axes.flat, panels, strict=False):
                seeds = group.pivot_table(index="step", columns="folder", values=column).sort_index().ffill()
                mean, steps = seeds.mean(axis=1), seeds.index.to_series().clip(lower=0.5)
                ax.plot(steps, mean, dash, color=colour, lw=1.2)
                ax.plot(steps.iloc[-1:], mean.iloc[-1:], "o", color=colour, ms=2.5)
                if seeds.shape[1] > 1:
                    ax.fill_between(steps, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, lw=0)
        for ax, column in zip(axes.flat, panels, strict=False):
            over_steps(ax)
            ax.set_title(PANELS[column])
            ax.set_ylabel("margin" if column.startswith("margin") else "accuracy")
            if column.startswith("margin"):
                _show_positive(ax)
            else:
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for ax in list(axes.flat)[len(panels) :]:
            ax.set_axis_off()
        for ax in axes[-1]:
            ax.set_xlabel("step")
        if named:
            handles = [Line2D([], [], color=colour, ls=dash, lw=1.2) for colour, dash in styles.values()]
            labels = [", ".join(parts) for parts in styles]
            columns = 2 if len(labels) <= 4 else max(1, min(4, 96 // (max(map(len, labels)) + 8)))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _parts(head: pd.Series, keys: list[str]) -> tuple[str, ...]:
    """Components by their names, options by theirs: ``gd``, ``eps = 0.2``, ``m = 64``; dotted where two end alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    found = []
    for key, end in zip(keys, ends, strict=True):
        value = shown(head[key])
        if value == "null" and key.partition(".")[0] in COMPONENTS:
            continue  # an option of another component
        found.append(value if key in COMPONENTS else f"{end if ends.count(end) == 1 else key} = {value}")
    return tuple(found)


def _styles(settings: list[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, str]]:
    """Colour and dash of each setting: colour follows the first key and dash the rest, where they suffice."""
    firsts = list(dict.fromkeys(parts[:1] for parts in settings))
    rests = list(dict.fromkeys(parts[1:] for parts in settings))
    if len(firsts) <= len(COLOURS) and len(rests) <= len(DASHES):
        words = [first[0] if first else "" for first in firsts]
        return {s: (colour("".join(s[:1]), words), DASHES[rests.index(s[1:])]) for s in settings}
    many = len(COLOURS)
    return {s: (COLOURS[k % many], DASHES[k // many % len(DASHES)]) for k, s in enumerate(settings)}


def _show_positive(ax: Axes) -> None:
    """Margins start far below zero; what matters is how they end: show from slightly below zero."""
    top = max((float(np.nanmax(np.append(line.get_ydata(), 0.0))) for line in ax.lines), default=0.0)
    if top > 0:
        ax.set_ylim(-0.25 * top, 1.08 * top)
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
