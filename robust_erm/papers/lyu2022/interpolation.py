"""What adversarial training of deep linear networks finds as an l_p threat grows: from one separator to another.

By App. B.5 the limit is ``argmax (min_i y_i <w, x_i> - eps ||w||_{p*}) / ||w||_2``. At eps = 0 it is the l_2 separator.
As eps tends to the l_p margin eps*, it is the separator of that margin (tsilivis2024 Lemma C.4). The least
``sum_k ||W_k||_F^2`` of a product w is ``L ||w||_2^{2/L}``, so that the depth L should not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.data.dataset import Array
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.lyu2022.separators import apart, depth, of_draws, separators
from robust_erm.papers.reproduced import predictor, signed_points
from robust_erm.reports.style import COLOURS, PAGE, style

KEYS = ["p", "eps", "seed"]
NEAR = 1e-3  # of eps*: how near to 0 and to eps* the exact separator is held against the two ends


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: p, eps (in l_p margins), seed, depth, ``log_loss``, and of its last predictor w

    - ``robust_acc``: the share of training points that stand the threat,
    - ``ratio``: its robust margin over ``||w||_2``, in parts of the greatest,
    - ``to_robust``, ``to_plain``, ``to_threat``: 1 - cos to the robust, the l_2 and the l_p separator,
    - ``first``: the same to the linear model's predictor,

    and ``oracle_plain``, ``oracle_threat``: 1 - cos of the robust separator itself to the two ends, ``ends``: of these;
    ``start``, ``end``: of the robust separators at :data:`NEAR` of eps*, and so near to it, to the ends there.
    """
    runs = runs.assign(depth=depth(runs)).drop_duplicates("folder")
    known = of_draws(runs)
    limits = _limits(runs)
    linear: dict[tuple[float, float, int], Array] = {}
    rows = []
    for _, run in runs.sort_values("depth").iterrows():
        key = (float(run["p"]), float(run["eps"]), int(run["seed"]))
        goal, w = known[key], predictor(run["folder"])
        base = linear.setdefault(key, w)
        row = dict(zip(KEYS, key, strict=True)) | {"depth": run["depth"], "log_loss": run["log_loss"]}
        row["start"], row["end"] = limits[key[0], key[2]]
        row |= {"robust_acc": run["train_robust_acc"], "ratio": run["w_margin_under_train_l2"] / goal.value}
        row |= {"to_robust": float(apart(w, goal.robust)), "to_plain": float(apart(w, goal.plain))}
        row |= {"to_threat": float(apart(w, goal.threat)), "first": float(apart(w, base))}
        row |= {"oracle_plain": float(apart(goal.robust, goal.plain)), "folder": run["folder"]}
        row |= {"oracle_threat": float(apart(goal.robust, goal.threat)), "ends": float(apart(goal.plain, goal.threat))}
        rows.append(row)
    return pd.DataFrame(rows).sort_values([*KEYS, "depth"]).reset_index(drop=True)


def _limits(runs: pd.DataFrame) -> dict[tuple[float, int], tuple[float, float]]:
    """``start`` and ``end`` of :func:`table` by p and seed."""
    found = {}
    for _, run in runs.drop_duplicates(["p", "seed"]).iterrows():
        z, p, most = signed_points(run["folder"]), float(run["p"]), float(run["eps_absolute"] / run["eps"])
        first, last = separators(z, p, NEAR * most), separators(z, p, (1 - NEAR) * most)
        both = float(apart(first.robust, first.plain)), float(apart(last.robust, last.threat))
        found[p, int(run["seed"])] = both
    return found


