"""Every run below some folders, evaluated pack by pack."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError, require
from robust_erm.evaluation.options import Options, attacks_of, device_of
from robust_erm.evaluation.packs import AT_ONCE, file_of, in_halves
from robust_erm.reports.terminal import console, say
from robust_erm.store.run_folder import SUMMARY, RunFolder, run_of
from robust_erm.sweeps import plan
from robust_erm.training import contracts
from robust_erm.training.problem import radii


def evaluate(folders: Sequence[str | Path], options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluate every run that has ended below ``folders``.

    Returns:
        What each evaluation found, and a line for each run that could not be evaluated.

    Raises:
        ConfigError: no run, an attack that does not fit, a checkpoint of another config.
    """
    paths: list[Path] = []
    for root in map(Path, folders):
        require(root.exists(), "folder", root, "there is no such folder")
        paths += sorted(summary.parent for summary in root.rglob(SUMMARY))
    require(bool(paths), "folder", " ".join(map(str, folders)), "no run has ended there yet")
    runs = {path: run_of(path) for path in dict.fromkeys(paths)}
    for run in runs.values():  # refused before anything is computed
        contracts.check(run)
        attacks_of(run, options)
    device = device_of(options)
    jobs: dict[str, list[tuple[Path, Any, float]]] = {}  # by the evaluation's name
    failed: list[str] = []
    for path, run in runs.items():
        try:
            require(RunFolder(run, path).read_checkpoint() is not None, "checkpoint", path, "is missing; train again")
        except ConfigError as error:
            failed.append(str(error))
            continue
        for eps in options.eps or (None,):
            if options.fresh or not file_of(path, options.name(eps)).is_file():
                jobs.setdefault(options.name(eps), []).append((path, run, radii(run)[1] if eps is None else eps))
    count, done = sum(map(len, jobs.values())), 0
    with console.status("") as status:
        for name, members in jobs.items():
            for pack in plan.packs([run for _, run, _ in members], AT_ONCE, 1):
                began, title = time.monotonic(), f"{done} of {count} evaluated; {members[pack[0]][1].name}"
                tick = partial(_say, status, title)
                failed += in_halves([members[i] for i in pack], name, options, device, tick)
                done += len(pack)
                if not console.is_terminal:
                    say(f"{done} of {count} evaluated; {len(pack)} in {time.monotonic() - began:.0f} s", console)
    names = [options.name(eps) for eps in options.eps or (None,)]
    files = [file_of(path, name) for name in names for path in runs]
    return [json.loads(file.read_text()) for file in files if file.is_file()], failed


def _say(status: Any, title: str, text: str) -> None:
    status.update(f"{title}: {text}")
