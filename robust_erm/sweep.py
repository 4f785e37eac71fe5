"""Many runs: check them all, train them in packs on workers, report."""

from __future__ import annotations

import errno
import logging
import shutil
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from robust_erm import plan
from robust_erm.config import Run, resolve, title
from robust_erm.errors import ConfigError, require
from robust_erm.live import View, checking
from robust_erm.locks import Held
from robust_erm.problem import MARGINS, find_margins, radii
from robust_erm.report import Failure, Point, Result, failures, report
from robust_erm.run_folder import RunFolder, folder_of
from robust_erm.terminal import console, set_up_logging
from robust_erm.workers import Event, Pool, described

log = logging.getLogger("robust_erm")

Config = DictConfig | dict[str, Any] | ConfigError  # the last: a point that does not compose

_FULL = (errno.ENOSPC, errno.EDQUOT)
_AGAIN = 2.0  # seconds between two looks at runs that another process trains


def check_all(configs: Iterable[Config], labels: Sequence[str], elsewhere: bool = False) -> list[Run]:
    """Resolve and check every config before anything is trained; ``elsewhere``: devices are not looked for.

    Raises:
        SystemExit: status 2, after one line for each bad point (at most ten are shown).
    """
    runs, faults, many = [], [], len(labels) > 1
    owners: dict[Path, str] = {}
    places: dict[str, Path] = {}
    labelled: dict[str, str] = {}
    with checking() as tick:
        for config, label in zip(configs, labels, strict=True):
            try:
                if isinstance(config, ConfigError):
                    raise config
                run = resolve(config)
                if not elsewhere:
                    run.trainer.check()
                path = folder_of(run)
                if run.id not in places:
                    RunFolder(run).check()
                first, owner = places.setdefault(run.id, path), owners.setdefault(path, run.id)
                require(first == path, "output_dir", path.parent, f"this run goes to {first} too; choose one")
                require(
                    owner == run.id, "run_dir", path, "is the folder of several points; leave run_dir out of sweeps"
                )
                runs.append(run)
                labelled.setdefault(run.id, label)
                tick(f"checked {len(runs)} of {len(labels)} points", run.trainer.progress)
            except ConfigError as error:
                faults.append(f"{error}" + (f"   [{label}]" if many else ""))
        if not faults:
            todo = [run for run in runs if RunFolder(run).missing]
            find_margins(todo, plan.cores(), lambda n, of: tick(f"{n} of {of} exact margins", runs[0].trainer.progress))
            for run in todo:
                try:
                    radii(run)
                except ConfigError as error:
                    faults.append(f"{error}" + (f"   [{labelled[run.id]}]" if many else ""))
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
        if many:
            print(
                f"robust_erm: {len(faults)} of {len(labels)} points are not valid; nothing was trained", file=sys.stderr
            )
        raise SystemExit(2)
    return runs


@dataclass(frozen=True)
class Job:
    """A pack on its way: number, runs, how often a worker has died of it, exact margins known."""

    number: int
    runs: list[Run]
    deaths: int = 0
    margins: dict[Any, float] = field(default_factory=dict)


def work(job: Job, report: Callable[[Any], None], stop: Callable[[], bool], worker: int, cores: int) -> Any:
    """What a worker does with a job."""
    from robust_erm.pack import train_pack

    set_up_logging()
    MARGINS.update(job.margins)
    device = job.runs[0].trainer.torch_device
    if device == torch.device("cuda"):
        device = torch.device("cuda", worker % torch.cuda.device_count())
    return train_pack(job.runs, report, stop, device, cores)


