"""A sweep on the cluster as it lies on disk, in ``slurm/`` of the sweep's folder.

``sweep.json`` holds the points; ``1/``, ``2/``, ... are submissions: ``submission.json``, and for every task
``task-<k>.json`` (what it has to do: resolved configs) and ``said-<k>.json`` (how it goes), beside submitit's
script, pickles and logs. Files are written whole or not at all, and nothing depends on their times.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError
from robust_erm.store import queue
from robust_erm.store.files import Damaged, read_json, require_shape, write_json
from robust_erm.store.queue import Seen

_LINES = 8  # of a log, in a report


def read(path: Path) -> dict[str, Any]:
    """JSON, or nothing where there is no such file yet."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return {}


def read_sweep(path: Path) -> dict[str, Any]:
    """sweep.json, or nothing where there is none; raises :class:`Damaged`."""
    content = read(path)
    if content:
        require_shape(path, content, cwd=str, points=[dict])
        for point in content["points"]:
            require_shape(path, point, id=str, folder=str)
    return content


def read_submission(path: Path) -> dict[str, Any]:
    """submission.json, or nothing where there is none; raises :class:`Damaged`."""
    content = read(path)
    if content:
        kinds = {"job": str, "name": str, "code": str, "revision": str | None, "settings": dict}
        require_shape(path, content, tasks=[int], steps=[int], **kinds)
        if len(content["tasks"]) != len(content["steps"]) or not content["tasks"]:
            raise Damaged(path, "names other numbers of tasks and of steps, or none")
        require_shape(path, {"cancelled": content.get("cancelled", [])}, cancelled=[int])
    return content


def read_work(path: Path) -> dict[str, Any]:
    """What a task has to do: task-<k>.json; raises :class:`Damaged`, also where there is none."""
    content = read(path)
    if not content:
        raise Damaged(path, "is missing")
    require_shape(path, content, code=str, runs=[dict], max_requeues=int, poll=int | float)
    for entry in content["runs"]:
        require_shape(path, entry, id=str, config=dict, margin=int | float | str | None)
    return content


def read_said(path: Path) -> dict[str, Any]:
    """What a task says of itself: said-<k>.json, or nothing where it has said nothing; raises :class:`Damaged`."""
    content = read(path)
    if content:
        lists = {"results": [str], "held": [str], "notes": [str], "attempts": [dict]}
        require_shape(path, content, state=str, restarts=int, failures=dict, progress=dict, **lists)
        for failure in content["failures"].values():
            require_shape(path, failure, cause=str, traceback=str)
        for attempt in content["attempts"]:
            require_shape(path, attempt, node=str, gpus=str)
        if content["progress"]:
            require_shape(path, content["progress"], t=int, steps=int, spared=int, ended=dict)
            numbers = content["progress"]["ended"]
            require_shape(path, numbers, **dict.fromkeys(numbers, int))
    return content


@dataclass(frozen=True)
class Submission:
    """One job, an array of tasks unless it has only one."""

    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """submission.json: job, name, tasks and steps (runs and most steps of each), settings, code, revision."""
        return read_submission(self.path / "submission.json")

    @property
    def whole(self) -> dict[str, Any]:
        """The same; raises :class:`Damaged` where there is no submission.json: it was killed while it was submitted."""
        facts = self.facts
        if not facts:
            raise Damaged(self.path / "submission.json", "is missing; submit the line again")
        return facts

    def job_of(self, facts: dict[str, Any], number: int) -> str:
        """What SLURM calls task ``number``."""
        return str(facts["job"]) + (f"_{number}" if len(facts["tasks"]) > 1 else "")

    def work(self, number: int) -> Path:
        """What task ``number`` has to do."""
        return self.path / f"task-{number}.json"

    def said(self, number: int) -> Path:
        """What task ``number`` says of itself."""
        return self.path / f"said-{number}.json"


