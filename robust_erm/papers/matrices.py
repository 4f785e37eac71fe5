"""What optimizers find, by norm: a picture with a row for each and a column for each norm, and the claims about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robust_erm.core.statistics import interval
from robust_erm.papers.claims import Claim, above
from robust_erm.reports.style import PAGE, style

SHOWN = {"l1": r"$\ell_1$", "l2": r"$\ell_2$", "l3": r"$\ell_3$", "linf": r"$\ell_\infty$"}
HEIGHT, AROUND = 0.24, 0.9  # inches, of a row and of what is around them


def matrix(
    ax: Axes,
    found: Mapping[tuple[str, str], tuple[float, float]],
    rows: Mapping[str, str],
    norms: Sequence[str],
    own: Mapping[str, str],
    beside: Sequence[str] = (),
    labels: Mapping[str, str] = SHOWN,
) -> None:
    """Mean and half of an interval in each cell, "-" where there is none; framed: a row's own norm, bold its largest.

    Args:
        ax: where.
        found: (row, column) -> (mean, half), in parts of one.
        rows: key and label, from above.
        norms: columns, shaded by their means.
        own: the norm of each row.
        beside: columns after those, neither shaded nor compared.
        labels: of columns that are not called by their own names.
    """
    missing = (math.nan, math.nan)
    grid = [[found.get((row, norm), missing)[0] for norm in norms] for row in rows]
    ax.imshow([means + [0.0] * len(beside) for means in grid], vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto")
    for i, row in enumerate(rows):
        for j, column in enumerate([*norms, *beside]):
            mean, half = found.get((row, column), missing)
            shaded = j < len(norms)
            weight = "bold" if shaded and mean == max(grid[i]) else "normal"
            colour = "white" if shaded and mean > 0.6 else "black"
            text = f"{100 * mean:.0f}±{100 * half:.0f}" if math.isfinite(mean) else "-"
            ax.text(j, i, text, ha="center", va="center", fontsize=5.5, weight=weight, color=colour)
            if own[row] == column:
                ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, ec="C3", lw=1.2))
    names = [*norms, *beside]
    ax.set(xticks=range(len(names)), xticklabels=[labels.get(name, name) for name in names])
    ax.set(yticks=range(len(rows)), yticklabels=[*rows.values()])
    ax.tick_params(length=0)
    ax.grid(visible=False)


def panels(
    parts: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    norms: Sequence[str],
    own: Mapping[str, str],
    labels: Mapping[str, str] = SHOWN,
) -> Figure:
    """A :func:`matrix` for each part of a table with columns sweep, norm and ratio, by title.

    Args:
        parts: title and rows.
        names: sweeps and their labels, from above; those that no part has are left out.
        norms: columns.
        own: the norm of a sweep, where it has one.
        labels: of columns.
    """
    found = {str(sweep) for some in parts.values() for sweep in some["sweep"]}
    rows = {name: label for name, label in names.items() if name in found}
    with style():
        size = PAGE, HEIGHT * len(rows) + AROUND
        fig, axes = plt.subplots(1, len(parts), figsize=size, layout="constrained", sharey=True, squeeze=False)
        for ax, (title, some) in zip(axes[0], parts.items(), strict=True):
            cells = {
                (name, norm): interval(list(some.loc[(some["sweep"] == name) & (some["norm"] == norm), "ratio"]))
                for name in rows
                for norm in norms
            }
            matrix(ax, cells, rows, norms, {name: own.get(name, "") for name in rows}, labels=labels)
            ax.set_title(title)
    return fig


def of_own_norm(some: pd.DataFrame, name: str, own: str, near: float, where: str, text: str) -> list[Claim]:
    """That ``name`` comes to ``near`` of the greatest margin in its own norm, and nearer than in any other.

    Args:
        some: rows of one sweep: seed, norm and ratio.
        name: as the claim has it.
        own: the norm.
        near: in parts of one.
        where: whose claim it is.
        text: in brackets after it.
    """
    by_norm = some.pivot_table(index="seed", columns="norm", values="ratio")
    others = by_norm.drop(columns=own).T.max()
    claim = f"{name} comes to {100 * near:g} % of the greatest margin in its own norm ({text})"
    nearer = f"{name} is nearer to the greatest margin of its own norm than of any other ({text})"
    return [
        above(claim, where, by_norm[own], near),
        above(nearer, where, by_norm[own] - others, 0.0, "own - best other: "),
    ]
