"""Runs that have been checked, on their way to results: packs on workers, failures, waiting."""

from __future__ import annotations

import errno
import logging
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import Any

import torch

from robust_erm.core.devices import DEVICE, MEMORY
from robust_erm.reports.live import View
from robust_erm.reports.report import Failure, Result
from robust_erm.reports.terminal import console, say
from robust_erm.store import locks
from robust_erm.store.config import Run
from robust_erm.store.identity import title
from robust_erm.store.locks import Held
from robust_erm.store.run_folder import RunFolder, folder_of
from robust_erm.sweeps import plan
from robust_erm.sweeps.seats import Seats
from robust_erm.sweeps.workers import Event, Pool, described
from robust_erm.training.faults import release, set_aside
from robust_erm.training.problem import MARGINS
from robust_erm.training.resources import cores

log = logging.getLogger("robust_erm")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_AGAIN = 2.0  # seconds between two looks at runs that another process trains


@dataclass(frozen=True)
class Job:
    """A pack on its way: number, runs, where, how often a worker has died of it, exact margins known.

    A job that a worker has died of, or had too little of a device's memory for, gets a process of its own. One that met
    an error of a device knows on which worker, ``broke_on``.
    """

    number: int
    runs: list[Run]
    device: torch.device
    deaths: int = 0
    broke_on: int | None = None
    margins: dict[Any, float | str] = field(default_factory=dict)


class _Sender(logging.Handler):
    """Sends what a worker warns of to the controller, whose terminal it is."""

    def __init__(self, report: Callable[[Any], None]) -> None:
        super().__init__(logging.WARNING)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # the controller is gone
            self.report({"said": (record.levelno, record.getMessage().strip())})


def _tell_controller(report: Callable[[Any], None]) -> None:
    """Warnings, Python's own among them, go through the controller and leave its live view alone."""
    logging.captureWarnings(True)
    for name in ("robust_erm", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_Sender(report)], False
    log.setLevel(logging.INFO)


def work(job: Job, report: Callable[[Any], None], stop: Callable[[], bool], worker: int, cores: int) -> Any:
    """What a worker does with a job."""
    from robust_erm.training.pack import train_pack

    _tell_controller(report)
    MARGINS.update(job.margins)
    device = job.device
    if device == torch.device("cuda"):
        device = torch.device("cuda", worker % torch.cuda.device_count())
    return train_pack(job.runs, report, stop, device, cores)


