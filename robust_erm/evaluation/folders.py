"""Every run below some folders, evaluated pack by pack."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError, require
from robust_erm.evaluation.options import Options, attacks_of, device_of, measures_of, search_of
from robust_erm.evaluation.packs import AT_ONCE, Known, Member, computed_by, file_of, in_halves
from robust_erm.evaluation.union import evaluate_unions
from robust_erm.reports.live import ticker
from robust_erm.reports.terminal import console, made, say
from robust_erm.store import fingerprint
from robust_erm.store.config import Run
from robust_erm.store.files import Damaged
from robust_erm.store.fits import check_measures
from robust_erm.store.reading import Recorded, found_below, read_evaluation, read_summary, run_of
from robust_erm.store.run_folder import RunFolder
from robust_erm.sweeps import plan
from robust_erm.training import contracts
from robust_erm.training.problem import radii


def evaluate(folders: Sequence[str | Path], options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluate every run that has ended below ``folders``.

    Returns:
        What each evaluation found, and a line for each run that could not be evaluated.

    Raises:
        ConfigError: no run, an attack that does not fit, code or data that are not those of the run.
    """
    failed: list[str] = []
    device = device_of(options)
    runs = _opened(folders, options, failed)
    _require_same(runs, options)
    jobs: dict[str, list[Member]] = {}  # by the evaluation's name
    taken: list[Recorded] = []
    for path, run in list(runs.items()):
        try:
            require(RunFolder(run, path).read_checkpoint() is not None, "checkpoint", path, "is missing; train again")
            for eps in options.eps or (None,):
                name = options.name(eps)
                if (kept := _kept(path, run, name, options)) is not None:
                    taken.append(Recorded.of(kept, ended=True))
                    continue
                jobs.setdefault(name, []).append((path, run, radii(run)[1] if eps is None else eps))
        except (ConfigError, ArithmeticError) as error:
            failed.append(f"failed: {path}: {error}")
            del runs[path]
    if taken:
        say(f"{len(taken)} evaluations were there already, {made(taken, 'made')}; fresh=true makes them again", console)
    count, done = sum(map(len, jobs.values())), 0
    known: Known = {}  # what does not depend on the radius, and is found once
    if count:
        say(f"{count} evaluations to make ...", console)
    with console.status("") as status:
        for name, members in jobs.items():
            for pack in plan.shares([run for _, run, _ in members], AT_ONCE, 1):
                began, title = time.monotonic(), f"{done} of {count} evaluated; {members[pack[0]][1].name}"
                tick = ticker(status, title)
                some = [members[i] for i in pack]
                if options.threats:
                    failed += evaluate_unions(some, name, options, tick)
                else:
                    failed += in_halves(some, name, options, device, tick, known)
                done += len(pack)
                if not console.is_terminal:
                    say(f"{done} of {count} evaluated; {len(pack)} in {time.monotonic() - began:.0f} s", console)
    names = [options.name(eps) for eps in options.eps or (None,)]
    found = [_earlier(path, name) for name in names for path in runs]
    return [one for one in found if one is not None], failed


def _opened(folders: Sequence[str | Path], options: Options, failed: list[str]) -> dict[Path, Run]:
    """The runs that have ended below ``folders``; ``failed`` gets a line for each that cannot be opened."""
    paths: list[Path] = []
    for root in map(Path, folders):
        require(root.is_dir(), "folder", root, "there is no such folder" if not root.exists() else "is no folder")
        paths += found_below(root)
    require(bool(paths), "folder", " ".join(map(str, folders)), "no run has ended there yet")
    runs: dict[Path, Run] = {}
    for path in dict.fromkeys(paths):
        try:
            read_summary(path)
            run = run_of(path, options.trust)
            contracts.check(run)
            runs[path] = run
        except (ConfigError, FileNotFoundError) as error:
            failed.append(f"failed: {path}: {error}")
    for run in runs.values():  # refused before anything is computed
        attacks_of(run, options)
        search_of(run, options)
        check_measures(run, measures_of(options))
    return runs


def _require_same(runs: dict[Path, Run], options: Options) -> None:
    """Raise ConfigError where runs, or their evaluations, were computed by other code or data than now.

    Of a run, its model and data count: what its parameters mean.
    """
    if options.stale != "refuse":
        return
    for path, run in runs.items():
        now = fingerprint.of_components([run.model, run.data])
        recorded = Recorded.of(read_summary(path), ended=True).fingerprint
        differs = fingerprint.differing(now, {k: v for k, v in (recorded or now).items() if k in now})
        advice = "was trained by other code or data: {}; train it again, or stale=keep evaluates it as it is"
        require(not differs, "run", path, advice.format(", ".join(differs[:3])))
        for eps in () if options.fresh else options.eps or (None,):
            name = options.name(eps)
            differs = _differing(_earlier(path, name), run, options)
            advice = "was made by other code or data: {}; stale=again makes it again, stale=keep takes it as it is"
            require(not differs, "evaluation", file_of(path, name), advice.format(", ".join(differs[:3])))


def _kept(path: Path, run: Run, name: str, options: Options) -> dict[str, Any] | None:
    """What an earlier evaluation found, where it is not to be made again."""
    earlier = None if options.fresh else _earlier(path, name)
    return None if options.stale == "again" and _differing(earlier, run, options) else earlier


def _differing(earlier: dict[str, Any] | None, run: Run, options: Options) -> list[str]:
    """What has changed since an evaluation was made; nothing where it does not say."""
    kept = Recorded.of(earlier, ended=True).fingerprint if earlier else None
    return [] if kept is None else fingerprint.differing(computed_by(run, options), kept)


def _earlier(path: Path, name: str) -> dict[str, Any] | None:
    """What an evaluation of that name has found, where it can be read; a damaged one is done again."""
    try:
        return read_evaluation(file_of(path, name))
    except (FileNotFoundError, Damaged):
        return None
