"""What `results --compare` says: a table over the seeds, the differences, and each as a sentence."""

from __future__ import annotations

import math

import pandas as pd
from rich.table import Table

from robust_erm.core.statistics import LEGEND
from robust_erm.reports.compare import is_share, sentence, setting_of, unlike
from robust_erm.reports.ends import differ
from robust_erm.reports.terminal import cell, output, safe, say

_SAID = 12  # sentences; the table has all


def answer(frame: pd.DataFrame, compared: pd.DataFrame, key: str, metric: str) -> None:
    """Print what :func:`robust_erm.reports.compare.compare` found of the runs of ``frame``."""
    setting, percent = setting_of(compared), is_share(metric)
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in (*setting, "first", "second"):
        table.add_column(safe(name))
    means = ("mean of\nfirst", "mean of\nsecond", "first\n- second")
    for name in (*means, "p", "p, Holm", "seeds", "losses of\nfirst", "losses of\nsecond"):
        table.add_column(name, justify="right")
    for row in compared.to_dict("records"):
        shown = [
            cell(float(row[mean]), float(row[half]), percent)
            for mean, half in (("mean_first", "half_first"), ("mean_second", "half_second"), ("difference", "half"))
        ]
        chance = ["-" if math.isnan(row[p]) else f"{row[p]:.2g}" for p in ("p", "holm")]
        words = [cell(row[name]) for name in (*setting, "first", "second")]
        table.add_row(*words, *shown, *chance, str(row["n"]), row["loss_first"], row["loss_second"])
    output.print(table)
    paired = compared["paired"]
    how = "runs of one seed share their draws and are compared with each other: paired t-test"
    how = how if paired.all() else "not paired: Welch's t-test" if not paired.any() else f"{how}; else Welch's"
    points = " in points" if percent else ""
    count = f"Holm: corrected for {len(compared)} comparison{'s' * (len(compared) > 1)}"
    say(f"{metric}, differences{points}, {LEGEND}; {how}; {count}")
    for line in conclusions(frame, compared, key, metric):
        say(line)


def conclusions(frame: pd.DataFrame, compared: pd.DataFrame, key: str, metric: str) -> list[str]:
    """What makes the runs unlike, then each comparison as a sentence, at most :data:`_SAID` of them."""
    setting = setting_of(compared)
    notes = [f"note: {line}" for line in (differ(frame), *unlike(frame, key)) if line]
    said = [sentence(pair, metric, setting) for _, pair in compared.head(_SAID).iterrows()]
    more = [f"... and {len(compared) - _SAID} more comparisons"] if len(compared) > _SAID else []
    return [*notes, *said, *more]
