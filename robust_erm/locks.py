"""One process at a time in a run's folder.

The lock is a file, made with O_EXCL, that names its holder: host, process and when that process
began. It is stale once that process is gone from this host; a holder on another host is believed.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK = ".lock"


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


def holder(folder: Path) -> str | None:
    """Who holds the lock of ``folder``, in words; None where nobody does, or a process that is gone."""
    try:
        held: dict[str, Any] = json.loads((folder / LOCK).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        held = {}  # being written, or cut off: the file of a process that died in between is empty
        if not (folder / LOCK).stat().st_size:
            return None
    here = held.get("host") == socket.gethostname()
    if here and began(int(held["pid"])) != held["began"]:
        return None
    return f"process {held.get('pid')} on {held.get('host')}"


@contextmanager
def _alone(parent: Path) -> Iterator[None]:
    """One process at a time looks at locks below ``parent``; the kernel forgets it when we die."""
    with (parent / LOCK).open("a") as file:
        with suppress(OSError):  # some network file systems have no flock; O_EXCL still holds there
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def acquire(folder: Path) -> str | None:
    """Take the lock of ``folder``, which exists.

    Returns:
        None, or who holds it already.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "began": began(os.getpid())}
    with _alone(folder.parent):
        other = holder(folder)
        if other is not None:
            return other
        (folder / LOCK).unlink(missing_ok=True)
        handle = os.open(folder / LOCK, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        with os.fdopen(handle, "w") as file:
            json.dump(mine, file)
    return None


def release(folder: Path) -> None:
    """Give the lock of ``folder`` back."""
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
