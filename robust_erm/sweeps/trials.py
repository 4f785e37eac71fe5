"""What a search over configs, such as Optuna's, leaves: one table over all trials, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robust_erm.reports.report import Point, report
from robust_erm.reports.terminal import say
from robust_erm.store.files import Damaged, read_yaml
from robust_erm.store.reading import read_config, read_summary
from robust_erm.sweeps.overrides import as_typed, line_of, literal
from robust_erm.sweeps.stored import stored

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
        if (place := _having(metric, best["best_value"], folders)) is not None:
            line = line_of(stored(str(place), ()))
            say(f"again:  {as_typed([], [*line, *_outputs(place)])}")
            tested = [override for override in line if not override.startswith("data.validation=")]
            if tested != line:
                say(f"tested: {as_typed([], tested)}    # on the test points, which the search has not seen")
    else:
        say(f"best:   {len(best.get('solutions', []))} trials that none other beats in all: {folder / RESULTS}")


def _having(metric: str, value: float, folders: Sequence[Path]) -> Path | None:
    """The first trial whose ``metric`` has this value: Optuna's best, which is the first of those alike."""
    return next((place for place in folders if read_summary(place).get(metric) == value), None)


def _outputs(place: Path) -> list[str]:
    """The override by which a trial is found on disk; none where it lies where runs lie by default."""
    return [] if place.parent == Path("outputs") else [f"output_dir={literal(str(place.parent))}"]
