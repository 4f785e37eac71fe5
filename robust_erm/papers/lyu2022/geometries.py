"""Which margin grows: Theorem 2 is a statement about gradient descent (ours).

Steepest descent of the parameters in some norm should maximise the least margin under the threat over that norm of the
parameters. In a deep linear network this is a norm of the product w: ``||w||_2`` for l_2 (GD) and for the largest
spectral norm of a layer, ``||w||_inf`` up to the width for l_inf (sign descent), ``||w||_1`` for l_1 (coordinate
descent): w of given norm of the parameters fill the ball of that norm.
"""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_erm.data.dataset import Array
from robust_erm.measures.norms import STANDARD
from robust_erm.oracles.robust_margin import robust_max_margin
from robust_erm.papers.claims import Claim, above, every
from robust_erm.papers.lyu2022.separators import apart, of_draws
from robust_erm.papers.reproduced import predictor, signed_points
from robust_erm.reports.style import COLOURS, DASHES, PAGE, over_steps, style
from robust_erm.reports.tables import read_curves

NAMES = {"gd": "GD", "spectral": "spectral", "sd": "sign descent", "cd": "coordinate descent",
         "sd_coarse": "sign descent, long steps", "cd_coarse": "coordinate descent, long steps"}  # fmt: skip
OWN = {"gd": "l2", "spectral": "l2", "sd": "linf", "cd": "l1", "sd_coarse": "linf", "cd_coarse": "l1"}
SHORT = {"sd_coarse": "sd", "cd_coarse": "cd"}  # the same with a tenth of the step
NORMS = {"l1": "1", "l2": "2", "linf": r"\infty"}


def best(z: Array, p: float, eps: float) -> dict[str, float]:
    """The greatest margin under an l_p threat of radius ``eps`` over ``||w||_r``, for each of the standard norms."""
    return {name: robust_max_margin(z, norm.r, p, eps).value for name, norm in STANDARD.items()}


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a measurement: sweep, depth, seed, step, ``log_loss``; ``l1``, ``l2``, ``linf``: the least margin under
    the threat over that norm of w, in parts of the greatest; at the last step also ``away``: 1 - cos of w and the l_2
    separator.
    """
    runs = runs.drop_duplicates("folder").reset_index(drop=True)
    known = of_draws(runs)
    draws = runs.drop_duplicates("seed")
    most = {
        int(run["seed"]): best(signed_points(run["folder"]), float(run["p"]), float(run["eps_absolute"]))
        for _, run in draws.iterrows()
    }
    curves = read_curves(runs)
    kept = curves[["sweep", "seed", "step", "log_loss", "folder"]].assign(depth=curves["model.depth"])
    for name in NORMS:
        kept[name] = curves[f"w_margin_under_train_{name}"] / kept["seed"].map({k: v[name] for k, v in most.items()})
    ends = {
        run["folder"]: float(
            apart(predictor(run["folder"]), known[float(run["p"]), float(run["eps"]), run["seed"]].plain)
        )
        for _, run in runs.iterrows()
    }
    at_end = kept["step"] == kept.groupby("folder")["step"].transform("max")
    kept["away"] = kept["folder"].map(ends).where(at_end)
    return kept.sort_values(["sweep", "depth", "seed", "step"]).reset_index(drop=True)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least margin under the l_2 threat, which is exact, over ||w||_1, ||w||_2 and ||w||_inf of the predictor, in
    parts of the greatest there is, against steps. Colours are geometries of descent, dashes depths; a geometry's own
    norm is drawn thick. Lines are means over the draws. GD lies below spectral descent.
    """
    shown = [name for name in NAMES if name in set(table["sweep"])]
    depths = sorted(table["depth"].unique())
    with style():
        fig, axes = plt.subplots(1, 3, figsize=(PAGE, 3.0), layout="constrained", sharey=True)
        for ax, (norm, label) in zip(axes, NORMS.items(), strict=True):
            for (sweep, layers), some in table[table["step"] > 0].groupby(["sweep", "depth"]):
                mean = some.groupby("step")[norm].mean()
                width = 1.4 if OWN[str(sweep)] == norm else 0.8
                dash = DASHES[depths.index(layers) % len(DASHES)]
                ax.plot(mean.index, mean, dash, color=COLOURS[shown.index(str(sweep))], lw=width)
            over_steps(ax)
            ax.axhline(1, color="0.6", lw=0.6)
            ax.set(xlim=(9, None), ylim=(0.3, 1.03), xlabel="step", title=rf"per $\|w\|_{{{label}}}$")
        axes[0].set_ylabel("robust margin / greatest")
        handles = [Line2D([], [], color=COLOURS[k], label=NAMES[name]) for k, name in enumerate(shown)]
        handles += [Line2D([], [], color="0.3", ls=DASHES[k], label=f"depth {n:g}") for k, n in enumerate(depths)]
        fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Of the last measurements; differences are means over the depths, an interval over the draws."""
    last = table.sort_values("step").groupby("folder").tail(1)
    found = [every("Every run separates its training points under the threat", "ours", last["l2"], 1e-9,
                   "robust margin over the greatest: ")]  # fmt: skip
    gd, base = _mean(last, "gd"), last[last["sweep"] == "gd"]
    for name, label in NAMES.items():
        own = last[last["sweep"] == name]
        if own.empty or name in SHORT:
            continue
        norm = OWN[name]
        where = "Thm 2" if name == "gd" else "ours"
        text = f"after {int(own['step'].max()):,} steps, ratio: "
        claim = f"{label} reaches the greatest robust margin per ||w||_{_plain(norm)}"
        found.append(every(claim, where, own[norm], 0.99, text, limit=True))
        if norm != "l2" and len(base):
            mine = _mean(last, name)
            text = f"ratio ({mine[norm].mean():.3f}) less GD's ({gd[norm].mean():.3f}): "
            claim = f"{label} finds more margin per ||w||_{_plain(norm)} than GD"
            found.append(above(claim, where, mine[norm] - gd[norm], 0.0, text, percent=False))
            text = f"GD's ratio ({gd['l2'].mean():.3f}) less its own ({mine['l2'].mean():.3f}): "
            claim = f"and less per ||w||_2: {label} does not tend to the separator of Thm 2"
            found.append(above(claim, where, gd["l2"] - mine["l2"], 0.0, text, percent=False))
    for name, short in SHORT.items():
        norm, long_steps, short_steps = OWN[name], _mean(last, name), _mean(last, short)
        ends = [last.loc[last["sweep"] == one, "log_loss"].median() for one in (short, name)]
        text = f"ratio with short steps ({short_steps[norm].mean():.3f}, median log L {ends[0]:.0f}) less with long "
        text += f"({long_steps[norm].mean():.3f}, {ends[1]:.0f}): "
        claim = f"With steps ten times as long {NAMES[short]} ends at less margin per ||w||_{_plain(norm)}"
        difference = (short_steps[norm] - long_steps[norm]).dropna()
        found.append(above(claim, "ours", difference, 0.0, text, percent=False))
    text = "cos: "
    claim = "GD and spectral descent end at the l_2 separator"
    away = last.loc[last["sweep"].isin(["gd", "spectral"]), "away"]
    return [*found, every(claim, "Thm 2; ours", 1 - away, 0.999, text, limit=True)]


def _mean(last: pd.DataFrame, sweep: str) -> pd.DataFrame:
    """The ratios of one sweep by draw, means over the depths."""
    return last[last["sweep"] == sweep].groupby("seed")[list(NORMS)].mean()


def _plain(norm: str) -> str:
    return norm.removeprefix("l")