@dataclass
class Task:
    """A task as it stands: what it says of itself, and what SLURM says of it (None: SLURM is silent)."""

    submission: Submission
    number: int
    runs: int
    steps: int
    job: str
    said: dict[str, Any] = field(default_factory=dict)
    seen: Seen | None = None

    @property
    def done(self) -> bool:
        """Whether it has said its last word."""
        return self.said.get("state") == "done"

    @property
    def active(self) -> bool:
        """Whether it may still bring results by itself."""
        return not self.done and (self.seen is None or not self.seen.over)

    @property
    def running(self) -> bool:
        """Whether it trains just now."""
        return self.active and self.said.get("state") == "running" and self.state in ("RUNNING", "COMPLETING")

    @property
    def ids(self) -> list[str]:
        """The runs that it has to train."""
        return [entry["id"] for entry in read_work(self.submission.work(self.number))["runs"]]

    @property
    def state(self) -> str:
        """In one word."""
        if self.done:
            return "done"
        return "SLURM is silent" if self.seen is None else self.seen.state

    @property
    def requeues(self) -> int:
        """How often it has been requeued."""
        said: int = self.said.get("restarts", 0)
        return max(said, self.seen.restarts if self.seen else 0)

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.submission.path / f"{self.job}_0_log.out"

    def last_lines(self) -> list[str]:
        """The end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line.rstrip() for line in lines if line.strip()][-_LINES:]


def ending(task: Task) -> str:
    """How SLURM says that a task ended: state, exit status and signal, node."""
    seen = task.seen
    if seen is None:
        return "SLURM is silent"
    code = f", exit {seen.code}" if seen.code not in ("", "0:0") else ""
    requeues = f", after {task.requeues} requeues" if task.requeues else ""
    return f"{seen.state}{code}{f' on {seen.node}' if seen.node else ''}{requeues}"


class SlurmSweep:
    """The sweep whose table and figure go to ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "slurm"

    @property
    def facts(self) -> dict[str, Any]:
        """sweep.json: the points (id and folder of each), and the working directory."""
        return read_sweep(self.path / "sweep.json")

    def submissions(self) -> list[Submission]:
        """All, in order."""
        numbers = [int(p.name) for p in self.path.glob("*") if p.name.isdigit()]
        return [Submission(self.path / str(n)) for n in sorted(numbers)]

    def tasks(self) -> list[Task]:
        """All tasks of all submissions as they stand."""
        facts = [(s, s.facts) for s in self.submissions()]
        for submission, fact in facts:
            if fact and not fact["job"]:  # killed between sbatch and writing down what it answered
                fact["job"] = queue.named(fact["name"]) or "unknown"
                if fact["job"] != "unknown":
                    write_json(submission.path / "submission.json", fact)
        for submission, _ in facts:
            os.listdir(submission.path)  # asks the server; that a file was not there a minute ago may be remembered
        found = []
        for submission, fact in facts:
            for k, runs in enumerate(fact.get("tasks", [])):
                job = submission.job_of(fact, k)
                found.append(Task(submission, k, runs, fact["steps"][k], job, read_said(submission.said(k))))
        return self._seen(found, {s.path: fact.get("cancelled", []) for s, fact in facts})

    def _seen(self, tasks: list[Task], cancelled: dict[Path, list[int]]) -> list[Task]:
        """The tasks with what SLURM says of them; it is asked for no more than needed."""
        numbers = {task.job.partition("_")[0] for task in tasks if not task.done} - {"unknown"}
        seen = queue.look(numbers)
        if seen is None:
            return tasks
        forgotten = [task for task in tasks if not task.done and task.job not in seen]
        if forgotten:
            seen = queue.ended({task.job.partition("_")[0] for task in forgotten} - {"unknown"}) | seen
        for task in tasks:
            ours = task.number in cancelled[task.submission.path]  # accounting may be missing
            task.seen = seen.get(task.job, Seen("CANCELLED" if ours else "GONE"))
        return tasks


def opened(folder: str | Path) -> SlurmSweep:
    """The sweep in ``folder``.

    Raises:
        ConfigError: there is none.
    """
    sweep = SlurmSweep(Path(folder))
    if not sweep.facts:
        known = found(Path("outputs"))
        others = f"; sweeps here: {', '.join(map(str, known[-3:]))}" if known else ""
        raise ConfigError("folder", folder, f"holds no sweep that was submitted to SLURM{others}")
    return sweep


def found(outputs: Path) -> list[Path]:
    """Folders of submitted sweeps below ``outputs``."""
    return sorted(p.parent.parent for p in outputs.glob("sweeps/*/slurm/sweep.json"))


def states(tasks: Iterable[Task]) -> str:
    """How many tasks are in which state, in words."""
    return ", ".join(f"{n} {state.lower()}" for state, n in Counter(task.state for task in tasks).items())
