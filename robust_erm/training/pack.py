"""Train a pack: resolved runs in, run folders and summaries out."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from robust_erm.core.errors import require
from robust_erm.store import locks
from robust_erm.store.config import METRIC, Run
from robust_erm.store.fingerprint import continued, differing
from robust_erm.store.locks import Held
from robust_erm.store.run_folder import RunFolder
from robust_erm.training.callbacks import Progress, Recorder
from robust_erm.training.devices import chosen
from robust_erm.training.faults import release
from robust_erm.training.kept import load
from robust_erm.training.measure import Row, log_spaced, measure
from robust_erm.training.module import RobustERM
from robust_erm.training.precision import warn_of_slow_float64
from robust_erm.training.problem import build, radii, warn_if_not_separable
from robust_erm.training.provenance import provenance
from robust_erm.training.resources import cores as own_cores
from robust_erm.training.resources import threads_for
from robust_erm.training.stacked import fits
from robust_erm.training.status import RUNNING
from robust_erm.training.ties import undecided

log = logging.getLogger("robust_erm")


def train_pack(
    runs: list[Run],
    report: Callable[[dict[str, Any]], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
    cores: int | None = None,
) -> list[dict[str, Any] | Held]:
    """Train runs with equal :func:`robust_erm.sweeps.plan.pack_key` together.

    What has ended already is not trained again. Runs that stand at different steps (after an interruption) are
    trained in turn.

    Args:
        runs: the pack.
        report: told how it goes, see :class:`robust_erm.training.callbacks.Progress`.
        stop: asked now and then whether to leave checkpoints and raise :class:`Interrupted`.
        device: overrules :func:`robust_erm.training.devices.chosen`.
        cores: that this process may use; all of them where None.

    Returns:
        The summary of each, in order, or who holds it.
    """
    folders = [RunFolder(run) for run in runs]
    results: dict[int, dict[str, Any] | Held] = {}
    mine: list[int] = []
    try:
        for i, folder in enumerate(folders):
            folder.path.mkdir(parents=True, exist_ok=True)
            if (other := locks.acquire(folder.path)) is not None:
                results[i] = other
                continue
            mine.append(i)
            if (summary := folder.read_summary()) is not None:
                results[i] = summary
        resumed = {i: folders[i].read_checkpoint() for i in mine if i not in results}
        for i, kept in resumed.items():
            _require_ours(folders[i], kept)
        # who stands where: the step, and whether training had ended there
        places = {i: (kept["run"]["t"], kept["run"]["status"]) if kept else (0, RUNNING) for i, kept in resumed.items()}
        with locks.beating([folders[i].path for i in resumed]):
            for k, place in enumerate(sorted(set(places.values()))):
                members = [i for i in resumed if places[i] == place]
                stored = [folders[i] for i in members], [resumed[i] for i in members]
                if k:
                    release()  # what the fit before held
                summaries = _Fit(*stored, place[0], device or chosen(runs), cores).run(report, stop)
                results |= dict(zip(members, summaries, strict=True))
    finally:
        for i in mine:
            locks.release(folders[i].path)
    return [results[i] for i in range(len(runs))]


def _require_ours(folder: RunFolder, kept: dict[str, Any] | None) -> None:
    """Raise :class:`ConfigError` where a checkpoint was left by other code or data, unless that is allowed."""
    recorded = None if kept is None else kept.get("fingerprint")
    if recorded is None or folder.run.stale != "refuse":
        return
    differs = differing(folder.fingerprint, recorded)
    advice = f"was left by other code or data ({', '.join(differs[:3])}); stale=retrain starts over, stale=keep goes on"
    require(not differs, "checkpoint", folder.path, advice)


class _Fit:
    """One call of Lightning's fit: runs that stand at the same step."""

    def __init__(
        self,
        folders: list[RunFolder],
        resumed: list[dict[str, Any] | None],
        t: int,
        device: torch.device,
        cores: int | None,
    ) -> None:
        self.folders, self.t, self.began = folders, t, time.monotonic()
        self.runs = [folder.run for folder in folders]
        first = self.runs[0]
        torch.set_num_threads(threads_for(first, cores or own_cores()))
        self.device = device
        self.pack, self.evaluation, self.sizes = build(self.runs, self.device)
        self.made_by = provenance()  # looked at now, as the fingerprints: sources may be edited while it trains
        for folder in folders:
            assert folder.fingerprint is not None
        schedule = log_spaced(self.pack.steps, first.measure_per_decade, first.measure_every)
        self.pack.t = t
        self.module = RobustERM(self.pack, self.evaluation, schedule, first.trainer.inner_steps, first.snapshots)
        load(self.pack, {i: kept["run"] for i, kept in enumerate(resumed) if kept is not None})
        for i, kept in enumerate(resumed):
            if kept is not None:
                if (earlier := kept.get("fingerprint")) is not None:
                    folders[i].fingerprint = continued(folders[i].fingerprint, earlier)
                self.module.rows[i] = kept["rows"]
                if self.module.snapshots is not None:
                    self.module.snapshots[i] = list(kept["snapshots"]["theta"])

    def run(self, report: Callable[[dict[str, Any]], None], stop: Callable[[], bool]) -> list[dict[str, Any]]:
        """Train; the summaries, in order."""
        first, t = self.runs[0], self.t
        recorder = Recorder(self.folders, self._summarise, first.trainer.checkpoint_seconds, stop)
        callbacks: list[L.Callback] = [recorder, Progress(report)]
        if first.logger.enabled:
            from robust_erm.training.wandb_mirror import WandbMirror

            callbacks.append(WandbMirror(self.folders))
        with _run_logs(self.folders):
            verb, beside = ("resumed" if t else "started"), len(self.runs) - 1
            for folder in self.folders:
                folder.open()
                tag = {"run": folder.run.name}
                log.info("%s at step %d, on %s, with %d others", verb, t, self.device, beside, extra=tag)
                warn_if_not_separable(folder.run)
            self._warn_of_ties()
            warn_of_slow_float64(first.torch_dtype, self.device)
            # ended, but killed before the summary was written
            self.module.just_ended = (self.pack.status != RUNNING).nonzero().squeeze(-1).tolist()
            if len(self.pack.running):
                _lightning(self.device, callbacks).fit(self.module, train_dataloaders=_Endless())
            else:
                _finish_only(self.module, callbacks)
        return [recorder.summaries[i] for i in range(len(self.runs))]

    def _warn_of_ties(self) -> None:
        """Say which runs begin with a step that depends on the order of their points."""
        if self.t or bool(self.pack.theta.any()):  # elsewhere sums do not cancel but by chance
            return
        for run, count in zip(self.runs, undecided(self.pack).tolist(), strict=True):
            if count:
                why = "by the sign of sums that cancel to rounding: the run depends on the order of its points"
                advice = "a start such as model.init_scale=1e-3 decides them"
                log.warning(
                    "%s: its first step moves %d parameters %s; %s",
                    *(run.name, count, why, advice),
                    extra={"run": run.name},
                )

    def _lost_separation(self, i: int, module: RobustERM) -> int | None:
        """See :func:`_lost_at`; said aloud."""
        at, run = _lost_at(module.rows[i]), self.runs[i]
        if at is not None:
            advice = "optimizer/schedule=relative, or a smaller step, keeps what is separated"
            says = "had separated its training points under the attack, and from step %d on no longer does; %s"
            log.warning(f"%s: {says}", run.name, at, advice, extra={"run": run.name})
        return at

    def _summarise(self, i: int, module: RobustERM) -> dict[str, Any]:
        run, radius = self.runs[i], float(self.evaluation.eps[i])
        log.info("ended at step %d", int(module.rows[i][-1]["step"]), extra={"run": run.name})
        sampled, device = self.evaluation.test is not None, self.device
        at_end = measure(self.pack, self.evaluation, torch.tensor([i], device=device), "end")[0]
        kernel, recipe = self.pack.kernel or self.pack.net, self.pack.recipe
        form = type(kernel).__name__.lower() if kernel else "stacked" if fits(recipe, recipe.attack) else "mapped"
        return {
            **at_end,
            "lost_separation_at": self._lost_separation(i, module),
            "measured": [name for name in {**module.rows[i][-1], **at_end} if not METRIC.fullmatch(name)],
            "eps": radius if run.eval_eps is None else radii(run)[0],
            "eval_eps": radius,
            "test_accuracy": f"sampled, {self.sizes[i]} points" if sampled else "exact, closed form",
            "parameters": self.pack.theta.shape[1],
            "degree": run.model.degree,
            "seconds": time.monotonic() - self.began,
            "pack_size": len(self.runs),
            "kernel": form,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "fingerprint": self.folders[i].fingerprint,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            **self.made_by,
        }


