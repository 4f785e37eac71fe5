"""What strong attacks and certificates say of the runs of a figure, beside the attack of training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from robust_erm.claims import Claim, within

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


def close(prefix: str, last: pd.DataFrame, plain: Mapping[str, str]) -> Claim:
    """Whether the attack of training finds all but a point in a hundred of what the strong ones find.

    Judged by the algorithm that it flatters most, draw by draw.

    Args:
        prefix: of the claim.
        last: a row a run: algorithm, seed and :data:`COLUMNS`; means are taken over what else there is.
        plain: names of algorithms without formulas.
    """
    known = last.dropna(subset=["test_attacked"])
    missed = (known["test_after_train"] - known["test_attacked"]).groupby([known["algorithm"], known["seed"]]).mean()
    lows, highs = (
        (100 * known.groupby("algorithm")[column].mean()).round(1).to_dict()
        for column in ("test_certified", "test_attacked")
    )
    each = []
    for name, share in missed.groupby(level="algorithm").mean().items():
        low = "-" if math.isnan(lows[name]) else lows[name]
        each.append(f"{plain.get(str(name), name)} {100 * share:.1f} of [{low}, {highs[name]}]")
    looked = known["warnings"].dropna()
    signs = f"{int((looked > 0).sum())} of {len(looked)} runs with a sign of masked gradients; " if len(looked) else ""
    text = (
        f"points that it misses, of [certified, attacked] in %: {', '.join(each)}; {signs}the most of all algorithms: "
    )
    claim = f"{prefix}the attack of training is close to the strong ones"
    return within(claim, "ours", missed.groupby(level="seed").max(), 0.01, text)
