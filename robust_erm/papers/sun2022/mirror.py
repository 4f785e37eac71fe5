"""Which margin mirror descent finds: p-GD beside steepest descent in the same norm."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from robust_erm.papers.claims import Claim, every
from robust_erm.papers.linear_margins import over_greatest, over_lp
from robust_erm.papers.matrices import SHOWN, of_own_norm, panels

RADII = {"l1.5": 1.5, "l2": 2.0, "l3": 3.0, "l6": 6.0}
LABELS = {**SHOWN, "l1.5": r"$\ell_{1.5}$", "l6": r"$\ell_6$"}
OWN = {
    "mirror_15": "l1.5", "mirror_2": "l2", "mirror_3": "l3", "mirror_6": "l6",
    "steepest_15": "l1.5", "steepest_3": "l3", "steepest_6": "l6",
}  # fmt: skip
NAMES = {
    name: f"p-GD, p = {RADII[own]:g}" if name.startswith("mirror") else f"l_{RADII[own]:g} descent"
    for name, own in OWN.items()
}
NEAR = 0.95


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """As :func:`robust_erm.papers.linear_margins.over_greatest`, over l_1.5, l_2, l_3 and l_6."""
    return over_greatest(runs, {name: over_lp(r) for name, r in RADII.items()})


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least margin on the training set, after the worst perturbation, per a norm of w, in percent of the greatest
    there is: a row for each optimizer, a column for each norm; left clean, right at half the l_inf margin. Mean over
    the draws and half of its 95 % interval. Framed: the norm of the optimizer, in bold the largest of its row.
    """
    parts = {
        "clean" if eps == 0 else rf"robust, $\ell_\infty$, {eps:g} $\epsilon^*$": table[table["eps"] == eps]
        for eps in sorted(set(table["eps"]))
    }
    return panels(parts, NAMES, [*RADII], OWN, LABELS)


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Each comes near the greatest margin of its own norm, and nearer than in any other."""
    found = []
    for eps in sorted(set(table["eps"])):
        for name in (name for name in NAMES if name in set(table["sweep"])):
            some = table[(table["sweep"] == name) & (table["eps"] == eps)]
            where = "abstract" if eps == 0 and name.startswith("mirror") else "ours"
            found += of_own_norm(some, NAMES[name], OWN[name], NEAR, where, f"{OWN[name]}, eps = {eps:g} eps*")
    return [*found, every("no run exceeds the oracle's margin", "ours", 1 - table["ratio"], -1e-6, "1 - ratio: ")]
