"""Every point of a sweep is checked before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.live import checking
from robust_erm.reports.terminal import console, say, set_up_logging, told
from robust_erm.store.config import Run, resolve
from robust_erm.store.run_folder import RunFolder, folder_of
from robust_erm.sweeps.datasets import check_data, described, find_margins
from robust_erm.sweeps.earlier import settled
from robust_erm.training import contracts
from robust_erm.training.agent import agents_run
from robust_erm.training.problem import radii
from robust_erm.training.resources import cores

Config = DictConfig | dict[str, Any] | ConfigError  # the last: a point that does not compose


def check_all(configs: Iterable[Config], labels: Sequence[str], elsewhere: bool = False) -> list[Run]:
    """Resolve and check every config before anything is trained; ``elsewhere``: devices are not looked for.

    Raises:
        SystemExit: status 2, after one line for each fault, with the points that have it (some are shown).
    """
    many = len(labels) > 1
    with checking() as tick:
        runs, faults, labelled, held = _resolved(configs, labels, elsewhere, tick)
        if not faults:
            runs, stale = settled(runs, lambda line: say(line, console))
            if stale:
                raise SystemExit(told([*stale, "nothing was trained"], 2))
            todo = [run for run in runs if RunFolder(run).missing]
            if broken := check_data(todo):
                raise SystemExit(told([*map(str, broken), "nothing was trained"], 2))
            find_margins(todo, cores(), lambda n, of: tick(f"{n} of {of} exact margins", runs[0].trainer.progress))
            for run in todo:
                try:
                    if run.id not in held:  # it had ended, and is trained again
                        contracts.check(run)
                    radii(run)
                except ConfigError as error:
                    faults.append((str(error), labelled[run.id]))
                except ArithmeticError:
                    pass  # that run alone fails, by its name
            try:
                for line in described(todo) if not faults else ():
                    say(line, console)
            except ConfigError as error:
                faults.append((str(error), ""))
    for parent in {folder_of(run).parent for run in runs} if not faults else ():
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            faults.append((f"output_dir = {parent}: cannot be made ({error.strerror}); choose another folder", ""))
    if faults:
        told(_said(faults, len(labels)), 2)
        if many:
            told([f"{len(faults)} of {len(labels)} points are not valid; nothing was trained"], 2)
        raise SystemExit(2)
    return runs


def _said(faults: Sequence[tuple[str, str]], points: int) -> list[str]:
    """A line for each fault, and where it is: a point, some, or all of them."""
    found: dict[str, list[str]] = {}
    for fault, label in faults:
        found.setdefault(fault, []).append(label)
    lines = []
    for fault, labels in found.items():
        others = f", and {len(labels) - 1} more" if len(labels) > 1 else ""
        where = "all points" if len(labels) == points else f"{labels[0]}{others}"
        lines.append(f"{fault}   [{where}]" if points > 1 and labels[0] else fault)
    return lines


def _resolved(
    configs: Iterable[Config], labels: Sequence[str], elsewhere: bool, tick: Callable[[str, bool], None]
) -> tuple[list[Run], list[tuple[str, str]], dict[str, str], set[str]]:
    """The runs, each fault with the label of its point, the label of every run by its id, and whose parts were held
    against their contracts: of all runs but those that have ended, which were before they were trained.
    """
    runs: list[Run] = []
    faults: list[tuple[str, str]] = []
    owners: dict[Path, str] = {}
    places: dict[str, Path] = {}
    labelled: dict[str, str] = {}
    held: set[str] = set()
    for config, label in zip(configs, labels, strict=True):
        try:
            if isinstance(config, ConfigError):
                raise config
            run = resolve(config)
            if run.returns not in (RunFolder(run).read_summary() or {}):
                contracts.check(run)
                held.add(run.id)
            if not elsewhere:
                run.trainer.check()
            path = folder_of(run)
            if run.id not in places:
                RunFolder(run).check()
            first, owner = places.setdefault(run.id, path), owners.setdefault(path, run.id)
            require(first == path, "output_dir", path.parent, f"this run goes to {first} too; choose one")
            require(owner == run.id, "run_dir", path, "is the folder of several points; leave run_dir out of sweeps")
            runs.append(run)
            labelled.setdefault(run.id, label)
            tick(f"checked {len(runs)} of {len(labels)} points", run.trainer.progress)
        except ConfigError as error:
            faults.append((str(error), label))
    if len(owners) < len(runs):
        say(f"{len(runs)} points are {len(owners)} runs: some are the same", console)
    return runs, faults, labelled, held


def checked(
    configs: Iterable[Config],
    overrides: Sequence[Sequence[str]],
    folder: Path,
    fits: Callable[[], None],
    elsewhere: bool = False,
) -> list[Run]:
    """The runs of a sweep that may be trained; a refused sweep leaves nothing behind.

    Args:
        configs: of the points.
        overrides: of the points.
        folder: made by Hydra.
        fits: checks the launcher's own options; raises :class:`ConfigError`.
        elsewhere: the runs will be trained on other machines; devices are not looked for.

    Raises:
        SystemExit: status 2, after saying what is wrong.
    """
    set_up_logging()
    try:
        fits()
        one = len(overrides) == 1 or agents_run() is None
        require(one, "-m", f"{len(overrides)} points", "a W&B agent waits for one run: leave -m out of its command")
        require(len(overrides) > 0, "sweep", "no points", "every key needs a value at least, as in seed=0,1")
        common = set(overrides[0]).intersection(*overrides[1:]) if len(overrides) > 1 else set()
        labels = [" ".join(o for o in point if o not in common) for point in overrides]
        return check_all(configs, labels, elsewhere)
    except BaseException as error:
        leave_nothing(folder)
        if isinstance(error, ConfigError):
            raise SystemExit(told([str(error)], 2)) from None
        raise


def leave_nothing(folder: Path) -> None:
    """Remove the folder that Hydra made for a sweep that was refused, and what it was made in."""
    if {p.name for p in folder.glob("*")} <= {"multirun.yaml"}:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in list(folder.parents)[:2]:
            try:
                parent.rmdir()
            except OSError:
                return
