"""Theorem 4: which normalised margin never decreases, under which attack, and at which steps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from robust_erm.attacks.attack import Attack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.margins import margin
from robust_erm.core.params import Params
from robust_erm.data.dataset import Array
from robust_erm.evaluation.certificates import certified
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.lyu2022.flow import Path, paths
from robust_erm.reports.style import COLOURS, PAGE, style

LOOKS = 40  # measurements of a run at which more is looked at
_STEP = 1e-6  # of the flow, relative to the length of theta: for central differences
_SMOOTH = 0.01  # relative: two central differences that agree to this have no kink in between


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a look, some forty of a run after L < 1 / n: margins over ``rho``, the product of the layers' norms,
    under the training attack.

    ``smoothed``: ``-ln(n L) / rho``; ``hard``: the least; ``strong``: the least under PGD with 50 steps; ``certified``,
    a lower bound on what any attack leaves (:func:`robust_erm.evaluation.certificates.certified`). ``rate``, the left
    side of (18), ``sum_i e^{-gamma_i} d gamma_i / dt`` of normalised margins along the flow, nan where a kink is near;
    ``identity``, its relative difference from what (121) says it is; ``gap``, ``rho`` times the second least less the
    least normalised margin, and ``rises``, d/dt of the least. ``smoothed_largest``, ...: of :func:`falls`, over all
    measurements of the run (``strong``: over the looks).
    """
    rows = []
    for setting, path in paths(runs):
        late = np.arange(path.onset, len(path.steps))
        if not len(late):
            rows.append({**setting, "fitted": False})
            continue
        smoothed, hard = path.smoothed.numpy()[late], (path.margins.amin(1) / path.rho).numpy()[late]
        at = late[np.unique(np.linspace(0, len(late) - 1, min(LOOKS, len(late))).astype(int))]
        looks = [_look(path, int(k)) for k in at]
        curves = {"smoothed": smoothed, "hard": hard, "strong": np.array([look["strong"] for look in looks])}
        of_run = {f"{c}_{what}": value for c, x in curves.items() for what, value in falls(x).items()}
        for k, look in zip(at, looks, strict=True):
            now = {"step": path.steps[k], "log_loss": float(path.loss_and_grad[0][k])}
            here = {"smoothed": float(path.smoothed[k]), "hard": float(path.margins[k].min() / path.rho[k])}
            rows.append({**setting, "fitted": True, **now, **here, **look, **of_run})
    looked = ["step", "log_loss", "smoothed", "hard", "strong", "certified", "gap", "rate", "rises", "identity"]
    whole = [f"{curve}_{what}" for curve in ("smoothed", "hard", "strong") for what in ("largest", "share", "kept")]
    return pd.DataFrame(rows, columns=["sweep", "seed", "folder", "fitted", *looked, *whole])


def falls(x: Array) -> dict[str, float]:
    """The ``largest`` fall of x from one measurement to the next, over its greatest value; the ``share`` of intervals
    in which it falls; and ``kept``, its last value over its greatest.
    """
    down = np.maximum(-np.diff(x), 0) / x.max() if len(x) > 1 else np.zeros(1)
    return {"largest": float(down.max()), "share": float((down > 0).mean()), "kept": float(x[-1] / x.max())}


def _look(path: Path, k: int) -> dict[str, float]:
    """At the k-th snapshot: see :func:`table`."""
    theta, rho = path.theta[k], float(path.rho[k])
    normal = (path.margins[k] / rho).sort().values
    strong = _strong(path)
    worst = path.margins[k] if strong is None else path.margins_at(path.theta[k : k + 1], strong)[0]
    found = {
        "strong": float(torch.minimum(worst, path.margins[k]).min()) / rho,
        "gap": rho * float(normal[1] - normal[0]),
    }
    low, _ = certified(path.recipe, theta, path.batch.x, path.batch.y, float(path.batch.eps), None)
    found["certified"] = float(low.min()) / rho
    weights = (-path.margins[k]).softmax(0)  # e^{-gamma_i} over their sum: signs and quotients do not change
    velocity = -path.loss_and_grad[1][k]  # of the flow of log L, which has the path of that of L
    h = _STEP * float(theta.norm() / velocity.norm())
    rate, rises = _difference(path, k, weights, velocity, h)
    again, _ = _difference(path, k, weights, velocity, h / 10)
    smooth = abs(rate - again) <= _SMOOTH * abs(rate)
    found |= {"rate": rate, "rises": rises, "identity": abs(rate / _said(path, k, weights) - 1)}
    return found if smooth else {**found, **dict.fromkeys(("rate", "rises", "identity"), math.nan)}


