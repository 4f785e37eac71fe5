"""The end of a submitted sweep: table, failures, and what is known of tasks that ended without a word."""

from __future__ import annotations

import shlex
from pathlib import Path

from robust_erm.reports.report import Failure, Point, Result, report
from robust_erm.reports.terminal import console, say
from robust_erm.slurm.folder import SlurmSweep, Task, ending
from robust_erm.slurm.watch import Standing
from robust_erm.store.files import Damaged
from robust_erm.store.reading import read_config

_ADVICE = {
    "OUT_OF_MEMORY": "ask for more memory: resume ... memory=<GiB>",
    "TIMEOUT": "it had no time to requeue itself: resume ... time=<minutes>, or a longer warning=<seconds>",
    "NODE_FAIL": "the node failed, and SLURM did not requeue the job: resume",
    "CANCELLED": "somebody cancelled it: resume",
    "PREEMPTED": "it was preempted and, by the partition's choice, not requeued: resume",
    "DEADLINE": "its deadline came: resume",
    "GONE": "SLURM has forgotten it: resume",
}


def command(verb: str, folder: Path, *more: str) -> str:
    """How to go on, to copy and paste."""
    return " ".join(["python -m robust_erm.slurm", verb, shlex.quote(str(folder)), *more])


def conclude(sweep: SlurmSweep, standing: Standing) -> list[Result]:
    """Print the table, the failures and what to do; the results, in order; what still waits has none."""
    ended = [_with_config(p, r) for p in standing.points if (r := standing.results.get(p.id)) is not None]
    requeued = [f"{task.job} {task.requeues}x" for task in standing.tasks if task.requeues]
    if requeued:
        say(f"requeued: {', '.join(requeued)}", console)
    report([point for point, _ in ended], [result for _, result in ended], sweep.folder)
    for task in standing.dead:
        obituary(sweep, task)
    if standing.failed:
        say(f"only what has no result yet: {command('resume', sweep.folder)}")
    if standing.waiting:
        said = f"{len(standing.waiting)} runs have not ended yet: {command('watch', sweep.folder)}"
        say(said)
    return [standing.results.get(p.id, Failure("has not ended yet")) for p in standing.points]


def _with_config(point: Point, result: Result) -> tuple[Point, Result]:
    """A point as the report needs it; a result whose config cannot be read is a failure."""
    if isinstance(result, Failure):
        return point, result
    try:
        return Point(point.id, point.folder, read_config(point.folder)), result
    except (Damaged, FileNotFoundError) as error:
        return point, Failure(str(error))


def obituary(sweep: SlurmSweep, task: Task) -> None:
    """What is known of a task that ended without a word."""
    state = task.seen.state if task.seen else ""
    advice = _ADVICE.get(state, "see its log, mend what it says, and resume").replace(
        "resume ...", command("resume", sweep.folder)
    )
    lines = [f"task {task.number} (job {task.job}): {ending(task)}; {advice}", f"  log {task.log}"]
    lines += [f"  | {line}" for line in task.last_lines()] or ["  (empty: it never started; is this folder shared?)"]
    for line in lines:
        say(line)
