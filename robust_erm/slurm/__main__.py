"""A sweep on the cluster, from any later shell.

python -m robust_erm.slurm status|watch|collect|cancel|resume outputs/sweeps/<sweep>
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.report import Failure
from robust_erm.reports.terminal import console, output, safe, say, set_up_logging, told
from robust_erm.slurm import sbatch, submit
from robust_erm.slurm.conclude import command, conclude
from robust_erm.slurm.folder import SlurmSweep, found, opened, read_work, states
from robust_erm.slurm.launch import announce, follow, leave
from robust_erm.slurm.settings import Settings, changed, settings
from robust_erm.slurm.watch import Watch
from robust_erm.store import source
from robust_erm.store.config import resolve
from robust_erm.store.files import write_json
from robust_erm.store.trust import require_trusted
from robust_erm.sweeps.earlier import settled
from robust_erm.sweeps.exits import Parser, ended_cleanly
from robust_erm.training import contracts


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
        table.add_row(*map(safe, row))
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
    poll = submissions[-1].whole["settings"].get("poll", 10.0) if submissions else 10.0
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


def _require_owned(sweep: SlurmSweep) -> None:
    """Raise :class:`ConfigError` where somebody else wrote what would be submitted in this user's name."""
    for path in (sweep.path, *sweep.path.rglob("*.json")):
        owner = path.stat().st_uid
        require(owner == os.getuid(), "folder", path, f"belongs to another user ({owner}); its owner resumes it")


def _require_agreed(stored: Settings, chosen: Settings, yes: bool) -> None:
    """Show the shell lines that a submission has stored, and go on only where the user says so."""
    lines = {name: getattr(stored, name) for name in ("setup", "python", "srun", "sbatch")}
    kept = {k: v for k, v in lines.items() if v and v == getattr(chosen, k)}
    if not kept or yes:
        return
    for name, value in kept.items():
        say(f"stored with the submission, and run by the tasks: {name} = {value}")
    asked = sys.stdin.isatty() and input("submit with these? [y/N] ").strip().lower() in ("y", "yes")
    require(asked, "resume", ", ".join(kept), "was not agreed to; --yes agrees, <option>=<value> replaces it")


def resume(sweep: SlurmSweep, changes: list[str], yes: bool = False) -> int:
    """Submit again what has no result and is not under way."""
    sbatch.require_slurm()
    previous = sweep.submissions()
    require(bool(previous), "folder", sweep.folder, "nothing has been submitted yet")
    _require_owned(sweep)
    facts = previous[-1].whole
    stored = settings(facts["settings"])
    ours = [change for change in changes if not change.startswith(("stale=", "trust="))]
    chosen = changed(stored, ours)
    _require_agreed(stored, chosen, yes)
    own = dict(change.split("=", 1) for change in changes if change not in ours)
    standing = Watch(sweep).look(patient=False)
    works = [s.work(k) for s in previous for k in range(len(s.whole["tasks"]))]
    configs = {entry["id"]: (entry, path) for path in works for entry in read_work(path)["runs"]}
    runs = []
    for point in standing.points:
        ended = isinstance(standing.results.get(point.id), dict)
        if point.id in standing.waiting or (ended and point.id not in configs):
            continue
        require(point.id in configs, "folder", point.folder, "was never submitted; submit the line again")
        entry, path = configs[point.id]
        require_trusted(entry["config"], path, filter(None, own.get("trust", "").split(",")))
        run = resolve({**entry["config"], "stale": own.get("stale", "refuse")})
        if not ended:
            contracts.check(run)
        advice = "is another run with the code as it is now; submit the line again"
        require(run.id == point.id, "folder", point.folder, advice)
        runs.append(run)
    runs, stale = settled(runs, lambda line: say(line, console))  # also what has ended: results are not mixed
    if stale:
        return told([*stale, "nothing was submitted"], 2)
    runs = [run for run in runs if run.fresh or not isinstance(standing.results.get(run.id), dict)]
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
    parser = Parser(prog="robust_erm.slurm", description="Sweeps on a SLURM cluster.")
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
            of = "of the launcher: memory=32 time=600; also stale=keep|retrain, trust=<modules>"
            one.add_argument("changes", nargs="*", metavar="OPTION=VALUE", help=of)
            one.add_argument("--yes", action="store_true", help="submit with the shell lines that are stored there")
    options, after = parser.parse_known_args(arguments)
    if options.verb == "resume":  # argparse takes no options between the changes
        options.changes += [word for word in after if not word.startswith("-")]
        after = [word for word in after if word.startswith("-")]
    if after:
        parser.error(f"unrecognized arguments: {' '.join(after)}")
    set_up_logging()
    try:
        if options.folder is None:
            return sweeps(Path("outputs"))
        sweep = opened(options.folder.absolute())
        folder = options.folder.absolute()
        if Path(sweep.facts["cwd"]).is_dir():
            os.chdir(sweep.facts["cwd"])  # what is relative was so there
        sweep = SlurmSweep(Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder)
        if options.verb == "resume":
            return resume(sweep, options.changes, options.yes)
        return {"status": status, "watch": watch, "collect": collect, "cancel": cancel}[options.verb](sweep)
    except ConfigError as error:
        return told([str(error)], 2)
    except OSError as error:
        return told([f"folder = {error.filename or options.folder}: {error.strerror}"], 2)
    except KeyboardInterrupt:
        return 130


def command_line() -> None:
    """The console command ``robust-erm-slurm``."""
    with ended_cleanly():
        sys.exit(main())


if __name__ == "__main__":
    command_line()