class Sweep:
    """The runs of one sweep on their way to results.

    Args:
        runs: checked, each id once.
        workers, size: see :func:`robust_erm.sweeps.plan.packs`; ``workers=0`` trains in this process.

    Attributes:
        results: by run id, so far.
        held: runs that another process trains.
    """

    def __init__(self, runs: Sequence[Run], workers: int | None, size: int | None) -> None:
        self.results: dict[str, Result] = {}
        self.held: list[Run] = []
        self.holders: set[str] = set()
        self.full = ""
        todo = []
        for run in runs:
            summary = RunFolder(run).read_summary()
            if summary is None:
                todo.append(run)
            else:
                self.results[run.id] = summary
                locks.clear(folder_of(run))  # of one that was killed between its summary and the end
        self.found = Counter(str(summary["status"]) for summary in self.results.values() if isinstance(summary, dict))
        self.size, self.asked, self.todo = size, workers, todo
        self.jobs: deque[Job] = deque()
        self.count = 0
        self.said: set[str] = set()
        self.pool: Pool | None = None
        self.seats: Seats | None = None

    def _plan(self, runs: list[Run]) -> None:
        for device, members in plan.packs(runs, self.size, self.asked):
            self._put([runs[i] for i in members], device)

    def _put(self, runs: list[Run], device: torch.device, deaths: int = 0, broke_on: int | None = None) -> None:
        self.count += 1
        known = {(run.data, run.seed, run.attack.p) for run in runs} & MARGINS.keys()
        self.jobs.append(Job(self.count, runs, device, deaths, broke_on, {key: MARGINS[key] for key in known}))

    def _hire(self, count: int) -> None:
        """Have workers, unless there are some."""
        if self.pool is None:
            self.pool = Pool(partial(work, cores=max(1, cores() // count)), count)
            self.seats = Seats(count, self.asked or None)

    def _next(self, number: int) -> Job | None:
        """The next job for worker ``number``, if any."""
        assert self.pool is not None
        assert self.seats is not None
        idle = self.pool.idle
        for job in self.jobs:
            if self.seats.may(number, job.device, job.broke_on, idle):
                self.jobs.remove(job)
                return job
        return None

    def train(self, viewed: Callable[[int, int, bool], View] = View, wait: bool = True) -> dict[str, Result]:
        """Train what is left to train; the results by run id.

        Args:
            viewed: what shows how it goes.
            wait: for runs that another process trains; they are left in ``held`` otherwise.
        """
        if not self.todo:
            return self.results
        self._plan(self.todo)
        steps = sum(run.steps for run in self.todo)
        with viewed(len(self.todo), steps, not self.todo[0].trainer.progress) as self.view:
            if count := plan.processes_for([job.device for job in self.jobs], self.asked):
                self._hire(count)
            try:
                self._drain()
                while self.held and wait:
                    self._wait()
            except KeyboardInterrupt:
                self._interrupted()
            finally:
                if self.pool:
                    self.pool.close()
        return self.results

    def _drain(self) -> None:
        """Until every job has ended; giving back what a pack held is cheap where they are trained in this process."""
        if self.pool is not None:
            self._until_ended()
            return
        import_module("robust_erm.training.pack")  # and all that it imports is set aside
        with set_aside():
            self._until_ended()

    def _until_ended(self) -> None:
        self.view.packs = self.view.packs_done + len(self.jobs)
        while self.jobs or (self.pool and self.pool.jobs):
            if self.full:
                for job in self.jobs:
                    self._fail(job.runs, Failure(f"not started: {self.full}"))
                self.jobs.clear()
            if self.pool is None:
                self._here(self.jobs.popleft()) if self.jobs else None
                continue
            for number in self.pool.idle:
                if (given := self._next(number)) is not None:
                    self._announce(given)
                    if given.deaths:
                        self.pool.renew(number)
                    self.pool.give(number, given)
            for event in self.pool.events(0.25):
                self._handle(event)
            self.view.tick()

    def _announce(self, job: Job) -> None:
        run = job.runs[0]
        self.view.start(job.number, f"{title(run)}, {len(job.runs)} runs", len(job.runs), run.steps)

    def _here(self, job: Job) -> None:
        """Train a job in this process."""
        from robust_erm.training.pack import train_pack

        self._announce(job)

        def told(value: Any) -> None:
            self.view.progress(job.number, value)
            self.view.tick()

        try:
            outcome: tuple[str, Any] = ("done", train_pack(job.runs, told, device=job.device))
        except SystemExit:  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from None
        except Exception as error:
            fault = described(error)
            outcome = ("broken" if fault["fault"] == DEVICE else "failed", fault)
        self._handle(Event(0, outcome[0], job, outcome[1]))
        release()  # what this pack held, before the next one
        if outcome[0] == "broken" or any(one.deaths for one in self.jobs):
            self._hire(1)  # this process could not do it, or should not

    def _handle(self, event: Event) -> None:
        job: Job = event.job
        if event.kind == "progress":
            if "said" not in event.value:
                self.view.progress(job.number, event.value)
            elif event.value["said"][1] not in self.said:  # several workers may say the same
                self.said.add(event.value["said"][1])
                log.log(*event.value["said"])
            return
        if self.seats is not None:
            self.seats.ended(event.number, event.kind)
        outcomes: Counter[str] = Counter()
        if event.kind == "done":
            for run, result in zip(job.runs, event.value, strict=True):
                if isinstance(result, Held):
                    self.held.append(run)
                    self._tell(result)
                else:
                    self.results[run.id] = result
                    outcomes[str(result["status"])] += 1
        elif event.kind == "failed":
            outcomes = self._failed(job, event.value)
        elif event.kind == "broken":
            outcomes = self._lost(replace(job, broke_on=event.number), "the device failed", event.value)
        elif event.kind == "died":
            outcomes = self._died(job, event.value)
        self.view.stop(job.number, outcomes)
        self.view.packs = self.view.packs_done + len(self.jobs) + len(self.view.running)

    def _tell(self, held: Held) -> None:
        """Say whom this sweep waits for, once each."""
        if held.by not in self.holders:
            self.holders.add(held.by)
            what = f"{held.by} trains it, by its lock {held.lock}"
            patience = f"who shows no life for {locks.PATIENCE:.0f} s is taken over; removing that file does so now"
            say(f"{held.lock.parent.name}: {what}; {patience}", console)

    def _failed(self, job: Job, said: dict[str, Any]) -> Counter[str]:
        """A pack that raised: its halves again, down to the run that is to blame."""
        if said["errno"] in _FULL or "No space left" in said["cause"]:
            self.full = said["cause"]
            return self._fail(job.runs, Failure(said["cause"]))
        if len(job.runs) == 1 and said["fault"] == MEMORY and not job.deaths:
            what = "%s: too little of a device's memory (%s); once more, in a process of its own"
            log.warning(what, job.runs[0].name, said["cause"])
            self._put(job.runs, job.device, job.deaths + 1)
            return Counter()
        if len(job.runs) == 1:
            log.error("%s failed: %s", job.runs[0].name, said["cause"])
            return self._fail(job.runs, Failure(said["cause"], said["traceback"]))
        log.warning("a pack of %d runs failed (%s); trying its halves", len(job.runs), said["cause"])
        self._halve(job)
        return Counter()

    def _died(self, job: Job, code: int | None) -> Counter[str]:
        """A worker that is gone."""
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        return self._lost(job, f"the worker died ({name})" + (": out of memory?" if name == "SIGKILL" else ""))

    def _lost(self, job: Job, cause: str, said: dict[str, Any] | None = None) -> Counter[str]:
        """A process that can do no more: its pack in halves, each from its checkpoints; a single run once more."""
        cause, traceback = (f"{cause} ({said['cause']})", said["traceback"]) if said else (cause, "")
        if len(job.runs) == 1 and job.deaths:
            return self._fail(job.runs, Failure(cause, traceback))
        log.warning("%s while training %d runs; they go on from their checkpoints", cause, len(job.runs))
        if len(job.runs) == 1:
            self._put(job.runs, job.device, job.deaths + 1, job.broke_on)
        else:
            self._halve(job)
        return Counter()

    def _halve(self, job: Job) -> None:
        half = len(job.runs) // 2
        for runs in (job.runs[:half], job.runs[half:]):
            self._put(runs, job.device, broke_on=job.broke_on)

    def _fail(self, runs: list[Run], failure: Failure) -> Counter[str]:
        self.results |= {run.id: failure for run in runs}
        for run in runs:
            if failure.traceback and folder_of(run).is_dir():
                RunFolder(run).log(failure.traceback)
        return Counter(failed=len(runs))

    def _wait(self) -> None:
        """Runs that another process trains: look again until it has ended them, or has ended itself."""
        time.sleep(_AGAIN)
        held, self.held = self.held, []
        self.view.waiting = len(held)
        self.view.tick()
        self._plan(held)
        self._drain()
        self.view.waiting = len(self.held)

    def _interrupted(self) -> None:
        console.print("interrupted: leaving checkpoints ...")
        if self.pool:
            for event in self.pool.stop():
                if event.kind == "done":
                    self._handle(event)
        ended = len(self.results) - sum(self.found.values())
        console.print(
            f"interrupted: {ended} of {len(self.todo)} runs have ended; what has been reached is kept, "
            "and the same line goes on from there",
            soft_wrap=True,
            highlight=False,
        )
        raise SystemExit(130)


def train_all(runs: Sequence[Run], workers: int | None, size: int | None) -> list[Result]:
    """The summary of every run, or why it has none; one failure takes no other run along."""
    results = Sweep(list({run.id: run for run in runs}.values()), workers, size).train()
    return [results[run.id] for run in runs]
