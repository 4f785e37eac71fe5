"""Which optimizer finds which margin: linear models of several classes, clean as published and robust as ours.

The margin of W under a threat is the least over points and other classes, of the worst perturbed point. Steepest
descent in a norm should come to the greatest of it per that norm of W, whatever it has for a memory.
"""

from __future__ import annotations

import pandas as pd
import torch
from matplotlib.figure import Figure

from robust_erm.core.params import Layout
from robust_erm.geometries.geometry import Geometry
from robust_erm.geometries.layers import Layers
from robust_erm.geometries.lp import Lp
from robust_erm.oracles.robust_classes import robust_margin, robust_max_margin_of_classes
from robust_erm.papers.claims import Claim, every
from robust_erm.papers.matrices import of_own_norm, panels
from robust_erm.papers.reproduced import parameters
from robust_erm.store.reading import run_of
from robust_erm.training.problem import draw

NORMS: dict[str, Geometry] = {
    "l1": Lp(1.0), "l2": Lp(2.0), "l3": Lp(3.0), "linf": Lp(float("inf")), "spectral": Layers(), "nuclear": Layers(1.0),
}  # fmt: skip
NAMES = {
    "cd": "coordinate descent", "gd": "GD", "nmd": "GD, momentum", "l3": r"$\ell_3$ descent", "sd": "sign descent",
    "signum": "Signum", "lion": "Lion", "adam": "Adam", "spectral": "spectral descent", "muon": "Muon",
    "muon_ns": "Muon, Newton-Schulz", "shampoo": "Shampoo", "nuclear": "nuclear descent",
}  # fmt: skip
OWN = {
    "cd": "l1", "gd": "l2", "nmd": "l2", "l3": "l3", "sd": "linf", "signum": "linf", "lion": "linf", "adam": "linf",
    "spectral": "spectral", "muon": "spectral", "muon_ns": "spectral", "shampoo": "spectral", "nuclear": "nuclear",
}  # fmt: skip
OURS = ("lion", "shampoo", "muon_ns")  # the paper says nothing of these; nor of robust training
NEAR = 0.95


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run and norm: sweep, eps, seed, ``norm``, and ``ratio``, the margin per that norm over the greatest."""
    known: dict[tuple[float, int, str], float] = {}
    rows = []
    for _, row in runs.iterrows():
        run = run_of(row["folder"])
        data = draw(run.data, run.seed)
        x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
        w, eps, p = parameters(row["folder"])["w"], float(row["eps_absolute"]), float(row["p"])
        margin = float(robust_margin(w, x, y, eps, p))
        for name, geometry in NORMS.items():
            key = eps, run.seed, name
            if key not in known:
                known[key] = robust_max_margin_of_classes(geometry, x, y, eps, p).upper
            size = float(geometry.value(w.flatten(), Layout((("w", tuple(w.shape)),))))
            ratio = margin / size / known[key]
            rows.append({"sweep": row["sweep"], "eps": eps, "seed": run.seed, "norm": name, "ratio": ratio})
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The least margin on the training set, after the worst perturbation, per a norm of W, in percent of the greatest
    there is: a row for each optimizer, a column for each norm; left clean, right robust. Mean over the draws and half
    of its 95 % interval. Framed: the norm of the optimizer's own geometry, in bold the largest of its row.
    """
    parts = {
        "clean" if eps == 0 else rf"robust, $\ell_\infty$, $\epsilon$ = {eps:g}": table[table["eps"] == eps]
        for eps in sorted(set(table["eps"]))
    }
    return panels(parts, NAMES, [*NORMS], OWN)


def claims(table: pd.DataFrame, runs: pd.DataFrame) -> list[Claim]:
    """Each optimizer comes near the greatest margin in its own norm, and nearer than in any other."""
    found = []
    for eps in sorted(set(table["eps"])):
        for name in (name for name in NAMES if name in set(table["sweep"])):
            some = table[(table["sweep"] == name) & (table["eps"] == eps)]
            where = "abstract" if eps == 0 and name not in OURS else "ours"
            found += of_own_norm(some, name, OWN[name], NEAR, where, f"{OWN[name]}, eps = {eps:g}")
    return [*found, every("no run exceeds the oracle's margin", "ours", 1 - table["ratio"], -1e-6, "1 - ratio: ")]
