"""What the commands call: check, train and report one run, or the points of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robust_erm.core.errors import require
from robust_erm.reports.report import Failure, Point, Result, failures, report
from robust_erm.reports.terminal import set_up_logging
from robust_erm.store.config import Run
from robust_erm.store.run_folder import RunFolder, folder_of
from robust_erm.sweeps.check import Config, check_all, checked
from robust_erm.sweeps.sweep import train_all
from robust_erm.training.agent import agents_run


def _trained(runs: Sequence[Run], workers: int | None, size: int | None) -> list[Result]:
    """The result of every run; the W&B run of a sweep's agent gets also what was on disk, or trained elsewhere."""
    agents = agents_run() is not None and runs[0].logger.enabled
    before = set(_mirrors(runs[0]))
    results = train_all(runs, workers, size)
    if agents and not isinstance(results[0], Failure) and set(_mirrors(runs[0])) <= before:
        from robust_erm.training.wandb_mirror import WandbMirror

        WandbMirror([RunFolder(runs[0])]).send_stored()
    return results


def _mirrors(run: Run) -> list[Path]:
    """What W&B has of the run in its folder."""
    return list(folder_of(run).glob("wandb/*run-*"))


def run_one(config: DictConfig) -> dict[str, Any]:
    """Check, train and report one run, in this process; its table and figure go to its own folder."""
    set_up_logging()
    run = check_all([config], [""])[0]
    result = _trained([run], 0, 1)[0]
    if run.report:
        report([Point.of(run)], [result], folder_of(run))
    else:
        failures([Point.of(run)], [result])
    if isinstance(result, Failure):
        raise SystemExit(1)
    return result


def run_sweep(
    configs: Iterable[Config],
    overrides: Sequence[Sequence[str]],
    folder: Path,
    workers: int | None = None,
    pack_size: int | None = None,
) -> list[tuple[Path, Result]]:
    """Check, train and report the points of one sweep; its table and figure go to ``folder``.

    Returns:
        Folder and result of every point, in order.
    """

    def fits() -> None:
        ok = pack_size is None or (isinstance(pack_size, int) and pack_size >= 1)
        require(ok, "hydra.launcher.pack_size", pack_size, "must be 1 or more, or null")
        ok = workers is None or (isinstance(workers, int) and workers >= 0)
        require(ok, "hydra.launcher.workers", workers, "must be 0 (this process) or more, or null")

    runs = checked(configs, overrides, folder, fits)
    results = _trained(runs, workers, pack_size)
    points = [Point.of(run) for run in runs]
    if runs[0].report:
        report(points, results, folder)
    else:
        failures(points, results)
    return [(folder_of(run), result) for run, result in zip(runs, results, strict=True)]
