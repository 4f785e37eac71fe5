"""What a task does on its node: train its share of the runs as a packed sweep, and say how it goes.

It imports little before it is ready for the cluster's signals. SIGTERM (preemption, or the warning before the
time limit) makes the workers leave checkpoints at a safe point; the task then ends with status AGAIN, and the
job's shell, which has SLURM's commands even where Python runs in a container, requeues it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from robust_erm.slurm.folder import Submission, read_said, read_work
from robust_erm.store.files import write_json
from robust_erm.store.queue import this_job

FUTILE = 3  # starts in a row that took no step, after which a task does not try again
AGAIN = 75  # exit status of a task that was told to end and wants to go on later (EX_TEMPFAIL)


class Share:
    """Callable for submitit: task ``number`` of the submission in ``folder``.

    It holds nothing else: configs are read on the node from the submission's folder, where they are resolved.
    """

    def __init__(self, folder: str, number: int) -> None:
        self.folder, self.number = folder, number

    def __call__(self) -> str:
        """Train; the task's last word."""
        signal.signal(signal.SIGTERM, _asked_to_end)
        try:
            state = Work(Path(self.folder), self.number).run()
        except KeyboardInterrupt:  # before anything was begun; it does not come again
            state = Work(Path(self.folder), self.number).end_at_once()
        if state == "stopped":
            sys.stdout.flush()
            os._exit(AGAIN)  # before submitit writes a result: SLURM may end this process any moment
        return state


def _asked_to_end(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may come several times
    raise KeyboardInterrupt


class Work:
    """One attempt at a task."""

    def __init__(self, folder: Path, number: int) -> None:
        submission = Submission(folder)
        self.given, self.path = read_work(submission.work(number)), submission.said(number)
        self.job, self.restarts = this_job() or ("", 0)
        self.earlier = read_said(self.path)
        self.sweep: Any = None
        self.word = {
            "state": "running",
            "job": self.job,
            "restarts": self.restarts,
            "attempts": self.earlier.get("attempts", []),
            "progress": {},
            "results": [],
            "failures": {},
            "held": [],
            "notes": self.earlier.get("notes", []),
        }

    def run(self) -> str:
        """Train what is left; returns the state that it is left in."""
        if self.earlier.get("state") == "done":
            print("this task had finished; nothing to do", flush=True)
            return "done"
        state = "done"
        try:
            self._begin()
            self._train()
        except (KeyboardInterrupt, SystemExit):
            state = self._stopped()
        except Exception as error:
            self._failed(error)
        return self._end(state)

    def end_at_once(self) -> str:
        """For an attempt that was told to end before :meth:`run` had begun."""
        if self.earlier.get("state") == "done":
            return "done"
        self._begin()
        return self._end(self._stopped())

    def _begin(self) -> None:
        attempt = {
            "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "restarts": self.restarts,
            "began": time.time(),
            "steps": 0,
        }
        self.word["attempts"] = [*self.word["attempts"], attempt]
        self._say()

    def _end(self, state: str) -> str:
        self.word["attempts"][-1]["ended"] = time.time()
        self._say(state=state)
        return state

    def _steps(self) -> int:
        """Steps that all runs together have taken in this attempt."""
        view = getattr(self.sweep, "view", None)
        return int(view.totals()["steps"]) if view is not None else 0

    def _train(self) -> None:
        from robust_erm.reports.report import Failure
        from robust_erm.reports.terminal import set_up_logging
        from robust_erm.store.config import resolve
        from robust_erm.store.source import fingerprint
        from robust_erm.sweeps.sweep import Sweep
        from robust_erm.training.problem import MARGINS

        set_up_logging()
        given = self.given
        if given["code"] != fingerprint():
            raise RuntimeError("the copy of the code that was made at submission is gone or changed; submit again")
        runs = []
        for entry in given["runs"]:
            run = resolve(entry["config"])
            run.trainer.check()
            if entry["margin"] is not None:
                MARGINS[run.data, run.seed, run.attack.p] = entry["margin"]
            runs.append(run)
        if self.restarts > given["max_requeues"]:
            self._give_up()
            return
        self._look_at_gpus(runs[0])
        sweep = self.sweep = Sweep(runs, given["workers"], given["pack_size"])
        results = sweep.train(lambda *args: _told(self, given["poll"], *args), wait=False)
        if sweep.todo:
            self.word["progress"] = _plain(sweep.view)
        failures = {id_: result for id_, result in results.items() if isinstance(result, Failure)}
        self.word["failures"] = {id_: {"cause": f.cause, "traceback": f.traceback} for id_, f in failures.items()}
        self.word["results"] = [id_ for id_ in results if id_ not in failures]
        self.word["held"] = [run.id for run in sweep.held]

    def _look_at_gpus(self, run: Any) -> None:
        import torch

        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if given and run.trainer.device == "auto" and not torch.cuda.device_count():
            note = f"GPU {given} was given, but torch {torch.__version__} finds none: trained on the CPU"
            if note not in self.word["notes"]:
                self.word["notes"] = [*self.word["notes"], note]

    def _stopped(self) -> str:
        """After the workers have left checkpoints."""
        if self.word["attempts"]:
            self.word["attempts"][-1]["steps"] = self._steps()
        last = self.word["attempts"][-FUTILE:]
        if len(last) == FUTILE and not any(attempt.get("steps", 1) for attempt in last):
            why = f"{FUTILE} starts in a row were told to end before a step was taken"
            advice = (
                "ask for more hydra.launcher.time, or less hydra.launcher.warning (SLURM may send it a minute early)"
            )
            self._fail_all(f"{why}: {advice}; resume goes on", "")
            return "done"
        if self.restarts >= self.given["max_requeues"]:
            self._give_up()
            return "done"
        print("checkpoints are left", flush=True)
        return "stopped"

    def _give_up(self) -> None:
        often = f"{self.restarts} times, as often as hydra.launcher.max_requeues allows"
        self._fail_all(f"was requeued {often}; checkpoints are kept", "")

    def _failed(self, error: Exception) -> None:
        from robust_erm.sweeps.workers import described

        said = described(error)
        print(said["traceback"], file=sys.stderr, flush=True)
        self._fail_all(said["cause"], said["traceback"])

    def _fail_all(self, cause: str, traceback: str) -> None:
        """What has a result keeps it."""
        self.word["failures"] = {run["id"]: {"cause": cause, "traceback": traceback} for run in self.given["runs"]}

    def _say(self, **changes: Any) -> None:
        if read_said(self.path).get("restarts", 0) > self.restarts:
            print("requeued elsewhere meanwhile; this attempt ends", flush=True)  # its node was thought dead
            os._exit(1)
        self.word |= changes
        write_json(self.path, self.word)


def _told(work: Work, seconds: float, *args: Any) -> Any:
    """A view that also tells the submission's folder."""
    from robust_erm.reports.live import View

    class Told(View):
        said_at = 0.0

        def tick(self) -> None:
            super().tick()
            if time.monotonic() - self.said_at >= seconds:
                self.said_at = time.monotonic()
                with suppress(OSError):  # only the last word matters
                    work._say(progress=_plain(self))

    return Told(*args)


def _plain(view: Any) -> dict[str, Any]:
    totals = view.totals()
    return {**totals, "ended": dict(totals["ended"])}
