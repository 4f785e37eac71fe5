"""From checked runs to a job array, through submitit."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError, require
from robust_erm.slurm import sbatch
from robust_erm.slurm.folder import SlurmSweep, Submission
from robust_erm.slurm.settings import Settings, snapshots
from robust_erm.slurm.task import Share
from robust_erm.store import locks, queue, source
from robust_erm.store.config import Run
from robust_erm.store.files import write_json
from robust_erm.store.identity import as_data
from robust_erm.store.run_folder import RunFolder
from robust_erm.sweeps import plan
from robust_erm.training.problem import MARGINS

_WORTH = 8  # runs that train together about as fast as one, and are not worth several GPUs


def shares(runs: Sequence[Run], chosen: Settings) -> list[list[int]]:
    """Indices of the runs of each task."""
    packs = plan.shares(runs, chosen.pack_size, chosen.array_parallelism, plan.BOUNDLESS, _WORTH)
    most = chosen.tasks or 4 * chosen.array_parallelism
    return plan.tasks(runs, packs, min(most, _max_array_size()))


def _max_array_size() -> int:
    """The most tasks that the cluster takes in one array; SLURM's default where it does not say."""
    said = queue.ask("scontrol", "show", "config")
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", said[0]) if said else None
    return int(found[1]) - 1 if found else 1000


def submit(sweep: SlurmSweep, runs: Sequence[Run], chosen: Settings) -> Submission:
    """Submit ``runs``, or nothing at all.

    Raises:
        ConfigError: sbatch refuses, or a run that is to be trained afresh is being trained.
    """
    sbatch.require_time(chosen)
    afresh = [run for run in runs if run.fresh]
    for run in afresh:
        _require_free(run)
    runs = [dataclasses.replace(run, fresh=False) for run in runs]  # done once, now: not when a task is requeued
    members = shares(runs, chosen)
    code = source.snapshot(snapshots(chosen, sweep.folder))
    name = f"robust-erm-{sweep.folder.name[-6:]}-{uuid.uuid4().hex[:6]}"
    facts = {
        "job": "",
        "name": name,
        "tasks": [len(indices) for indices in members],
        "steps": [sum(runs[i].steps for i in indices) for indices in members],
        "code": source.fingerprint(),
        "revision": source.revision(),
        "settings": dataclasses.asdict(chosen),
    }
    with _undisturbed():
        place = _written(sweep, facts, [_work([runs[i] for i in indices], chosen) for indices in members])
        parameters = sbatch.parameters(chosen, place, code, name)
        extra = parameters["additional_parameters"]
        held = bool(afresh) and "hold" not in extra  # until the old results are gone
        parameters["additional_parameters"] = {**extra, "hold": True} if held else extra
        try:
            job = _sent(place, parameters, len(members), chosen)
        except ConfigError:
            if ghost := queue.named(name):  # accepted, and the answer lost
                queue.ask("scancel", ghost)
            shutil.rmtree(place, ignore_errors=True)
            raise
        for run in afresh:
            RunFolder(run).clear()
        if held:
            queue.ask("scontrol", "release", job)
        write_json(place / "submission.json", facts | {"job": job})
    return Submission(place)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until this is done."""
    heard: list[int] = []
    kept = {s: signal.signal(s, lambda number, _: heard.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


def _written(sweep: SlurmSweep, facts: dict[str, Any], work: list[dict[str, Any]]) -> Path:
    """The folder of the next submission, with what its tasks have to do; it appears whole."""
    sweep.path.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=sweep.path, prefix=".making-"))
    write_json(making / "submission.json", facts)
    for k, content in enumerate(work):
        write_json(Submission(making).work(k), content)
    making.chmod(0o755)
    number = len(sweep.submissions()) + 1
    while True:
        place = sweep.path.absolute() / str(number)
        try:
            making.rename(place)
            return place
        except OSError:
            if not place.is_dir():
                raise
            number += 1  # taken, perhaps by another shell just now


def _sent(place: Path, parameters: dict[str, Any], tasks: int, chosen: Settings) -> str:
    """The number of the job."""
    from submitit.core.utils import FailedJobError
    from submitit.slurm.slurm import SlurmExecutor

    executor = SlurmExecutor(place, python=chosen.python)
    executor.update_parameters(**parameters)
    try:
        with sbatch.outside_of_jobs(), redirect_stderr(io.StringIO()):  # submitit prints what it raises
            jobs = executor.submit_array([Share(str(place), k) for k in range(tasks)])
    except FailedJobError as error:
        raise sbatch.refusal(str(error), chosen) from None
    job: str = jobs[0].job_id.partition("_")[0]
    return job


def _require_free(run: Run) -> None:
    folder = RunFolder(run).path
    holder = locks.holder(folder) if folder.is_dir() else None
    advice = f"cannot be trained afresh: {holder} trains it; let it end, or cancel it"
    require(holder is None, "fresh", folder, advice)


def _work(runs: Sequence[Run], chosen: Settings) -> dict[str, Any]:
    margins = [MARGINS.get((run.data, run.seed, run.attack.p)) for run in runs]
    return {
        "code": source.fingerprint(),
        "workers": chosen.workers,
        "pack_size": chosen.pack_size,
        "max_requeues": chosen.max_requeues,
        "poll": chosen.poll,
        "runs": [{"id": r.id, "margin": m, "config": as_data(r)} for r, m in zip(runs, margins, strict=True)],
    }
