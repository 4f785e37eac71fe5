"""Hydra launcher and sweeper: all points of a sweep are checked first, then trained in packs.

Hydra imports this module at every start, so nothing heavy is imported at its top.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class PackedLauncher(Launcher):
    """Trains the points of a sweep together, over the run axis, wherever code and shapes agree.

    Args:
        workers: processes; None for one a core, or one a GPU; 0 for this process.
        pack_size: most runs in one pack; None for what keeps all workers busy and fits into memory.
    """

    def __init__(self, workers: int | None = None, pack_size: int | None = None) -> None:
        self.workers, self.pack_size = workers, pack_size
        self.aside: list[str] = []  # overrides of every point that change no result

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before ``launch``."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn for each point, in order: its folder, and as value its final ``returns``."""
        from robust_erm.sweeps.workers import warm_up

        if self.workers is None or (isinstance(self.workers, int) and self.workers > 0):
            mirror = ["wandb"] if self.config.logger.get("enabled") else []
            warm_up(["robust_erm.training.loaded", *mirror])
        return self._launched(job_overrides)

    def _launched(self, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
        from robust_erm.sweeps.compose import composed

        state = Singleton.get_state()
        HydraConfig.instance().set_config(self.config)
        given = [[*point, *self.aside] for point in job_overrides]
        configs = composed(self.hydra_context.config_loader, self.config, given)
        folder = Path(str(self.config.hydra.sweep.dir))
        results = self._results(configs, job_overrides, folder)
        Singleton.set_state(state)
        returns = []
        for overrides, (place, result) in zip(job_overrides, results, strict=True):
            job = JobReturn(overrides=list(overrides), hydra_cfg=self.config, working_dir=str(place))
            job.status = JobStatus.COMPLETED if isinstance(result, dict) else JobStatus.FAILED
            # Hydra raises the value of a failed job: the report has been printed, so only the exit status is left
            job.return_value = result.get(self.config.returns, nan) if isinstance(result, dict) else SystemExit(1)
            returns.append(job)
        return returns

    def _results(self, configs: Any, job_overrides: Sequence[Sequence[str]], folder: Path) -> list[Any]:
        from robust_erm.sweeps.run import run_sweep

        return run_sweep(configs, job_overrides, folder, self.workers, self.pack_size)


class SlurmLauncher(PackedLauncher):
    """Submits the points of a sweep to a SLURM cluster, in packs, and brings the results home.

    Args:
        settings: see ``conf/hydra/launcher/slurm.yaml``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn for each point, in order; leaves with status 0 where it detaches."""
        return self._launched(job_overrides)

    def _results(self, configs: Any, job_overrides: Sequence[Sequence[str]], folder: Path) -> list[Any]:
        from robust_erm.slurm.launch import launch

        given = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in self.settings.items()}
        return launch(configs, job_overrides, folder, given)


class PackedSweeper(BasicSweeper):
    """Hydra's own sweeper; it leaves the checking of points to a launcher that checks them all itself."""

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        if max_batch_size is not None and not (isinstance(max_batch_size, int) and max_batch_size >= 1):
            raise HydraException(f"hydra.sweeper.max_batch_size = {max_batch_size}: must be 1 or more, or null")
        super().__init__(max_batch_size, params)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Composing every point takes 60 ms and more; Hydra's own launchers need it."""
        if not isinstance(self.launcher, PackedLauncher):
            super().validate_batch_is_legal(batch)
