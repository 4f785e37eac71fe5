"""``hydra/launcher=slurm``: check the points, submit what has no result, wait for it or leave."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.report import Result
from robust_erm.reports.terminal import console, output, say, told
from robust_erm.slurm import sbatch, submit
from robust_erm.slurm.conclude import command, conclude
from robust_erm.slurm.folder import SlurmSweep
from robust_erm.slurm.settings import Settings, settings, snapshots
from robust_erm.slurm.watch import Watch, wait
from robust_erm.store import source
from robust_erm.store.config import Run
from robust_erm.store.files import write_json
from robust_erm.store.identity import title
from robust_erm.store.run_folder import RunFolder, folder_of
from robust_erm.sweeps.check import Config, checked, leave_nothing


def launch(
    configs: Iterable[Config], overrides: Sequence[Sequence[str]], folder: Path, given: dict[str, Any]
) -> list[tuple[Path, Result]]:
    """Check, submit, wait and report; see :func:`robust_erm.sweeps.run.run_sweep`."""
    kept: list[Settings] = []

    def fits() -> None:
        kept.append(settings(given))
        if not kept[0].dry_run:
            sbatch.require_slurm()

    runs = checked(configs, overrides, folder, fits, elsewhere=True)
    (chosen,) = kept
    sweep = SlurmSweep(folder)
    todo = list({run.id: run for run in runs if RunFolder(run).read_summary() is None}.values())
    under_way = _under_way(sweep)
    try:
        for run in todo:
            advice = f"is being trained by a task of this sweep; first {command('cancel', folder)}"
            require(not (run.fresh and run.id in under_way), "fresh", folder_of(run), advice)
        todo = [run for run in todo if run.id not in under_way]
        if chosen.dry_run:
            _dry_run(sweep, runs, todo, chosen)
            raise SystemExit(0)
        earlier = sweep.facts
        remember(sweep, runs)
        if todo:
            announce(sweep, _submitted(sweep, todo, chosen, earlier), len(runs))
        elif under_way:
            say("all that is missing has been submitted before, and is under way", console)
    except ConfigError as error:
        leave_nothing(folder)
        raise SystemExit(told([str(error)], 2)) from None
    if chosen.detach and (todo or under_way):
        leave(sweep)
        raise SystemExit(0)
    ids = list({run.id: None for run in runs})
    results = dict(zip(ids, follow(sweep, chosen.poll, not runs[0].trainer.progress), strict=True))
    return [(folder_of(run), results[run.id]) for run in runs]


def _submitted(sweep: SlurmSweep, runs: Sequence[Run], chosen: Settings, earlier: dict[str, Any]) -> dict[str, Any]:
    try:
        return submit.submit(sweep, runs, chosen).facts
    except ConfigError:
        if earlier:
            write_json(sweep.path / "sweep.json", earlier)
        else:
            shutil.rmtree(sweep.path, ignore_errors=True)
        raise


def _under_way(sweep: SlurmSweep) -> set[str]:
    """Runs of this sweep that an earlier submission still trains, or will."""
    if not sweep.facts:
        return set()
    return Watch(sweep).look(patient=False).waiting


def remember(sweep: SlurmSweep, runs: Sequence[Run]) -> None:
    """Write sweep.json."""
    points = list({run.id: {"id": run.id, "folder": str(folder_of(run))} for run in runs}.values())
    sweep.path.mkdir(parents=True, exist_ok=True)
    write_json(sweep.path / "sweep.json", {"cwd": str(Path.cwd()), "points": points})


def announce(sweep: SlurmSweep, facts: dict[str, Any], points: int) -> None:
    """What was submitted."""
    tasks, runs = len(facts["tasks"]), sum(facts["tasks"])
    found = f"; {points - runs} have been submitted or finished before" if points > runs else ""
    text = f"submitted job {facts['job']}: {tasks} tasks, {runs} runs{found}; code {facts['revision'] or facts['code']}"
    say(text, console)


def leave(sweep: SlurmSweep) -> None:
    """How to go on from any shell."""
    for verb in ("status", "watch", "collect", "cancel"):
        say(f"  {command(verb, sweep.folder)}")


def follow(sweep: SlurmSweep, seconds: float, quiet: bool) -> list[Result]:
    """Wait, and report; Ctrl-C leaves the tasks alone and says how to go on."""
    try:
        standing = wait(sweep, seconds, quiet)
    except KeyboardInterrupt:
        standing = Watch(sweep).look()
        total = len(standing.points)
        say(f"detached: {standing.done} of {total} runs have ended, the tasks go on", console)
        leave(sweep)
        raise SystemExit(130) from None
    return conclude(sweep, standing)


def _dry_run(sweep: SlurmSweep, runs: Sequence[Run], todo: Sequence[Run], chosen: Settings) -> None:
    """Print the script and the tasks; submit nothing, leave nothing."""
    say(f"{len(runs)} points, {len(todo)} to be trained")
    if todo:
        members = submit.shares(todo, chosen)
        code = snapshots(chosen, sweep.folder).absolute() / source.fingerprint()
        text = sbatch.script(chosen, sweep.path.absolute() / "<n>", code, "robust-erm-<id>", len(members))
        print(text)
        table = Table(show_edge=False, pad_edge=False, header_style="bold")
        for heading in ("task", "runs", "most steps"):
            table.add_column(heading, justify="right")
        table.add_column("what")
        for k, indices in enumerate(members):
            mine = [todo[i] for i in indices]
            kinds = list(dict.fromkeys(title(run) for run in mine))
            what = kinds[0] + (f" and {len(kinds) - 1} more" if len(kinds) > 1 else "")
            table.add_row(str(k), str(len(mine)), f"{sum(run.steps for run in mine):,}", what)
        output.print(table)
        try:
            sbatch.require_slurm()
            said = sbatch.test(text, chosen)
        except sbatch.NoCluster as error:
            say(f"not asked whether it would be accepted: {error}")
        else:
            say(f"sbatch: {said}")
    leave_nothing(sweep.folder)
