"""What strong attacks and certificates say of the runs of a figure, beside the attack of training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from robust_erm.papers.claims import Claim, within

COLUMNS = ["train_attacked", "test_after_train", "test_attacked", "test_certified", "warnings"]


def of(folders: pd.Series, runs: pd.DataFrame) -> pd.DataFrame:
    """:data:`COLUMNS` of the runs in ``folders``, index as there; nan where they have not been evaluated.

    ``train_attacked`` and ``test_attacked`` are the shares that all attacks leave, ``test_after_train`` what the attack
    of training leaves of the same points, ``test_certified`` the share that certainly stands, ``warnings`` how many
    signs of masked gradients there are, where they were looked for.
    """
    by_folder = runs.drop_duplicates("folder").set_index("folder")
    known = by_folder.reindex(columns=[f"strong.{column}" for column in COLUMNS]).set_axis(COLUMNS, axis=1)
    return known.astype(float).reindex(folders).set_axis(folders.index)


def close(claim: str, last: pd.DataFrame, plain: Mapping[str, str]) -> Claim:
    """Whether the attack of training finds what the strong ones find, but for a point in a hundred at most.

    Judged where it misses most on average over the draws: algorithm, and m and eps where these vary.

    Args:
        claim: what to call it.
        last: a row a run: algorithm, seed, perhaps m and eps, and :data:`COLUMNS`.
        plain: names of algorithms without formulas.
    """
    known = last.dropna(subset=["test_attacked"])
    missed = known.assign(missed=known["test_after_train"] - known["test_attacked"])
    cell = missed["algorithm"].map(lambda name: plain.get(name, name))
    for key in ("m", "eps"):
        if key in known and len(known[key].unique()) > 1:
            cell = cell + f", {key} = " + known[key].map("{:g}".format)
    worst = missed.groupby(cell)["missed"].mean().idxmax()
    values = missed.loc[cell == worst, "missed"]
    each = []
    for name, some in missed.groupby("algorithm"):
        low, high = (100 * some[column].mean() for column in ("test_certified", "test_attacked"))
        stand = f"{'-' if math.isnan(low) else f'{low:.1f}'} to {high:.1f}"
        each.append(f"{plain.get(str(name), name)} {100 * some['missed'].mean():.1f} ({stand})")
    looked = known["warnings"].dropna()
    signs = f"{int((looked > 0).sum())} of {len(looked)} runs with a sign of masked gradients; " if len(looked) else ""
    text = f"points that it misses (certified to attacked accuracy) in %: {', '.join(each)}; {signs}most for {worst}: "
    return within(claim, "ours", values, 0.01, text)
