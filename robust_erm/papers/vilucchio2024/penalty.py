"""Which norm is best to penalise: the robust test accuracy of penalised robust training, by norm and radius."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from robust_erm.core.statistics import interval
from robust_erm.oracles.penalised import largest_penalty, last_direction, penalised
from robust_erm.oracles.risk import gaussian_accuracy
from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.reproduced import signed_points
from robust_erm.reports.style import COLOURS, PAGE, style
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

SHARES = np.logspace(-3, -0.1, 8)  # coefficients, in parts of the largest, from which on w = 0; and both their limits
GUESS = 0.5  # the robust accuracy of guessing: a sign, whatever the point
KEYS = ["sweep", "eps", "seed"]


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: sweep, m, eps (in margins), r, seed; robust test accuracies: ``limit`` of the oracle, where the
    penalty vanishes, and ``tuned``, the best of that, of those with a penalty and of the direction in which w vanishes;
    ``share``: its coefficient in parts of the largest, so 0 and 1 are limits; ``gap``: the largest duality gap.
    """
    rows = []
    for _, row in runs.iterrows():
        run, z = run_of(row["folder"]), signed_points(row["folder"])
        r, eps = float(row["optimizer.r"]), float(row["eps_absolute"])
        law = draw(run.data, run.seed).law
        assert law is not None
        most = largest_penalty(z, r, eps)
        found = [penalised(z, r, eps, share * most) for share in SHARES]
        by_share = {0.0: float(row["test_robust_acc"])}
        by_share |= {s: gaussian_accuracy(f.w, law.w_star, eps, np.inf) for s, f in zip(SHARES, found, strict=True)}
        by_share[1.0] = gaussian_accuracy(last_direction(z, r, eps), law.w_star, eps, np.inf)
        best = max(by_share, key=lambda share: by_share[share])
        each = {"sweep": row["sweep"], "m": len(z), "d": z.shape[1], "eps": row["eps"], "r": r, "seed": row["seed"]}
        each |= {"limit": by_share[0.0], "tuned": by_share[best], "share": best}
        rows.append(each | {"gap": max(f.gap for f in found)})
    return pd.DataFrame(rows).sort_values([*KEYS, "r"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Exact robust test accuracy less that of the l_2 penalty on the same draw, in points, against the radius in units
    of the training set's margin; a panel for each number of points. Lines with a tuned coefficient, dashed where the
    penalty vanishes; means over the draws with their 95 % intervals.
    """
    sweeps = list(dict.fromkeys(table.sort_values("m")["sweep"]))
    with style():
        fig, axes = plt.subplots(1, len(sweeps), figsize=(PAGE, 2.7), layout="constrained", sharey=True, squeeze=False)
        for ax, sweep in zip(axes[0], sweeps, strict=True):
            some = table[table["sweep"] == sweep]
            for k, r in enumerate(r for r in sorted(some["r"].unique()) if r < 2):
                for kind, dash in (("tuned", "-"), ("limit", "--")):
                    found = {e: interval(_less(some[some["eps"] == e], kind, r)) for e in sorted(some["eps"].unique())}
                    means, halves = np.array([*found.values()]).T
                    halves = np.where(np.isfinite(halves), halves, 0.0)
                    label = rf"$\ell_{{{r:g}}}$, {'tuned' if kind == 'tuned' else 'vanishing penalty'}"
                    ax.errorbar([*found], means, halves, ls=dash, marker="o", ms=2, lw=1, color=COLOURS[k], label=label)
            ax.axhline(0, color="0.6", lw=0.6)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            ax.set(xlabel=r"$\epsilon / \epsilon^*$", title=f"{some['m'].iloc[0]} points, d = {some['d'].iloc[0]}")
        axes[0, 0].set_ylabel(r"robust accuracy less $\ell_2$'s")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def _less(some: pd.DataFrame, kind: str, r: float) -> pd.Series:
    """The accuracy with the l_r penalty less that with the l_2 one, by draw."""
    by_r = some.pivot_table(index="seed", columns="r", values=kind)
    return by_r[r] - by_r[2.0]


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """The l_1 norm, dual to the threat's, against l_2: at no and at the largest radius, and which of all is best."""
    found, last, grown = [], table["eps"].max(), {}
    for sweep, some in table.groupby("sweep", sort=False):
        m = f"{some['m'].iloc[0]} points in R^{some['d'].iloc[0]}"
        for kind, word in (("tuned", "tuned"), ("limit", "vanishing penalty")):
            clean, robust = (_less(some[some["eps"] == e], kind, 1.0) for e in (0.0, last))
            where = "abstract, our reading" if kind == "tuned" else "ours"
            text = f"({word}, {m})"
            found.append(above(f"without an attack l_2 is better than l_1 {text}", where, -clean, 0.0, "l_2 - l_1: "))
            claim = f"at eps = {last:g} eps* l_1 is better than l_2 {text}"
            found.append(above(claim, where, robust, 0.0, "l_1 - l_2: "))
            claim = f"from eps = 0 to {last:g} eps* l_1 gains on l_2 {text}"
            grown[sweep, kind] = robust - clean
            found.append(above(claim, "abstract" if kind == "tuned" else "ours", robust - clean, 0.0, "gain: "))
            moved = _best(some[some["eps"] == 0], kind) - _best(some[some["eps"] == last], kind)
            claim = f"the best exponent r falls from eps = 0 to {last:g} eps* {text}"
            found.append(above(claim, where, moved, 0.0, "r at 0 - r at the largest: ", percent=False))
        most = some[some["eps"] == last].groupby("seed")["tuned"].max()
        claim = f"at eps = {last:g} eps* the best penalty is better than guessing ({m})"
        found.append(above(claim, "ours", most, GUESS))
    few, many = (sweep for sweep in dict.fromkeys(table.sort_values("m")["sweep"]))
    claim = "the fewer points, the more l_1 gains on l_2 (tuned)"
    found.append(above(claim, "abstract", grown[few, "tuned"] - grown[many, "tuned"], 0.0, "few - many: "))
    text = "1 - duality gap: "
    return [*found, every("the penalised problems are solved exactly", "ours", 1 - table["gap"], 1 - 1e-6, text)]


def _best(some: pd.DataFrame, kind: str) -> pd.Series:
    """The exponent with the greatest accuracy, by draw."""
    return some.pivot_table(index="seed", columns="r", values=kind).idxmax(axis=1)
