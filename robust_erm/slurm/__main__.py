"""A sweep on the cluster, from any later shell.

python -m robust_erm.slurm status|watch|collect|cancel|resume outputs/sweeps/<sweep>
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.report import Failure
from robust_erm.reports.terminal import console, output, say, set_up_logging
from robust_erm.slurm import sbatch, submit
from robust_erm.slurm.folder import SlurmSweep, found, opened, read, states
from robust_erm.slurm.launch import announce, follow, leave
from robust_erm.slurm.settings import changed, settings
from robust_erm.slurm.watch import Watch, command, conclude
from robust_erm.store import source
from robust_erm.store.config import resolve
from robust_erm.store.files import write_json


def status(sweep: SlurmSweep) -> int:
    """Print every task, and what has ended so far."""
    watch = Watch(sweep)
    standing = watch.look(patient=False)
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for heading in ("job", "state", "runs", "with a result", "requeues", "where", "what"):
        table.add_column(heading, justify="right" if heading in ("runs", "with a result", "requeues") else "left")
    for task in standing.tasks:
        results = [standing.results.get(id_) for id_ in watch.ids(task)]
        ended = sum(isinstance(result, dict) for result in results)
        attempt = (task.said.get("attempts") or [{}])[-1]
        where = " ".join(filter(None, [attempt.get("node", ""), attempt.get("gpus") and f"GPU {attempt['gpus']}"]))
        progress = task.said.get("progress") or {}
        what = f"step {progress['t']:,}" if task.running and progress else ""
        failed = next((r.cause for r in results if isinstance(r, Failure)), "")
        waits = task.seen.reason if task.seen and task.state == "PENDING" else ""
        row = [
            task.job,
            task.state.lower(),
            str(task.runs),
            str(ended),
            str(task.requeues),
            where,
            waits or failed or what,
        ]
        table.add_row(*row)
    output.print(table)
    text = f"{standing.done} of {len(standing.points)} runs have a result, {standing.failed} failed, "
    say(f"{text}{len(standing.waiting)} to come; tasks: {states(standing.tasks)}")
    return 0


def collect(sweep: SlurmSweep) -> int:
    """Table, figure and failures of what there is."""
    watch = Watch(sweep)
    standing = watch.look(patient=False)
    watch.tell(standing)
    conclude(sweep, standing)
    return int(standing.failed > 0)


def watch(sweep: SlurmSweep) -> int:
    """Wait with a live view, then collect."""
    submissions = sweep.submissions()
    poll = submissions[-1].facts["settings"]["poll"] if submissions else 10.0
    return int(any(isinstance(result, Failure) for result in follow(sweep, poll, quiet=False)))


def cancel(sweep: SlurmSweep) -> int:
    """Scancel what is under way."""
    sbatch.require_slurm()
    active = [task for task in sweep.tasks() if task.active]
    if active:
        jobs = sorted({task.job for task in active})
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True, check=False)
        require(done.returncode == 0, "scancel", " ".join(jobs[:5]), done.stderr.strip())
        for submission in sweep.submissions():  # SLURM soon forgets those that never ran
            numbers = [task.number for task in active if task.submission == submission]
            facts = submission.facts
            facts["cancelled"] = sorted({*facts.get("cancelled", []), *numbers})
            write_json(submission.path / "submission.json", facts)
    text = f"cancelled {len(active)} tasks; what has been reached is kept: {command('resume', sweep.folder)}"
    say(text if active else "nothing is under way")
    return 0


def resume(sweep: SlurmSweep, changes: list[str]) -> int:
    """Submit again what has no result and is not under way."""
    sbatch.require_slurm()
    previous = sweep.submissions()
    require(bool(previous), "folder", sweep.folder, "nothing has been submitted yet")
    facts = previous[-1].facts
    chosen = changed(settings(facts["settings"]), changes)
    standing = Watch(sweep).look(patient=False)
    configs = {e["id"]: e for s in previous for k in range(len(s.facts["tasks"])) for e in read(s.work(k))["runs"]}
    runs = []
    for point in standing.points:
        if point.id not in standing.waiting and not isinstance(standing.results.get(point.id), dict):
            require(point.id in configs, "folder", point.folder, "was never submitted; submit the line again")
            run = resolve(configs[point.id]["config"])
            advice = "is another run with the code as it is now; submit the line again"
            require(run.id == point.id, "folder", point.folder, advice)
            runs.append(run)
    if not runs:
        say("nothing to resume: all runs have a result, or are under way")
        return 0
    if facts["code"] != source.fingerprint():
        say(
            f"the code is not what was submitted before: {facts['revision']} ({facts['code']}) then, "
            f"{source.revision()} ({source.fingerprint()}) now",
            console,
        )
    announce(sweep, submit.submit(sweep, runs, chosen).facts, len(standing.points))
    leave(sweep)
    return 0


def sweeps(outputs: Path) -> int:
    """All sweeps that were submitted, one a line."""
    known = found(outputs)
    require(bool(known), "folder", outputs / "sweeps", "holds no sweep that was submitted to SLURM")
    for folder in known:
        standing = Watch(SlurmSweep(folder)).look(patient=False)
        said = f"{standing.done} of {len(standing.points)} runs have a result, {len(standing.waiting)} to come"
        say(f"{folder}: {said}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="robust_erm.slurm", description="Sweeps on a SLURM cluster.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    says = {
        "status": "every task; without a folder, all sweeps below outputs/",
        "watch": "wait with a live view, then collect",
        "collect": "table, figure and failures of what there is",
        "cancel": "cancel what is under way; checkpoints are kept",
        "resume": "submit again what has no result",
    }
    for verb, text in says.items():
        one = verbs.add_parser(verb, help=text, description=text)
        one.add_argument("folder", type=Path, nargs="?" if verb == "status" else None, help="outputs/sweeps/<sweep>")
        if verb == "resume":
            one.add_argument("changes", nargs="*", metavar="OPTION=VALUE", help="of the launcher: memory=32 time=600")
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        if options.folder is None:
            return sweeps(Path("outputs"))
        sweep = opened(options.folder.absolute())
        folder = options.folder.absolute()
        os.chdir(sweep.facts["cwd"])  # what is relative was so there
        sweep = SlurmSweep(Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder)
        if options.verb == "resume":
            return resume(sweep, options.changes)
        return {"status": status, "watch": watch, "collect": collect, "cancel": cancel}[options.verb](sweep)
    except ConfigError as error:
        print(f"robust_erm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def command_line() -> None:
    """The console command ``robust-erm-slurm``."""
    sys.exit(main())


if __name__ == "__main__":
    command_line()