def _difference(path: Path, k: int, weights: Tensor, velocity: Tensor, h: float) -> tuple[float, float]:
    """Central differences, over time 2 h, of normalised margins, each attacked anew: weighted sum, and the least's."""
    around = torch.stack([path.theta[k] - h * velocity, path.theta[k] + h * velocity])
    before, after = path.margins_at(around) / path.rho_at(around).unsqueeze(1)
    moved = (after - before) / (2 * h)
    return float((weights * moved).sum()), float(moved[path.margins[k].argmin()])


def _said(path: Path, k: int, weights: Tensor) -> float:
    """The right side of (121), over what ``weights`` and the flow of log L are short of: ``sum_k ||A_k g_k||^2 / rho``.

    ``g_k = sum_i weights_i d gamma_i / d W_k`` at fixed x', A_k the projection off W_k.
    """
    params = {name: p.clone().requires_grad_() for name, p in path.params(k).items()}
    gamma = margin(path.recipe.model.apply(params, path.attacked(path.theta[k])), path.batch.y)
    slopes: Params = dict(zip(params, torch.autograd.grad((weights * gamma).sum(), list(params.values())), strict=True))
    total = 0.0
    for name, p in path.params(k).items():
        unit = p / p.norm()
        total += float((slopes[name] - (slopes[name] * unit).sum() * unit).square().sum())
    return total / float(path.rho[k])


