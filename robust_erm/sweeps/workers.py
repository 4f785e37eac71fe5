"""Processes that train packs, and survive one another.

A worker takes one job at a time over its pipe and says how it goes. Whatever ends a worker (a
signal, the system out of memory) ends its job only. A worker whose device has failed ends too: no
further call of its process would do. When the controlling process is gone, or asks for it, a worker
leaves checkpoints and ends.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

_LONGEST = 60  # characters of a folder for sockets
_PATIENCE = 60.0  # seconds that a worker has to leave checkpoints


@dataclass(frozen=True)
class Event:
    """What worker ``number`` says of its job: progress, done, failed, broken (by its device), stopped, or died."""

    number: int
    kind: str
    job: Any
    value: Any


class Pool:
    """``count`` processes, each running ``task(job, report, stop, number)`` for one job at a time.

    Args:
        task: a module-level function; ``report(value)`` sends progress, ``stop()`` says whether to end.
        count: processes; started when first needed.
    """

    def __init__(self, task: Callable[..., Any], count: int) -> None:
        self.task, self.count, self.context = task, count, _context()
        self.workers: dict[int, tuple[Any, Connection]] = {}
        self.jobs: dict[int, Any] = {}

    @property
    def idle(self) -> list[int]:
        """Numbers of the workers without a job."""
        return [n for n in range(self.count) if n not in self.jobs]

    def give(self, number: int, job: Any) -> None:
        """Start ``job`` on worker ``number``."""
        if number not in self.workers:
            ours, theirs = self.context.Pipe()
            process = self.context.Process(target=_work, args=(theirs, self.task, number), daemon=True)
            if self.context.get_start_method() == "forkserver":
                _start_server()
            with _plain_main():
                process.start()
            theirs.close()
            self.workers[number] = (process, ours)
        self.jobs[number] = job
        with suppress(OSError):  # it died just now: the next look at it says so
            self.workers[number][1].send(job)

    def events(self, seconds: float) -> Iterator[Event]:
        """What has happened, waiting for at most so many seconds for something to happen."""
        busy = {self.workers[n][1]: n for n in self.jobs}
        for connection in wait(list(busy), seconds):
            assert isinstance(connection, Connection)
            number = busy[connection]
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                process, _ = self.workers.pop(number)
                process.join()
                yield Event(number, "died", self.jobs.pop(number), process.exitcode)
                continue
            if kind == "broken":
                self.renew(number)
            yield Event(number, kind, self.jobs[number] if kind == "progress" else self.jobs.pop(number), value)

    def renew(self, number: int) -> None:
        """End the process of worker ``number``, if it has one: its next job gets another."""
        if number in self.workers:
            _end(*self.workers.pop(number), 5)

    def stop(self) -> Iterator[Event]:
        """Ask all to end, and say how their jobs ended; who does not is killed."""
        for _, connection in self.workers.values():
            with suppress(OSError):
                connection.send(None)
        deadline = time.monotonic() + _PATIENCE
        while self.jobs and time.monotonic() < deadline:
            yield from self.events(0.2)
        self.close()

    def close(self) -> None:
        """End all workers; those that have no job end at once."""
        for process, connection in self.workers.values():
            _end(process, connection, 5 if not self.jobs else 0)
        self.workers.clear()


def _end(process: Any, connection: Connection, seconds: float) -> None:
    """End a worker, which has so many seconds to do so by itself."""
    connection.close()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()


_UNHEARD = {signal.SIGINT, signal.SIGTERM}  # by workers: they go to whole groups, and the controller decides


def _context() -> Any:
    """Workers are forked from a server that has never trained, where there is one: quick to start, and clean."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if forks else "spawn")


def warm_up(modules: list[str]) -> None:
    """Let the server begin to import what workers will need, while this process goes on."""
    context = _context()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(modules)
        _start_server()


def _start_server() -> None:
    """With the signals blocked, so that they are in every thread of every worker, whoever starts it."""
    from multiprocessing import forkserver, resource_tracker

    _shorten_sockets()
    resource_tracker.ensure_running()  # unblocks them when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shorten_sockets() -> None:
    """A short folder for sockets where TMPDIR is long, as on clusters: their paths may have some 100 characters."""
    config: dict[str, Any] = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    if len(tempfile.gettempdir()) <= _LONGEST or config.get("tempdir"):
        return
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        with suppress(OSError):
            config["tempdir"] = tempfile.mkdtemp(prefix="pymp-", dir=place)
            atexit.register(shutil.rmtree, config["tempdir"], ignore_errors=True)
            return


class _plain_main:
    """Keeps workers from importing the main module again, which they do not need."""

    def __enter__(self) -> None:
        main: Any = sys.modules["__main__"]
        self.kept = {k: getattr(main, k) for k in ("__spec__", "__file__") if hasattr(main, k)}
        main.__spec__ = None
        if hasattr(main, "__file__"):
            del main.__file__

    def __exit__(self, *_: object) -> None:
        for k, v in self.kept.items():
            setattr(sys.modules["__main__"], k, v)


def _work(connection: Connection, task: Callable[..., Any], number: int) -> None:
    """The life of a worker."""
    from robust_erm.core.devices import DEVICE
    from robust_erm.training.faults import release

    gc.freeze()  # what is there now stays: collecting what a job leaves need not look at it
    signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)  # where there is no server; Lightning puts handlers of its own
    jobs: SimpleQueue[Any] = SimpleQueue()
    stop = threading.Event()

    def listen() -> None:
        try:
            while (job := connection.recv()) is not None:
                jobs.put(job)
        except (EOFError, OSError):
            pass  # the controller is gone
        stop.set()
        jobs.put(None)
        time.sleep(_PATIENCE)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while (job := jobs.get()) is not None:
        try:
            said = ("done", task(job, lambda value: connection.send(("progress", value)), stop.is_set, number))
        except BaseException as error:
            kind = "broken" if (fault := described(error))["fault"] == DEVICE else "failed"
            said = ("stopped", None) if stop.is_set() else (kind, fault)
        release()  # before anybody is told: what is next may need the memory, here or beside
        try:
            connection.send(said)
        except OSError:
            return


def described(error: BaseException) -> dict[str, Any]:
    """An error as plain text, whatever it holds: its kind, first line, errno, fault of a device, and traceback."""
    from robust_erm.core.devices import fault_of

    message = (str(error) or "no message").strip().splitlines()[0]
    return {
        "cause": f"{type(error).__name__}: {message}",
        "errno": getattr(error, "errno", None),
        "fault": fault_of(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