def _lost_at(rows: list[Row]) -> int | None:
    """The first measured step from which on the least robust margin was no longer positive, of a run that had one."""
    separate = [row["margin_robust"] > 0 for row in rows]
    if separate[-1] or not any(separate):
        return None
    last = max(k for k, yes in enumerate(separate) if yes)
    return int(rows[last + 1]["step"])


def _finish_only(module: RobustERM, callbacks: list[L.Callback]) -> None:
    """What fit would do for runs that have all ended."""
    nobody: Any = None
    for callback in callbacks:
        callback.on_fit_start(nobody, module)
        callback.on_train_batch_end(nobody, module, None, None, 0)


class _RunLogs(logging.Handler):
    """run.log gets what is said of this run, and what is said of none in particular."""

    def __init__(self, folders: list[RunFolder]) -> None:
        super().__init__()
        self.of = {folder.run.name: folder for folder in folders}
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        name = getattr(record, "run", None)
        concerned = list(self.of.values()) if name is None else [self.of[name]] if name in self.of else []
        for folder in concerned:
            folder.log(self.format(record))


@contextmanager
def _run_logs(folders: list[RunFolder]) -> Iterator[None]:
    handler = _RunLogs(folders)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _Endless:
    """A loader without data: ``training_step`` has its own."""

    def __iter__(self) -> Any:
        while True:
            yield 0


def _lightning(device: torch.device, callbacks: list[L.Callback]) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*`LightningModule.configure_optimizers` returned `None`.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # a login node: that is what we mean
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")  # by trainer.device, or devices.chosen
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=[device.index or 0] if device.type == "cuda" else 1,
        plugins=[LightningEnvironment()],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
