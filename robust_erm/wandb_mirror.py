"""Weights & Biases: one W&B run for each run, written as training goes. A mirror, never the truth."""

from __future__ import annotations

import logging
import math
import shutil
from typing import Any

import lightning as L

from robust_erm.config import Run, as_data, word
from robust_erm.module import RobustERM
from robust_erm.run_folder import RunFolder
from robust_erm.runs import STATUS

log = logging.getLogger(__name__)


class WandbMirror(L.Callback):
    """Mirrors every run of a pack into its own W&B run; whatever W&B does, training goes on.

    The W&B id is the run's name, so that syncing twice gives one run. Rows go out as they are
    measured, with ``step=`` set; what a checkpoint already held is sent again after a resume, into
    a new file that replaces the older one.
    """

    def __init__(self, folders: list[RunFolder]) -> None:
        self.folders = folders
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
        try:
            action(*args)
        except Exception as error:  # W&B must never stop a run
            self.broken = True
            log.warning("W&B failed, training goes on without it: %s: %s", type(error).__name__, error)

    def _start(self) -> None:
        import wandb

        if any(folder.run.logger.mode == "online" for folder in self.folders) and not wandb.api.api_key:
            raise PermissionError("not logged in: run `wandb login`, or set WANDB_API_KEY")
        for i, folder in enumerate(self.folders):
            shutil.rmtree(folder.path / "wandb", ignore_errors=True)
            run = folder.run
            self.open[i] = wandb.init(
                mode=run.logger.mode,  # type: ignore[arg-type]
                reinit="create_new",
                id=run.name,
                name=run.name,
                project=run.logger.project,
                entity=run.logger.entity,
                group=run.logger.group or f"{word(run.data)}-{word(run.model)}",
                tags=tags(run),
                config=as_data(run, "identity"),
                dir=folder.path,
                resume="allow" if run.logger.mode == "online" else None,
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    save_code=False,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                    x_save_requirements=False,
                    x_transaction_log_flush_interval=0.5,
                ),
            )
            self.sent[i] = 0

    def _send(self, module: RobustERM) -> None:
        for i, run in self.open.items():
            for row in module.rows[i][self.sent[i] :]:
                finite = {k: v for k, v in row.items() if math.isfinite(v)}
                run.log(finite, step=int(row["step"]))
            self.sent[i] = len(module.rows[i])
        for i in module.just_ended:
            self.open[i].summary["status"] = STATUS[int(module.runs.status[i])]
            self.open[i].summary.update({f"final/{k}": v for k, v in module.rows[i][-1].items() if math.isfinite(v)})
        self._close(module.just_ended, 0)

    def _close(self, index: list[int], exit_code: int) -> None:
        for i in index:
            self.open.pop(i).finish(exit_code=exit_code)


def tags(run: Run) -> tuple[str, ...]:
    """The user's tags, and the components."""
    found = [*run.logger.tags, word(run.data), word(run.model), word(run.optimizer), f"eps={run.eps:g}"]
    return tuple(dict.fromkeys(found))
