"""One process at a time in a run's folder.

A lock is a file that names its holder: host, process and when that process began, and its SLURM job. It is
stale once that process is gone from this host, or that job from the cluster; of any other holder on another
host nothing is known, and it is believed. Locks are numbered: whoever finds the last one stale makes the
next, which the file system lets one process do (a hard link; network file systems keep that, too). A lock
saves work, and keeps logs apart; results do not depend on it: a run ends with the same bytes whoever trains it,
and one who has lost its lock leaves no more checkpoints.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_erm.store import files, queue

LOCK = ".lock-"


@dataclass(frozen=True)
class Held:
    """A run that another process is training just now."""

    by: str


def began(pid: int) -> str | None:
    """When process ``pid`` began, in the kernel's ticks; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "" if not Path("/proc/self/stat").exists() else None


def _mine() -> dict[str, Any]:
    job, restarts = queue.this_job() or (None, 0)
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": began(os.getpid()),
        "job": job,
        "restarts": restarts,
    }


def _stale(held: dict[str, Any]) -> bool:
    if not held:
        return True
    job, restarts = held.get("job"), held.get("restarts", 0)
    mine = queue.this_job()
    if job is not None and mine is not None and job == mine[0] and restarts < mine[1]:
        return True  # this very job, before it was requeued
    if held["host"] == socket.gethostname():
        return bool(began(int(held["pid"])) != held["began"])
    return job is not None and queue.runs(job) is False


def _last(folder: Path) -> tuple[int, dict[str, Any] | None]:
    """Number and content of the last lock of ``folder``; 0 and None where there is none."""
    numbers = [int(p.name.removeprefix(LOCK)) for p in folder.glob(f"{LOCK}*") if p.name[len(LOCK) :].isdigit()]
    for number in sorted(numbers, reverse=True):
        with suppress(FileNotFoundError):  # given back just now
            return number, _read(folder / f"{LOCK}{number}")
    return 0, None


def _read(path: Path) -> dict[str, Any]:
    """A lock's content; that of a process which died while it was writing is empty, and stale."""
    try:
        return files.read_json(path)
    except files.Damaged:
        return {}


def _made(mine: Path, lock: Path) -> bool:
    """Whether we were the ones to make ``lock``; the file ``mine`` is its content."""
    try:
        os.link(mine, lock)
    except FileExistsError:
        return mine.stat().st_nlink == 2  # a network file system may say so of what it has just made for us
    except OSError:  # a file system without hard links
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(mine.read_text())
    return True


def _ours(held: dict[str, Any]) -> bool:
    mine = _mine()
    return all(held.get(key) == mine[key] for key in ("host", "pid", "began"))


def holder(folder: Path) -> str | None:
    """Who holds the lock of ``folder``, in words; None where nobody does, or somebody who is gone."""
    return _words(_last(folder)[1])


def _words(held: dict[str, Any] | None) -> str | None:
    if held is None or _stale(held):
        return None
    return f"process {held['pid']} on {held['host']}" + (f" (job {held['job']})" if held.get("job") else "")


def acquire(folder: Path) -> str | None:
    """Take the lock of ``folder``, which exists.

    Returns:
        None, or who holds it already.
    """
    mine = folder / f".{uuid.uuid4().hex}.lock"
    mine.write_text(json.dumps(_mine()))
    try:
        while True:
            number, held = _last(folder)
            if (other := _words(held)) is not None:
                return other
            if not _made(mine, folder / f"{LOCK}{number + 1}"):
                continue  # somebody was faster
            # one that saw the same stale lock may have been slow, and all locks been given back meanwhile
            own = folder / f"{LOCK}{number + 1}"
            for path in set(folder.glob(f"{LOCK}*")) - {own}:
                with suppress(FileNotFoundError):
                    if (other := _words(_read(path))) is not None:
                        own.unlink(missing_ok=True)
                        return other
            return None
    finally:
        mine.unlink(missing_ok=True)


def lost(folder: Path) -> bool:
    """Whether the lock that we took has gone to somebody who thought us dead."""
    held = _last(folder)[1]
    return held is not None and not _ours(held)


def release(folder: Path) -> None:
    """Give the lock of ``folder`` back, and clear stale ones away; the own one goes last."""
    own = []
    for path in folder.glob(f"{LOCK}*"):
        with suppress(OSError):
            held = _read(path)
            if _ours(held):
                own.append(path)
            elif _stale(held):
                path.unlink(missing_ok=True)
    for path in own:
        path.unlink(missing_ok=True)