def _strong(path: Path) -> Attack | None:
    """PGD with 50 steps in the norm of the run's threat; None where the attack is exact or there is none."""
    own = path.run.attack
    return None if own.closed_form or float(path.batch.eps) == 0 else PGD(own.p, steps=50, relative_step=0.1)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Left: normalised margins against minus the log of the loss, after L < 1 / n, of one draw: smoothed (solid), hard
    under the attack of training (dashed), hard under PGD with 50 steps (dotted), and a certified lower bound on it
    (dash-dotted); colours are the attack of training. Right: the largest fall of the smoothed (circles) and of the hard
    margin (squares) from one measurement to the next, over its greatest value, a mark a draw, at coarse steps (filled)
    and ten times shorter ones (open); 1e-9 stands for none.
    """
    table = table[table["fitted"]]
    names = [name for name in dict.fromkeys(table["sweep"]) if not name.startswith("fine_")]
    with style():
        fig, axes = plt.subplots(1, 2, figsize=(PAGE, 3.0), layout="constrained")
        first = table[table["seed"] == table["seed"].min()]
        for k, name in enumerate(names):
            run = first[first["sweep"] == name]
            for column, dash in (("smoothed", "-"), ("hard", "--"), ("strong", ":"), ("certified", "-.")):
                label = name.replace("_", " ") if column == "smoothed" else None
                axes[0].plot(-run["log_loss"], run[column], dash, color=COLOURS[k], lw=0.9, label=label)
        for _, run in table.groupby("folder").first().iterrows():
            name = str(run["sweep"])
            coarse, at = not name.startswith("fine_"), names.index(name.removeprefix("fine_"))
            for column, marker, shift in (("smoothed", "o", -0.12), ("hard", "s", 0.12)):
                height, colour = max(run[f"{column}_largest"], 1e-9), COLOURS[0 if coarse else 1]
                fill = colour if coarse else "none"
                axes[1].plot(at + shift, height, marker, color=colour, mfc=fill, ms=4)
        axes[0].set(xscale="log", xlabel="minus log of the loss", ylabel="margin over the product of norms")
        if len(first):
            axes[0].legend(frameon=False, fontsize=7)
        axes[1].set(yscale="log", ylabel="largest fall")
        axes[1].set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
    return fig


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """After L < 1 / n. "Never decreases": by no more than 1e-6 of the greatest value between two measurements."""
    fitted = table[table["fitted"]]
    by_run = fitted.groupby("folder").first()
    nets = [name for name in dict.fromkeys(fitted["sweep"]) if name.removeprefix("fine_") not in ("exact", "none")]
    coarse = [name for name in nets if not name.startswith("fine_")]
    smooth, known = fitted["sweep"].str.endswith("exact"), fitted["rate"].notna()

    def of(column: str, names: list[str]) -> pd.Series:
        return by_run.loc[by_run["sweep"].isin(names), column]

    text = "minus the largest fall between two measurements, over its greatest value: "
    found = [
        every("The weighted sum of rates of normalised margins is not negative, in the theorem's own setting",
              "Thm 4, (18)", fitted.loc[smooth & known, "rate"], -1e-9, "rate along the flow: "),
        every("It is what (121) says", "App. B.2, (121)", 1e-3 - fitted.loc[smooth & known, "identity"], 0.0,
              "1e-3 less the relative difference from a central difference: "),
        every("It is not negative for ReLU networks and attacks in use either", "Thm 4, (18); App. B.4",
              fitted.loc[~smooth & known, "rate"], -1e-9, f"{int((~smooth & known).sum())} of "
              f"{int((~smooth).sum())} looks have no kink within the difference; rate along training's steps: "),
        every("The smoothed margin -ln(n L) / rho never decreases in the theorem's own setting", "ours",
              -of("smoothed_largest", ["exact", "fine_exact"]), -1e-6, text),
        every("It never does in standard training at short steps", "Lyu & Li 2020",
              -of("smoothed_largest", ["fine_none"]), -1e-6, text),
    ]  # fmt: skip
    for name in coarse:
        both = [each for each in (name, f"fine_{name}") if each in nets]
        shares = " and ".join(f"{100 * of('smoothed_share', [each]).mean():.0f} %" for each in both)
        steps = "coarse and short steps" if len(both) > 1 else "coarse steps"
        found.append(
            every(f"It never does under {name}, at {steps}", "Thm 4, Remark", -of("smoothed_largest", both), -1e-6,
                  f"falls in {shares} of the intervals; {text}")
        )  # fmt: skip
    certain = fitted[(fitted["gap"] > 10) & known]
    last = fitted.groupby("folder").last()
    return [
        every("Adversarial examples become separable", "Assumption 4",
              table.groupby("folder")["fitted"].first().astype(float), 1.0, "1 where L < 1 / n was reached: "),
        *found,
        every("The least margin itself never decreases in the theorem's own setting", "Thm 4",
              -of("hard_largest", ["exact", "fine_exact"]), -1e-6, text),
        every("It never does under attacks in use", "Thm 4, Remark", -of("hard_largest", nets), -1e-6, text),
        every("Its rate is not negative where the other margins are far above it, as the theorem asks", "Thm 4",
              certain["rises"], -1e-9, f"{len(certain)} of {len(fitted)} looks have gaps above 10 / rho; rate: "),
        every("On a coarse scale the margin keeps increasing: it ends within 1 % of its greatest", "Sec. 4",
              of("hard_kept", nets), 0.99, "last over greatest: "),
        every("So does that under a strong attack", "ours", of("strong_kept", nets), 0.99,
              "last over greatest, PGD with 50 steps: "),
        every("No attack goes below the certified margin", "ours", fitted["strong"] - fitted["certified"], -1e-9,
              "least margin under PGD with 50 steps less certified: "),
        every("Linear bounds certify more than half of it", "ours", last["certified"] / last["strong"], 0.5,
              "certified over strong at the last step: "),
    ]  # fmt: skip
