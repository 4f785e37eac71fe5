"""Weights & Biases: one W&B run for each run, written as training goes. A mirror, never the truth."""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import shutil
from collections.abc import Sequence
from typing import Any

import lightning as L

from robust_erm.reports.tables import read_metrics
from robust_erm.store.config import Run
from robust_erm.store.identity import COMPONENTS, as_data, word
from robust_erm.store.reading import read_summary
from robust_erm.store.run_folder import RunFolder
from robust_erm.training.agent import agents_run
from robust_erm.training.module import RobustERM
from robust_erm.training.status import STATUS

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
MOST_LIVE = 1000
_FILES_A_RUN, _OTHER_FILES = 3, 64  # of the SDK's service process, which raises its own limit to the hard one
_SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "symlink": False,
    "label_disable": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": FLUSH_SECONDS,
}


class WandbMirror(L.Callback):
    """Mirrors every run of a pack into its own W&B run; whatever W&B does, training goes on.

    The W&B id is the run's name, so that syncing twice gives one run. Rows go out as they are
    measured, with ``step=`` set; what a checkpoint already held is sent again after a resume, into
    a new file that replaces the older one.

    At most :func:`most_live` runs are open at a time. The others of a larger pack wait: their rows
    are sent, all of them and in order, once a run that is open ends, or when they end themselves.
    A killed process loses, of the mirror, the last ``FLUSH_SECONDS`` of the open runs and what the
    waiting ones had; the next resume sends all of it again.

    Where a sweep's agent of W&B has started this process, the one run goes into the agent's own W&B run.
    """

    def __init__(self, folders: list[RunFolder]) -> None:
        self.folders = folders
        self.waiting = list(range(len(folders)))
        self.open: dict[int, Any] = {}
        self.sent: dict[int, int] = {}
        self.broken = False

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Open the runs."""
        self._guarded(self._start)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        """Send what was measured; close what ended."""
        self._guarded(self._send, module)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Close what is open, as failed."""
        self._guarded(self._close, list(self.open), 1)

    def _guarded(self, action: Any, *args: Any) -> None:
        if self.broken:
            return
        collects = gc.isenabled()
        gc.disable()  # the SDK allocates enough for many collections, each over all of torch: 3 ms a run
        try:
            action(*args)
        except Exception as error:  # W&B must never stop a run
            self.broken = True
            log.warning("W&B failed, training goes on without it: %s: %s", type(error).__name__, error)
        finally:
            if collects:
                gc.enable()

    def _start(self) -> None:
        import wandb

        if any(folder.run.logger.mode == "online" for folder in self.folders) and not wandb.api.api_key:
            raise PermissionError("not logged in: run `wandb login`, or set WANDB_API_KEY")
        logging.getLogger("wandb").setLevel(logging.WARNING)  # what it says to debug.log costs 2 ms a run
        wandb.setup(wandb.Settings(**_SETTINGS))  # once: wandb.init would convert each of them twice a run
        self._fill(most_live())

    def _fill(self, bound: int) -> list[int]:
        """Open waiting runs while there is room; returns them."""
        opened = self.waiting[: max(0, bound - len(self.open))]
        for i in opened:
            self._open(i)
        return opened

    def _open(self, i: int) -> None:
        import wandb

        folder, run = self.folders[i], self.folders[i].run
        name = run.name
        self.waiting.remove(i)
        agents = agents_run() is not None  # W&B takes its id, project and entity from the environment
        if not agents:  # which would leave what was written for another W&B run
            shutil.rmtree(folder.path / "wandb", ignore_errors=True)
        self.sent[i] = 0
        self.open[i] = wandb.init(
            mode=run.logger.mode,  # type: ignore[arg-type]
            reinit="create_new",
            id=None if agents else name,
            name=name,
            project=None if agents else run.logger.project,
            entity=None if agents else run.logger.entity,
            group=run.logger.group or f"{word(run.data)}-{word(run.model)}",
            tags=tags(run),
            config=config(run),
            dir=folder.path.absolute(),  # the service process may have another working directory
            resume="allow" if run.logger.mode == "online" else None,
        )
        _close_debug_logs()

    def send_stored(self) -> None:
        """Send what runs that have ended have on disk."""
        self._guarded(self._send_stored)

    def _send_stored(self) -> None:
        self._start()
        for i in list(self.open):
            rows = read_metrics(self.folders[i].path).to_pylist()
            self._log(i, rows)
            self._end(i, str(read_summary(self.folders[i].path)["status"]), rows[-1])

    def _send(self, module: RobustERM) -> None:
        for i in list(self.open):
            self._log(i, module.rows[i])
        for i in module.just_ended:
            if i not in self.open:  # waited until its end; most_live() leaves room for this one
                self._open(i)
                self._log(i, module.rows[i])
            self._end(i, STATUS[int(module.runs.status[i])], module.rows[i][-1])
        for i in self._fill(most_live()):
            self._log(i, module.rows[i])

    def _log(self, i: int, rows: Sequence[dict[str, float]]) -> None:
        for row in rows[self.sent[i] :]:
            finite = {k: v for k, v in row.items() if math.isfinite(v)}
            self.open[i].log(finite, step=int(row["step"]), commit=True)  # else it is kept back until the next row
        self.sent[i] = len(rows)

    def _end(self, i: int, status: str, last: dict[str, float]) -> None:
        summary = self.open[i].summary
        summary.update({"status": status, **final(last)})
        if agents_run() is not None:  # the metric that the sweep waits for
            metric = self.folders[i].run.returns
            value = read_summary(self.folders[i].path).get(metric, math.nan)
            summary.update({metric: value} if math.isfinite(value) else {})
        self._close([i], 0)

    def _close(self, index: list[int], exit_code: int) -> None:
        for i in index:
            self.open.pop(i).finish(exit_code=exit_code)


def most_live() -> int:
    """How many W&B runs may be open at a time, with room for one more, under this process's limit of open files."""
    hard = -1 if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if resource is None or hard == resource.RLIM_INFINITY:
        return MOST_LIVE
    return max(1, min(MOST_LIVE, (hard - _OTHER_FILES) // _FILES_A_RUN - 1))


def _close_debug_logs() -> None:
    """Close the debug.log that the SDK opens for each run in this process: an open file for every run otherwise."""
    logger = logging.getLogger("wandb")
    for handler in list(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
            handler.close()


def final(row: dict[str, float]) -> dict[str, float]:
    """The last row as summary keys ``final/...``."""
    return {f"final/{k}": v for k, v in row.items() if math.isfinite(v)}


def config(run: Run) -> dict[str, Any]:
    """What W&B shows as the config: nested, numbers as numbers (infinity as ``inf``), components by ``name`` too."""
    runtime = {field.name for field in dataclasses.fields(run) if not field.metadata.get("identity", True)}
    kept = {k: _showable(v) for k, v in as_data(run).items() if k not in runtime}
    return {"id": run.id, **kept, **{k: {"name": word(getattr(run, k)), **kept[k]} for k in COMPONENTS}}


def _showable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _showable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_showable(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def tags(run: Run) -> tuple[str, ...]:
    """The user's tags, and the components."""
    found = [*run.logger.tags, word(run.data), word(run.model), word(run.optimizer), f"eps={run.eps:g}"]
    return tuple(dict.fromkeys(found))
