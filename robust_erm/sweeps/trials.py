"""What a search over configs, such as Optuna's, leaves: one table over all trials, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robust_erm.reports.report import Point, report
from robust_erm.reports.terminal import say
from robust_erm.store.files import Damaged, read_yaml
from robust_erm.store.reading import read_config, read_summary

RESULTS = "optimization_results.yaml"  # the plugin's own, in the sweep's folder


def conclude(folders: Sequence[Path], folder: Path, metric: str, shown: bool) -> None:
    """Print the table over all trials, and the best one.

    Args:
        folders: of the trials that have a result.
        folder: of the sweep.
        metric: what was searched for.
        shown: whether to print a table at all.
    """
    if shown and folders:
        configs = [(place, read_config(place)) for place in folders]
        report(
            [Point(config["id"], place, config) for place, config in configs], list(map(read_summary, folders)), folder
        )
    try:
        best = read_yaml(folder / RESULTS)
    except (FileNotFoundError, Damaged):  # the search did not come to its end
        return
    if "best_params" in best:
        where = " ".join(f"{key}={value}" for key, value in best["best_params"].items())
        say(f"best:   {where}: {metric} {best['best_value']:.4g}, of {len(folders)} trials")
    else:
        say(f"best:   {len(best.get('solutions', []))} trials that none other beats in all: {folder / RESULTS}")
