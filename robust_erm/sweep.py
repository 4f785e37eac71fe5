"""Many runs: check them all, train them in packs, report."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from robust_erm.config import Run, resolve, word
from robust_erm.errors import ConfigError, require
from robust_erm.pack import pack_key, radii, train_pack
from robust_erm.report import report
from robust_erm.run_folder import RunFolder, folder_of
from robust_erm.terminal import console, set_up_logging

log = logging.getLogger("robust_erm")

Result = dict[str, Any] | BaseException


def check_all(configs: Sequence[DictConfig], labels: Sequence[str]) -> list[Run]:
    """Resolve and check every config before anything is trained.

    Raises:
        SystemExit: status 2, after one line for each bad point (at most ten are shown).
    """
    runs, faults = [], []
    names: dict[str, str] = {}
    roots: dict[str, Path] = {}
    for config, label in zip(configs, labels, strict=True):
        try:
            run = resolve(config)
            radii(run) if run.eps_unit == "margin" else None
            folder = RunFolder(run)
            folder.check()
            first = roots.setdefault(run.id, folder.path)
            require(first == folder.path, "output_dir", folder.path.parent, f"this run goes to {first} too; choose one")
            other = names.setdefault(str(folder.path), run.id)
            require(
                other == run.id, "run_dir", folder.path, "is the folder of several points; leave run_dir out of sweeps"
            )
            runs.append(run)
        except ConfigError as error:
            faults.append(f"{error}" + (f"   [{label}]" if len(configs) > 1 else ""))
    for parent in {folder_of(run).parent for run in runs} if not faults else ():
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            faults.append(f"output_dir = {parent}: cannot be made ({error.strerror}); choose another folder")
    if faults:
        for line in faults[:10]:
            print(f"robust_erm: {line}", file=sys.stderr)
        if len(faults) > 10:
            print(f"robust_erm: ... and {len(faults) - 10} more", file=sys.stderr)
        print(f"robust_erm: {len(faults)} of {len(configs)} points are not valid; nothing was trained", file=sys.stderr)
        raise SystemExit(2)
    return runs


def packs(runs: Sequence[Run], size: int) -> list[list[int]]:
    """Indices of the runs of each pack, at most ``size`` in one; each folder appears once."""
    groups: dict[str, list[int]] = {}
    seen: set[str] = set()
    for i, run in enumerate(runs):
        if run.id not in seen:
            seen.add(run.id)
            groups.setdefault(pack_key(run), []).append(i)
    return [group[k : k + size] for group in groups.values() for k in range(0, len(group), size)]


def train_all(runs: Sequence[Run], size: int) -> list[Result]:
    """The summary of every run, or the exception that ended it; one failure takes no other run along."""
    results: dict[str, Result] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = not (runs and runs[0].trainer.progress and console.is_terminal)
    with Progress(*columns, console=console, disable=quiet) as bar:
        todo = packs(runs, size)
        for k, pack in enumerate(todo):
            members = [runs[i] for i in pack]
            first = members[0]
            title = f"pack {k + 1}/{len(todo)}: {word(first.data)}, {word(first.model)}, {word(first.optimizer)}"
            task = bar.add_task(f"{title}, {len(members)} runs", total=first.stop.steps)

            def show(t: int, ended: int, task: Any = task, title: str = title, n: int = len(members)) -> None:
                bar.update(task, completed=t, description=f"{title}, {ended} of {n} runs ended")

            results |= {members[j].id: result for j, result in enumerate(_train(members, show))}
            bar.update(task, total=1, completed=1)
    return [results[run.id] for run in runs]


def _train(members: list[Run], show: Any) -> list[Result]:
    """One pack; where it fails, each of its runs alone, so that the others end."""
    try:
        return list(train_pack(members, show))
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into an exit
        console.print("interrupted: what has been reached is kept, and the same line goes on from there")
        raise SystemExit(130) from None
    except Exception as error:
        if len(members) > 1:
            log.warning(
                "a pack of %d runs failed (%s: %s); training them one by one", len(members), _kind(error), error
            )
            return [result for run in members for result in _train([run], show)]
        log.error("%s failed: %s: %s", members[0].name, _kind(error), error, exc_info=True)
        return [error]


def _kind(error: BaseException) -> str:
    return type(error).__name__


def run_one(config: DictConfig) -> dict[str, Any]:
    """Check, train and report one run; its table and figure go to its own folder."""
    set_up_logging()
    run = check_all([config], [""])[0]
    result = train_all([run], 1)[0]
    report([run], [result], folder_of(run))
    if isinstance(result, BaseException):
        raise SystemExit(1)
    return result


def run_sweep(configs: Sequence[DictConfig], overrides: Sequence[list[str]], folder: Path, size: int) -> list[Result]:
    """Check, train and report the points of one sweep; its table and figure go to ``folder``."""
    set_up_logging()
    try:
        require(size >= 1, "hydra.launcher.pack_size", size, "must be 1 or more")
        runs = check_all(configs, [" ".join(o) for o in overrides])
    except (SystemExit, ConfigError) as error:
        if {p.name for p in folder.glob("*")} <= {"multirun.yaml"}:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, ConfigError):
            print(f"robust_erm: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        raise
    results = train_all(runs, size)
    report(runs, results, folder)
    return results
