"""A picture of what optimizers find: a row for each, a column for each norm, in percent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

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
