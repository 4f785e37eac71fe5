"""How a submitted sweep stands: results so far, failures with their cause, and waiting for the rest."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robust_erm.reports.live import View
from robust_erm.reports.report import Failure, Point, Result
from robust_erm.reports.terminal import console, say
from robust_erm.slurm.folder import SlurmSweep, Task, ending, states
from robust_erm.store import locks
from robust_erm.store.files import Damaged
from robust_erm.store.reading import SUMMARY, read_summary

_PATIENCE = 15.0  # seconds after the end of a task within which a network file system shows its last word


_VISIBLE = 90.0  # the same for the results that it names: a directory may be seen as it was a minute ago


@dataclass
class Standing:
    """A sweep as it stands.

    Args:
        points: in order.
        results: by run id: summaries and failures.
        tasks: of all submissions.
        waiting: ids of runs that may still get a result by themselves.
        held: of these, runs that another process trains.
        dead: tasks that ended without their last word.
    """

    points: list[Point]
    results: dict[str, Result]
    tasks: list[Task]
    waiting: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    dead: list[Task] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Runs with a summary."""
        return sum(isinstance(result, dict) for result in self.results.values())

    @property
    def failed(self) -> int:
        """Runs that will have none by themselves."""
        return len(self.results) - self.done


def _place(sweep: SlurmSweep, folder: Path) -> Path:
    """The folder of a run: where it was, or beside the sweep where all of it has been moved."""
    moved = sweep.folder.resolve().parents[1] / folder.name
    return moved if moved.is_dir() and not folder.is_dir() else folder


class Watch:
    """Looks at a sweep again and again; summaries are read once."""

    def __init__(self, sweep: SlurmSweep) -> None:
        self.sweep = sweep
        self.points = [Point(p["id"], _place(sweep, Path(p["folder"])), {}) for p in sweep.facts["points"]]
        self.summaries: dict[str, dict[str, Any]] = {}
        self.work: dict[tuple[Path, int], list[str]] = {}
        self.missed: dict[str, float] = {}
        self.damaged: dict[str, str] = {}
        self.told: set[str] = set()

    def look(self, patient: bool = True, everywhere: bool = True) -> Standing:
        """How the sweep stands now.

        Args:
            patient: for some seconds a task that has ended may still get its word in.
            everywhere: look for the results of tasks that are under way, too.
        """
        tasks = self.sweep.tasks()
        for parent in {point.folder.parent for point in self.points}:
            with suppress(FileNotFoundError):
                os.listdir(parent)  # asks the server which folders there are
        latest = {id_: task for task in tasks for id_ in self.ids(task)}  # of several submissions, the last
        for point in self.points:
            task = latest.get(point.id)
            if point.id not in self.summaries and (everywhere or task is None or not task.active):
                self._read(point)
        standing = Standing(self.points, dict(self.summaries), tasks)
        for point in self.points:
            task = latest.get(point.id)
            if point.id in self.summaries or task is None:
                continue
            named = point.id in task.said.get("results", [])
            late = patient and (named or not task.done) and self._late(task, _VISIBLE if named else _PATIENCE)
            if task.active or late:
                standing.waiting.add(point.id)
            elif point.id in self.damaged:
                standing.results[point.id] = Failure(f"{self.damaged[point.id]}; resume trains it again")
            else:
                self._without_result(point, task, standing)
        return standing

    def _read(self, point: Point) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            if SUMMARY in os.listdir(point.folder):  # which asks the server; whether a file exists may be remembered
                try:
                    self.summaries[point.id] = read_summary(point.folder)
                except Damaged as error:
                    self.damaged[point.id] = str(error)

    def tell(self, standing: Standing) -> None:
        """Print what tasks want to be known, whatever comes of it; each note once."""
        new = {note for task in standing.tasks for note in task.said.get("notes", [])} - self.told
        self.told |= new
        for note in sorted(new):
            say(f"note: {note}", console)

    def ids(self, task: Task) -> list[str]:
        """The runs of a task."""
        key = (task.submission.path, task.number)
        if key not in self.work:
            self.work[key] = task.ids
        return self.work[key]

    def _late(self, task: Task, seconds: float) -> bool:
        return time.monotonic() - self.missed.setdefault(task.job, time.monotonic()) < seconds

    def _without_result(self, point: Point, task: Task, standing: Standing) -> None:
        said = task.said.get("failures", {}).get(point.id)
        place = f"task {task.number} (job {task.job})"
        if said is not None:
            standing.results[point.id] = Failure(said["cause"], said["traceback"])
        elif point.id in task.said.get("results", []):
            standing.results[point.id] = Failure(f"{place} has trained it, but no result is to be seen here")
        elif task.done:
            holder = locks.holder(point.folder) if point.folder.is_dir() else None
            if holder is not None:
                standing.waiting.add(point.id)
                standing.held.add(point.id)
            else:
                cause = f"was in other hands when {place} came to it, and has no result: resume"
                standing.results[point.id] = Failure(cause)
        else:
            if task not in standing.dead:
                standing.dead.append(task)
            standing.results[point.id] = Failure(f"{place} ended without a word: {ending(task)}")


def wait(sweep: SlurmSweep, seconds: float, quiet: bool) -> Standing:
    """Until nothing more comes by itself, with a live view.

    Raises:
        KeyboardInterrupt: nothing is cancelled by it.
    """
    watch = Watch(sweep)
    standing = watch.look()
    todo = standing.waiting
    mine = {task.job for task in standing.tasks if todo.intersection(watch.ids(task))}
    steps = sum(task.steps for task in standing.tasks if task.job in mine)
    with View(len(todo), steps, quiet) as view:
        view.unit, view.packs = "tasks", len(mine)
        while True:
            watch.tell(standing)
            _show(view, watch, standing, {n: task for n, task in enumerate(standing.tasks) if task.job in mine}, todo)
            if not standing.waiting:
                return standing
            time.sleep(seconds)
            standing = watch.look(everywhere=False)


def _show(view: View, watch: Watch, standing: Standing, tasks: dict[int, Task], todo: set[str]) -> None:
    """Bring the view up to date with the tasks that had not ended before it began, by number."""
    elsewhere = set(todo)  # runs that no running task counts
    for number, task in tasks.items():
        progress = task.said.get("progress")
        if not task.running:
            if number in view.running:
                if progress:
                    view.progress(number, progress)
                view.stop(number, Counter())
            continue
        elsewhere.difference_update(watch.ids(task))
        if number not in view.running:
            attempt = task.said["attempts"][-1]
            gpus = f", GPU {attempt['gpus']}" if attempt["gpus"] else ""
            view.start(number, f"{task.job} on {attempt['node']}{gpus}", task.runs, task.runs)
        if progress:
            view.progress(number, {**progress, "done": sum(progress["ended"].values())})
    view.waiting = len(standing.held)
    view.packs_done = sum(not task.active for task in tasks.values())
    results = (standing.results.get(id_) for id_ in elsewhere)
    view.ended = Counter(str(r["status"]) if isinstance(r, dict) else "failed" for r in results if r is not None)
    pending = [
        task.seen.reason for task in tasks.values() if task.seen and task.state == "PENDING" and task.seen.reason
    ]
    reasons = f" ({', '.join(sorted(set(pending)))})" if pending else ""
    view.note = states(task for task in tasks.values() if task.active and not task.running) + reasons
    view.tick()