class Sweep:
    """The runs of one sweep on their way to results.

    Args:
        runs: checked, each id once.
        workers, size: see :func:`robust_erm.plan.packs`; ``workers=0`` trains in this process.

    Attributes:
        results: by run id, so far.
        held: runs that another process trains.
    """

    def __init__(self, runs: Sequence[Run], workers: int | None, size: int | None) -> None:
        self.results: dict[str, Result] = {}
        self.held: list[Run] = []
        self.full = ""
        todo = []
        for run in runs:
            summary = RunFolder(run).read_summary()
            if summary is None:
                todo.append(run)
            else:
                self.results[run.id] = summary
        self.found = Counter(str(summary["status"]) for summary in self.results.values() if isinstance(summary, dict))
        self.size, self.asked, self.todo = size, workers, todo
        self.jobs: deque[Job] = deque()
        self.count = 0

    def _plan(self, runs: list[Run]) -> None:
        for members in plan.packs(runs, self.size, self.asked):
            self._put([runs[i] for i in members])

    def _put(self, runs: list[Run], deaths: int = 0) -> None:
        self.count += 1
        known = {(run.data, run.seed, run.attack.p) for run in runs} & MARGINS.keys()
        self.jobs.append(Job(self.count, runs, deaths, {key: MARGINS[key] for key in known}))

    def train(self, viewed: Callable[[int, int, bool], View] = View, wait: bool = True) -> dict[str, Result]:
        """Train what is left to train; the results by run id.

        Args:
            viewed: what shows how it goes.
            wait: for runs that another process trains; they are left in ``held`` otherwise.
        """
        if not self.todo:
            return self.results
        self._plan(self.todo)
        first = self.todo[0]
        count = plan.workers_for(len(self.jobs), self.asked, first.trainer.torch_device)
        steps = sum(run.stop.steps for run in self.todo)
        with viewed(len(self.todo), steps, not first.trainer.progress) as self.view:
            pool = Pool(partial(work, cores=max(1, plan.cores() // count)), count) if count else None
            try:
                self._drain(pool)
                while self.held and wait:
                    self._wait(pool)
            except KeyboardInterrupt:
                self._interrupted(pool)
            finally:
                if pool:
                    pool.close()
        return self.results

    def _drain(self, pool: Pool | None) -> None:
        """Until every job has ended."""
        self.view.packs = self.view.packs_done + len(self.jobs)
        while self.jobs or (pool and pool.jobs):
            if self.full:
                for job in self.jobs:
                    self._fail(job.runs, Failure(f"not started: {self.full}"))
                self.jobs.clear()
            if pool is None:
                self._here(self.jobs.popleft()) if self.jobs else None
                continue
            for number in pool.idle:
                if self.jobs:
                    job = self.jobs.popleft()
                    self._announce(job)
                    pool.give(number, job)
            for event in pool.events(0.25):
                self._handle(event)
            self.view.tick()

    def _announce(self, job: Job) -> None:
        run = job.runs[0]
        self.view.start(job.number, f"{title(run)}, {len(job.runs)} runs", len(job.runs), run.stop.steps)

    def _here(self, job: Job) -> None:
        """Train a job in this process."""
        from robust_erm.pack import train_pack

        self._announce(job)

        def told(value: Any) -> None:
            self.view.progress(job.number, value)
            self.view.tick()

        try:
            outcome: tuple[str, Any] = ("done", train_pack(job.runs, told))
        except SystemExit:  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from None
        except Exception as error:
            outcome = ("failed", described(error))
        self._handle(Event(0, outcome[0], job, outcome[1]))

    def _handle(self, event: Event) -> None:
        job: Job = event.job
        if event.kind == "progress":
            self.view.progress(job.number, event.value)
            return
        outcomes: Counter[str] = Counter()
        if event.kind == "done":
            for run, result in zip(job.runs, event.value, strict=True):
                if isinstance(result, Held):
                    self.held.append(run)
                else:
                    self.results[run.id] = result
                    outcomes[str(result["status"])] += 1
        elif event.kind == "failed":
            outcomes = self._failed(job, event.value)
        elif event.kind == "died":
            outcomes = self._died(job, event.value)
        self.view.stop(job.number, outcomes)
        self.view.packs = self.view.packs_done + len(self.jobs) + len(self.view.running)

    def _failed(self, job: Job, said: dict[str, Any]) -> Counter[str]:
        """A pack that raised: its halves again, down to the run that is to blame."""
        if said["errno"] in _FULL or "No space left" in said["cause"]:
            self.full = said["cause"]
            return self._fail(job.runs, Failure(said["cause"]))
        if len(job.runs) == 1:
            log.error("%s failed: %s", job.runs[0].name, said["cause"])
            return self._fail(job.runs, Failure(said["cause"], said["traceback"]))
        log.warning("a pack of %d runs failed (%s); trying its halves", len(job.runs), said["cause"])
        self._halve(job)
        return Counter()

    def _died(self, job: Job, code: int | None) -> Counter[str]:
        """A worker that is gone: its pack in halves, each from its checkpoints; a single run once more."""
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        cause = f"the worker died ({name})" + (": out of memory?" if name == "SIGKILL" else "")
        if len(job.runs) == 1 and job.deaths:
            return self._fail(job.runs, Failure(cause))
        log.warning("%s while training %d runs; they go on from their checkpoints", cause, len(job.runs))
        if len(job.runs) == 1:
            self._put(job.runs, job.deaths + 1)
        else:
            self._halve(job)
        return Counter()

    def _halve(self, job: Job) -> None:
        half = len(job.runs) // 2
        self._put(job.runs[:half])
        self._put(job.runs[half:])

    def _fail(self, runs: list[Run], failure: Failure) -> Counter[str]:
        self.results |= {run.id: failure for run in runs}
        for run in runs:
            if failure.traceback and folder_of(run).is_dir():
                RunFolder(run).log(failure.traceback)
        return Counter(failed=len(runs))

    def _wait(self, pool: Pool | None) -> None:
        """Runs that another process trains: look again until it has ended them, or has ended itself."""
        time.sleep(_AGAIN)
        held, self.held = self.held, []
        self.view.waiting = len(held)
        self.view.tick()
        self._plan(held)
        self._drain(pool)
        self.view.waiting = len(self.held)

    def _interrupted(self, pool: Pool | None) -> None:
        console.print("interrupted: leaving checkpoints ...")
        if pool:
            for event in pool.stop():
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


def run_one(config: DictConfig) -> dict[str, Any]:
    """Check, train and report one run, in this process; its table and figure go to its own folder."""
    set_up_logging()
    run = check_all([config], [""])[0]
    result = train_all([run], 0, 1)[0]
    report([Point.of(run)], [result], folder_of(run))
    if isinstance(result, Failure):
        raise SystemExit(1)
    return result


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
        common = set(overrides[0]).intersection(*overrides[1:]) if len(overrides) > 1 else set()
        labels = [" ".join(o for o in point if o not in common) for point in overrides]
        return check_all(configs, labels, elsewhere)
    except BaseException as error:
        leave_nothing(folder)
        if isinstance(error, ConfigError):
            print(f"robust_erm: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        raise


def run_sweep(
    configs: Iterable[Config],
    overrides: Sequence[Sequence[str]],
    folder: Path,
    workers: int | None = None,
    pack_size: int | None = None,
) -> list[tuple[Path, Result]]:
    """Check, train and report the points of one sweep; its table and figure go to ``folder``.

    Returns:
        Folder and result of every point, in order.
    """

    def fits() -> None:
        ok = pack_size is None or (isinstance(pack_size, int) and pack_size >= 1)
        require(ok, "hydra.launcher.pack_size", pack_size, "must be 1 or more, or null")
        ok = workers is None or (isinstance(workers, int) and workers >= 0)
        require(ok, "hydra.launcher.workers", workers, "must be 0 (this process) or more, or null")

    runs = checked(configs, overrides, folder, fits)
    results = train_all(runs, workers, pack_size)
    points = [Point.of(run) for run in runs]
    if runs[0].report:
        report(points, results, folder)
    else:
        failures(points, results)
    return [(folder_of(run), result) for run, result in zip(runs, results, strict=True)]


def leave_nothing(folder: Path) -> None:
    """Remove the folder that Hydra made for a sweep that was refused, and what it was made in."""
    if {p.name for p in folder.glob("*")} <= {"multirun.yaml"}:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in list(folder.parents)[:2]:
            try:
                parent.rmdir()
            except OSError:
                return
