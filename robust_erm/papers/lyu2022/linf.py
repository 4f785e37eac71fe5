"""Appendix B.5: under an l_inf threat deep linear networks tend to another separator than standard training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.lyu2022.separators import apart, depth, of_draws, path
from robust_erm.papers.reproduced import predictor
from robust_erm.reports.style import COLOURS, PAGE, over_steps, style
from robust_erm.reports.tables import read_curves

MAIN = ("linear", "deep")  # the sweeps whose limits are compared
SHARE = 0.5  # of the l_inf margin: the radius that they are judged at


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: sweep, depth, eps (in l_inf margins), seed, step, ``log_loss``, and

    - ``robust_acc``: the share of training points that stand the threat of training,
    - ``margin``: the least margin under the exact threat, over ``||w||_2``, and ``ratio`` to the greatest there is,
    - ``strong``: the ratio under PGD instead,
    - ``to_robust``, ``to_plain``: 1 - cos of w and the separators of eq. (141) at that eps, and of the l_2 margin.

    Separators: at the radius of the evaluation. Ratios and cosines are nan at eps beyond the margin.
    """
    runs = runs.assign(depth=depth(runs), trained=runs["eps"]).drop_duplicates("folder").reset_index(drop=True)
    judged = runs[runs["eval_eps"] < 1].assign(eps=runs["eval_eps"], eps_absolute=runs["eval_eps_absolute"])
    known = of_draws(judged)
    rows = []
    for folder, curve in read_curves(runs).groupby("folder", sort=False):
        one, by_step = curve.iloc[0], curve.set_index("step")
        goal = known.get((float(one["p"]), float(one["eval_eps"]), int(one["seed"])))
        for step, w in zip(*path(str(folder)), strict=True):
            at = by_step.loc[step]
            row = {"sweep": one["sweep"], "depth": one["depth"], "eps": one["trained"], "seed": one["seed"]}
            row |= {"step": step, "log_loss": at["log_loss"], "robust_acc": at["train_robust_acc_train"]}
            row["margin"] = at["w_margin_under_train_l2"]
            if goal is not None:
                row |= {"ratio": row["margin"] / goal.value, "strong": at["w_margin_under_strong_l2"] / goal.value}
                row |= {"to_robust": float(apart(w, goal.robust)), "to_plain": float(apart(w, goal.plain))}
            rows.append(row | {"folder": folder})
    return pd.DataFrame(rows).sort_values(["sweep", "depth", "eps", "seed", "step"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left: the least margin under the l_inf threat over ||w||_2, in parts of the greatest there is, against steps; for
    adversarial training at half the l_inf margin (solid) and standard training (dashed) judged at the same radius.
    Crosses: PGD instead of the closed form. Right: 1 - cos to the robust separator of eq. (141) (solid: adversarial
    training, dashed: standard) and, of adversarial training, to the l_2 separator (dotted). Lines are means over the
    draws, bands reach from the least to the greatest; colours are depths.
    """
    main = table[table["sweep"].isin(MAIN) & (table["step"] > 0)]
    depths = sorted(main["depth"].unique())
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 2.9), layout="constrained")
        for (layers, eps), some in main.groupby(["depth", "eps"]):
            colour, dash = COLOURS[depths.index(layers)], "-" if eps else "--"
            by_step = some.groupby("step")
            lines = [(axes[0], "ratio", dash), (axes[1], "to_robust", dash)]
            for ax, column, kind in lines + ([(axes[1], "to_plain", ":")] if eps else []):
                mean = by_step[column].mean()
                ax.plot(mean.index, mean, kind, color=colour, lw=1)
                ax.fill_between(mean.index, by_step[column].min(), by_step[column].max(), color=colour, alpha=0.1, lw=0)
            strong = by_step["strong"].mean().iloc[::5]
            axes[0].plot(strong.index, strong, "x", color=colour, ms=3, mew=0.7)
        for ax in axes:
            over_steps(ax)
            ax.set_xlim(9, None)
            ax.set_xlabel("step")
        axes[0].axhline(1, color="0.6", lw=0.6)
        axes[0].set(ylim=(-1, 1.1), ylabel="robust margin / greatest")
        axes[1].set(yscale="log", ylabel="1 - cos")
        handles = [Line2D([], [], color=COLOURS[k], label=f"depth {n}") for k, n in enumerate(depths)]
        handles += [Line2D([], [], color="0.3", ls="-", label="adversarial"),
                    Line2D([], [], color="0.3", ls="--", label="standard"),
                    Line2D([], [], color="0.3", ls=":", label=r"to the $\ell_2$ separator"),
                    Line2D([], [], color="0.3", ls="", marker="x", ms=3, label="PGD")]  # fmt: skip
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of the last measurement of every run; differences are means over the depths, an interval over the draws."""
    last = table.sort_values("step").groupby("folder").tail(1)
    main, constant, near = (last[last["sweep"].isin(names)] for names in (MAIN, ["constant"], ["near"]))
    beyond, worse = table.loc[table["sweep"] == "beyond", "margin"], (table["strong"] - table["ratio"]).dropna()
    trained, standard = main[main["eps"] > 0], main[main["eps"] == 0]
    reached = [
        every("Adversarial training of linear and deep linear networks reaches the greatest margin under the threat "
              "per ||w||_2, which solves (140) and (141)", "App. B.5", trained["ratio"], 0.99, "ratio: ", limit=True),
        every("Its direction is that of the solution", "App. B.5", 1 - trained["to_robust"], 0.999, "cos: ",
              limit=True),
        every("So it is with plain GD, steps of 0.1 on the loss (depth 2)", "App. B.5", constant["ratio"], 0.99,
              "ratio: ", limit=True),
        every("Standard training tends to the l_2 separator", "Sec. 3.1", 1 - standard["to_plain"], 0.999, "cos: ",
              limit=True),
    ]  # fmt: skip
    gain = _per_draw(trained, "ratio") - _per_draw(standard, "ratio")
    text = "robust margin over the greatest, adversarial less standard training: "
    claim = "Standard training's boundary is less robust under that threat"
    apart_by = _angles(trained, standard)
    return [
        *reached,
        above("Adversarial training leads to a different decision boundary: by more than a degree", "App. B.5",
              apart_by, 1.0, "angle between the two predictors in degrees: ", percent=False),
        above(claim, "App. B.5", gain, 0.0, text, percent=False),
        every("Depth does not matter: predictors of one draw agree across depths", "ours", _across(trained), 0.999,
              "least cosine of a draw: ", limit=True),
        every("Below the l_inf margin, at 0.9 of it, every training point comes to stand the threat", "eq. (142)",
              near["robust_acc"], 1.0, "share: ", limit=True),
        every("Beyond it, at 1.1, never: the least margin is not positive at any step", "eq. (142)",
              -beyond, 0.0, "minus the least margin: "),
        every("PGD finds no worse point than the closed form (139), at any measurement", "eq. (139)",
              worse, -1e-9, f"margin under PGD less exact; at the end {_close(last)}; "),
    ]  # fmt: skip


def _per_draw(some: pd.DataFrame, column: str) -> pd.Series:
    return some.groupby("seed")[column].mean()


def _angles(trained: pd.DataFrame, standard: pd.DataFrame) -> list[float]:
    """Mean over the depths of the angle between the two predictors of one start, in degrees; one for each draw."""
    ends = standard.set_index(["depth", "seed"])["folder"]
    pairs = zip(trained["depth"], trained["seed"], trained["folder"], strict=True)
    cos = [
        (seed, 1 - float(apart(predictor(folder), predictor(ends[layers, seed]))))
        for layers, seed, folder in pairs
        if (layers, seed) in ends.index
    ]
    found = pd.DataFrame(cos, columns=["seed", "cos"])
    return list(np.degrees(np.arccos(found["cos"])).groupby(found["seed"]).mean())


def _across(trained: pd.DataFrame) -> list[float]:
    """The least cosine of two predictors of one draw, whatever their depths."""
    found = []
    for _, some in trained.groupby("seed"):
        w = [predictor(folder) for folder in some["folder"]]
        found += [min(1 - float(apart(a, b)) for a in w for b in w)]
    return found


def _close(last: pd.DataFrame) -> str:
    known = last.dropna(subset=["strong", "ratio"])
    return f"at most {(known['strong'] - known['ratio']).max():.2g} of the greatest margin more"
