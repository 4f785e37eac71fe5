"""One process at a time in a run's folder.

A lock is a file that names its holder: host, boot, process and when that process began, and its SLURM job. It is stale
once that process is gone from this machine, or that job from the cluster. Of a holder elsewhere only its heartbeat is
known: it touches its locks every :data:`BEAT` seconds, and one that has not done so for :data:`PATIENCE`, by the file
system's own clock, is taken for gone. Locks are numbered: whoever finds the last one stale makes the next, which the
file system lets one process do (a hard link; network file systems keep that, too). A lock saves work, and keeps logs
apart; results do not depend on it: a run ends with the same bytes whoever trains it, and one who has lost its lock
leaves no more checkpoints.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_erm.store import files, queue

LOCK = ".lock-"
BEAT, PATIENCE = 15.0, 180.0  # seconds; file systems may show what others have touched a minute late


@dataclass(frozen=True)
class Held:
    """A run that another process is training just now: who, in words, and the lock's file."""

    by: str
    lock: Path


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


def _machine() -> dict[str, str | None]:
    """What tells this machine, this boot and these process numbers from others of the same host name."""
    found: dict[str, str | None] = {"boot": None, "pids": None}
    with suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["pids"] = os.readlink("/proc/self/ns/pid")
    return found


def _mine() -> dict[str, Any]:
    job, restarts = queue.this_job() or (None, 0)
    return {
        "host": socket.gethostname(),
        **_machine(),
        "pid": os.getpid(),
        "began": began(os.getpid()),
        "job": job,
        "restarts": restarts,
    }


def _here(held: dict[str, Any]) -> bool:
    """Whether the holder's process number means something on this machine."""
    machine = _machine()
    if held.get("boot") and held.get("pids") and machine["boot"] and machine["pids"]:
        return all(held[key] == machine[key] for key in machine)
    return bool(held["host"] == socket.gethostname())


def _stale(held: dict[str, Any], silent: float) -> bool:
    """Whether the holder is gone; ``silent``: seconds since its last heartbeat."""
    if not held:
        return True
    job = held.get("job") if isinstance(held.get("job"), str) else None
    restarts, mine = held.get("restarts"), queue.this_job()
    if job is not None and mine is not None and job == mine[0] and restarts != mine[1]:
        return True  # this very job, before it was requeued
    if _here(held):
        return bool(began(held["pid"]) != held.get("began"))
    return abs(silent) > PATIENCE or (job is not None and queue.runs(job) is False)


def _last(folder: Path) -> tuple[int, Path | None]:
    """Number and path of the last lock of ``folder``; 0 and None where there is none."""
    numbers = [int(p.name.removeprefix(LOCK)) for p in folder.glob(f"{LOCK}*") if p.name[len(LOCK) :].isdigit()]
    return (max(numbers), folder / f"{LOCK}{max(numbers)}") if numbers else (0, None)


def _read(path: Path) -> dict[str, Any]:
    """A lock's content; of one that is not whole, or no lock of ours, nothing: it is stale."""
    try:
        held = files.read_json(path)
        files.require_shape(path, held, host=str, pid=int)
    except files.Damaged:
        return {}
    return held


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
    return all(held.get(key) == mine[key] for key in ("host", "boot", "pids", "pid", "began"))


def _other(path: Path | None, now: float | None = None) -> Held | None:
    """Who holds the lock ``path``; None where nobody does, or somebody who is gone.

    Args:
        path: of the lock.
        now: by the clock of the file system; this machine's where None.
    """
    try:
        if path is None:
            return None
        held, touched = _read(path), path.stat().st_mtime
    except FileNotFoundError:  # given back just now
        return None
    if _stale(held, (time.time() if now is None else now) - touched):
        return None
    job = f" (job {held['job']})" if held.get("job") else ""
    return Held(f"process {held['pid']} on {held['host']}{job}", path)


def holder(folder: Path) -> str | None:
    """Who holds the lock of ``folder``, in words; None where nobody does, or somebody who is gone."""
    other = _other(_last(folder)[1])
    return other.by if other else None


def acquire(folder: Path) -> Held | None:
    """Take the lock of ``folder``, which exists.

    Returns:
        None, or who holds it already.
    """
    mine = folder / f".{uuid.uuid4().hex}.lock"
    mine.write_text(json.dumps(_mine()))
    now = mine.stat().st_mtime
    try:
        while True:
            number, last = _last(folder)
            if (other := _other(last, now)) is not None:
                return other
            if not _made(mine, folder / f"{LOCK}{number + 1}"):
                continue  # somebody was faster
            # one that saw the same stale lock may have been slow, and all locks been given back meanwhile
            own = folder / f"{LOCK}{number + 1}"
            for path in set(folder.glob(f"{LOCK}*")) - {own}:
                if (other := _other(path, now)) is not None:
                    own.unlink(missing_ok=True)
                    return other
            return None
    finally:
        mine.unlink(missing_ok=True)


def lost(folder: Path) -> bool:
    """Whether the lock that we took has gone to somebody who thought us dead."""
    last = _last(folder)[1]
    try:
        return last is not None and not _ours(_read(last))
    except FileNotFoundError:
        return True


@contextmanager
def beating(folders: Sequence[Path]) -> Iterator[None]:
    """Show, from a thread, that whoever holds the locks of ``folders`` is alive."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            for folder in folders:
                last = _last(folder)[1]
                with suppress(OSError):
                    if last is not None and _ours(_read(last)):
                        os.utime(last)

    thread = threading.Thread(target=beat, name="locks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def release(folder: Path) -> None:
    """Give the lock of ``folder`` back, and clear stale ones away; the own one goes last."""
    own = []
    for path in folder.glob(f"{LOCK}*"):
        with suppress(OSError):
            if _ours(_read(path)):
                own.append(path)
    clear(folder)
    for path in own:
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Take away what killed processes have left: locks, and files on their way to be one."""
    for path in folder.glob(f"{LOCK}*"):
        with suppress(OSError):
            if _other(path) is None:
                path.unlink(missing_ok=True)
    for path in folder.glob(".*.lock"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > PATIENCE:
                path.unlink(missing_ok=True)