def _name(p: float) -> str:
    return r"\infty" if math.isinf(p) else f"{p:g}"


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Angles in degrees against eps in l_p margins, a panel for each threat: of the predictors that training reaches to
    the l_2 separator (circles, blue) and to the separator of the l_p margin (squares, orange), filled for a linear
    model, open for deep networks; lines: of the exact robust separator; grey: of the two ends. Crosses: of the
    predictors to the exact robust separator. Means over the draws, bars from the least to the greatest. The threat is
    exact: no attack finds a worse point.
    """
    threats = sorted(table["p"].unique(), reverse=True)
    with style():
        fig, axes = plt.subplots(1, len(threats), figsize=(PAGE, 2.7), layout="constrained", squeeze=False)
        depths = sorted(table["depth"].unique())
        for ax, p in zip(axes[0], threats, strict=True):
            some = table[table["p"] == p]
            lines = some.groupby("eps")
            for end, colour, marker in (("plain", COLOURS[0], "o"), ("threat", COLOURS[1], "s")):
                mean = lines[f"oracle_{end}"].agg(_angle)
                ax.plot(mean.index, mean, "-", color=colour, lw=0.9)
                for k, layers in enumerate(depths):
                    at = some[some["depth"] == layers].groupby("eps")[f"to_{end}"]
                    mean, shift = at.agg(_angle), 0.012 * (k - (len(depths) - 1) / 2)
                    low, high = _degrees(at.min()), _degrees(at.max())
                    bars = np.maximum([mean - low, high - mean], 0)
                    fill = colour if layers == 1 else "none"
                    ax.errorbar(
                        mean.index + shift, mean, bars, fmt=marker, ms=3 + k, mew=0.7, lw=0.5, color=colour, mfc=fill
                    )
            own = some.groupby("eps")["to_robust"].agg(_angle)
            ax.plot(own.index, own, "x", color=COLOURS[2], ms=4, mew=0.9)
            ax.axhline(_angle(some["ends"]), color="0.6", lw=0.6)
            ax.set(xlabel=rf"$\epsilon$ / $\ell_{{{_name(p)}}}$ margin", xlim=(0, 1), ylim=(-1, None))
            ax.set_title(rf"threat $\ell_{{{_name(p)}}}$")
        axes[0, 0].set_ylabel("angle, degrees")
        handles = [Line2D([], [], color=COLOURS[0], marker="o", ms=3, lw=0.9, label=r"to the $\ell_2$ separator"),
                   Line2D([], [], color=COLOURS[1], marker="s", ms=3, lw=0.9, label=r"to the $\ell_p$ margin's"),
                   Line2D([], [], color=COLOURS[2], marker="x", ms=4, ls="", label="to the robust separator"),
                   Line2D([], [], color="0.6", lw=0.6, label="between the ends")]  # fmt: skip
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def _degrees(less: pd.Series) -> pd.Series:
    """Angles of ``1 - cos``, in degrees."""
    found: pd.Series = np.degrees(2 * np.arcsin(np.sqrt(less / 2)))
    return found


def _angle(less: pd.Series) -> float:
    return float(_degrees(less).mean())


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """One each for every threat; the exact separators are judged as theorems, training as a limit."""
    found = []
    for p, some in table.sort_values("eps").groupby("p", sort=False):
        name = f"l_{p:g} threat"
        each = some.drop_duplicates(KEYS)  # of the exact separators
        text = f"1 less the angle to it over that between the ends, {_angle(each['ends']):.2g}° on average: "
        draws = each.drop_duplicates("seed")
        first, last = (1 - _degrees(draws[end]) / _degrees(draws["ends"]) for end in ("start", "end"))
        found += [
            every(f"{name}: every run comes to stand it on all training points", "Assumption 4", some["robust_acc"],
                  1.0, "share: ", limit=True),
            every(f"{name}: training finds the direction of the exact robust separator, at every eps and depth",
                  "App. B.5, Remark 2", 1 - some["to_robust"], 0.999, "cos: ", limit=True),
            every(f"{name}: depth does not matter", "ours", 1 - some.loc[some["depth"] > 1, "first"], 0.999,
                  "cos to the linear model's predictor: ", limit=True),
            every(f"{name}: the greater eps, the further is the separator from the l_2 one", "ours",
                  _rises(each, "oracle_plain"), -1e-7, "least change of cos with eps, sign turned: "),
            every(f"{name}: and the nearer to that of the l_{p:g} margin", "ours", _rises(each, "oracle_threat", -1),
                  -1e-7, "least change of cos with eps: "),
            every(f"{name}: at {NEAR:g} eps* it is the l_2 separator", "ours", first, 0.95, text, limit=True),
            every(f"{name}: at {1 - NEAR:g} eps* it is that of the l_{p:g} margin", "tsilivis2024 Lemma C.4", last,
                  0.95, text, limit=True),
        ]  # fmt: skip
    return found


def _rises(each: pd.DataFrame, column: str, sign: int = 1) -> Iterable[float]:
    """The least step of ``sign`` times the column from one eps to the next, draw by draw."""
    for _, some in each.sort_values("eps").groupby("seed"):
        yield float((sign * np.diff(some[column])).min())
