"""Does momentum change which margin is maximised: smooth homogeneous networks, clean and robust."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_erm.core.statistics import interval
from robust_erm.papers.claims import Claim, above, every, excess, within
from robust_erm.papers.homogeneous import along, gaps
from robust_erm.papers.matrices import AROUND, HEIGHT, matrix
from robust_erm.reports.style import PAGE, style

NAMES = {
    "gd": "GD, normalized", "nmd": "GD, momentum", "sd": "sign descent", "signum": "Signum", "adam": "Adam",
    "spectral": "spectral descent", "muon": "Muon", "hybrid": "spectral and sign", "muon_signum": "Muon-Signum",
}  # fmt: skip
OWN = {
    "gd": "l2", "nmd": "l2", "sd": "linf", "signum": "linf", "adam": "linf", "spectral": "spectral",
    "muon": "spectral", "hybrid": "hybrid", "muon_signum": "hybrid",
}  # fmt: skip
WITHOUT = {
    "nmd": "gd",
    "signum": "sd",
    "adam": "sd",
    "muon": "spectral",
    "muon_signum": "hybrid",
}  # the same, no memory
NORMS = tuple(dict.fromkeys(OWN.values()))
SAME, NEAR = 0.05, 0.05


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run that comes to L < 1, at its end: sweep, eps, seed, step, ``log_loss``; of each norm ``hard_<norm>``
    and ``soft_<norm>`` (:func:`robust_erm.papers.homogeneous.along`), and ``share_<norm>``, the hard one over the
    greatest of all optimizers on that draw; ``gap``, what is missed to first order of the margin over its own norm.
    """
    ends = along(runs, NORMS).sort_values("step").groupby("folder", sort=False).tail(1)
    for norm in NORMS:
        ends[f"share_{norm}"] = ends[f"hard_{norm}"] / ends.groupby(["eps", "seed"])[f"hard_{norm}"].transform("max")
    last = gaps(runs, OWN, looks=1)
    return ends.merge(last[["folder", "gap"]], on="folder", validate="one_to_one").reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least margin on the training set, after the attack of training, over the square of a norm of theta, in
    percent of the greatest that any of these optimizers finds on the draw; left clean, right robust. Mean over the
    draws and half of its 95 % interval. Framed: the norm of the optimizer's own geometry, in bold the largest of its
    row. Last column: what is missed to first order of the margin over the optimizer's own norm, 0 at a KKT point.
    """
    radii = sorted(table["eps"].unique())
    rows = {name: label for name, label in NAMES.items() if name in set(table["sweep"])}
    columns = {f"share_{norm}": norm for norm in NORMS} | {"gap": "missed"}
    with style():
        size = PAGE, HEIGHT * len(rows) + AROUND
        fig, axes = plt.subplots(1, len(radii), figsize=size, layout="constrained", sharey=True, squeeze=False)
        for ax, eps in zip(axes[0], radii, strict=True):
            by = table[table["eps"] == eps].groupby("sweep")
            found = {(str(row), name): interval(some[c]) for row, some in by for c, name in columns.items()}
            matrix(ax, found, rows, NORMS, OWN, ["missed"])
            ax.set_title("clean" if eps == 0 else rf"robust, $\ell_\infty$, $\epsilon$ = {eps:g}")
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """At the last step of each run, pairs by seed; a KKT point that is not near leaves a claim undecided."""
    came = runs["folder"].isin(table["folder"]).astype(float)
    found = [every("Every run comes to L < 1, where all points are right", "ours", came, 1.0, "1 where so: ")]
    for eps in sorted(table["eps"].unique()):
        some, where = table[table["eps"] == eps], "abstract" if eps == 0 else "ours"
        for name in (name for name in NAMES if name in set(some["sweep"])):
            own, norm = some[some["sweep"] == name].set_index("seed"), OWN[name]
            about = f"({norm}, eps = {eps:g})"
            text = f"{100 * NEAR:g} % less what is missed of the margin: "
            claim = f"{name} ends near a KKT point in its own norm {about}"
            found.append(every(claim, where, NEAR - own["gap"], 0.0, text, limit=True))
            others = some[some["sweep"].map(OWN) != norm].groupby("seed")[f"hard_{norm}"].max()
            claim = f"{name} has more margin in its own norm than any optimizer of another {about}"
            over = excess(own[f"hard_{norm}"], others)
            found.append(above(claim, where, over, 0.0, "over the best other's, less 1: ", percent=False))
            if (other := WITHOUT.get(name)) in set(some["sweep"]):
                plain = some[some["sweep"] == other].set_index("seed")
                claim = f"{name} ends at the margin of {other}, which has no memory {about}"
                over = excess(own[f"hard_{norm}"], plain[f"hard_{norm}"])
                found.append(within(claim, where, over, SAME, "over its, less 1: "))
                claim = f"{name} ends nearer to a KKT point than {other} {about}"
                nearer = (plain["gap"] - own["gap"]).dropna()
                found.append(above(claim, "ours", nearer, 0.0, "missed by it, less what is missed with memory: "))
    return found
