"""What SLURM says of jobs, with and without accounting; nothing here needs SLURM to be installed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass

_FIELDS = {"JobArrayID": 40, "State": 20, "Reason": 60, "exit_code": 12, "RestartCnt": 12, "NodeList": 60}
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
_OVER = {*_ENDED, "PREEMPTED", "REVOKED", "GONE"}
_ALIVE = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")


@dataclass(frozen=True)
class Seen:
    """A job, or a task of an array, as SLURM sees it.

    Args:
        state: in SLURM's words: PENDING, RUNNING, COMPLETING, FAILED, ...; GONE where it has forgotten the job.
        reason: why it waits.
        code: exit status and signal, as far as SLURM tells.
        restarts: how often it has been requeued.
        node: where it runs, or ran.
    """

    state: str
    reason: str = ""
    code: str = ""
    restarts: int = 0
    node: str = ""

    @property
    def over(self) -> bool:
        """Whether it will not run again."""
        return self.state in _OVER


def ask(*command: str) -> tuple[str, str] | None:
    """Standard output and error of one of SLURM's commands; None where there is none, or it hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout, done.stderr


def _squeue(*options: str) -> str | None:
    """What squeue prints, nothing for jobs that it has forgotten; None where SLURM does not answer."""
    said = ask("squeue", "--noheader", "--states=all", *options)
    return None if said is None or ("error" in said[1] and "Invalid job id" not in said[1]) else said[0]


def look(jobs: Collection[str]) -> dict[str, Seen] | None:
    """What squeue knows of these jobs: by name, ``12`` or ``12_3`` for a task; None where SLURM does not answer.

    It knows of what has ended for some minutes (MinJobAge); then see :func:`ended`.
    """
    if not jobs:
        return {}
    format_ = ",".join(f"{name}:{width}" for name, width in _FIELDS.items())
    said = _squeue("--array", f"--jobs={','.join(sorted(jobs))}", f"--Format={format_}")
    if said is None:
        return None
    found = {}
    for line in said.splitlines():
        values, begin = [], 0
        for width in _FIELDS.values():
            values.append(line[begin : begin + width].strip())
            begin += width
        job, state, reason, code, restarts, node = values
        if code.isdigit():  # as wait(2) has it; sacct says status:signal
            code = f"{int(code) >> 8}:{int(code) & 127}"
        waits = reason if reason not in ("None", "N/A") else ""
        found[job] = Seen(state, waits, code, int(restarts) if restarts.isdigit() else 0, node)
    return found


def ended(jobs: Collection[str]) -> dict[str, Seen]:
    """What accounting knows of these jobs, by name; nothing where there is none."""
    given = f"--jobs={','.join(sorted(jobs))}"
    said = ask("sacct", "--noheader", "--parsable2", "-X", given, "--format=JobID,State,ExitCode,NodeList")
    return _read_sacct(said[0]) if said is not None else {}


def _read_sacct(text: str) -> dict[str, Seen]:
    """The lines of ``sacct --parsable2``; ``CANCELLED by 1000`` is CANCELLED, waiting tasks are left to squeue."""
    found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 4 and "[" not in fields[0] and fields[0]:
            job, state, code, node = fields
            found[job] = Seen(state.split()[0] if state else "GONE", code=code, node=node)
    return found


def this_job() -> tuple[str, int] | None:
    """The job that this process belongs to and how often it has been requeued, or None outside SLURM.

    A task of an array by its own name: one of the tasks has the number of the array, which means all.
    """
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{job}_{task}" if job and task else os.environ.get("SLURM_JOB_ID")
    return None if name is None else (name, int(os.environ.get("SLURM_RESTART_COUNT") or 0))


def named(name: str) -> str | None:
    """The number of the job of that name, where SLURM still knows it."""
    numbers = (_squeue(f"--name={name}", "--format=%F") or "").split()
    return numbers[0] if numbers else None


_answers: dict[str, tuple[float, bool | None]] = {}


def runs(job: str) -> bool | None:
    """Whether ``job`` (``12``, or ``12_3``, a task) runs just now; None where nobody knows.

    Answers are kept for some seconds: one dead job may have left many locks.
    """
    when, answer = _answers.get(job, (-60.0, None))
    if time.monotonic() - when < 10:
        return answer
    said = _squeue(f"--jobs={job}", "--format=%T")
    answer = None if said is None else said.strip() in _ALIVE
    _answers[job] = (time.monotonic(), answer)
    return answer
