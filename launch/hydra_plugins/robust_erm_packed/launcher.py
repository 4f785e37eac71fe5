"""Hydra launcher: all points of a sweep are checked first, then trained in packs.

Hydra imports this module at every start, so nothing heavy is imported at its top.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class PackedLauncher(Launcher):
    """Trains the points of a sweep together, over the run axis, wherever code and shapes agree.

    Args:
        pack_size: most runs in one pack.
    """

    def __init__(self, pack_size: int) -> None:
        self.pack_size = pack_size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before ``launch``."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn for each point, in order; its value is the point's summary."""
        from robust_erm.sweep import run_sweep

        state = Singleton.get_state()
        configs = []
        for k, overrides in enumerate(job_overrides):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(k), initial_job_idx + k
            configs.append(config)
        HydraConfig.instance().set_config(self.config)
        tasks = []
        for config in configs:
            task = config.copy()
            with open_dict(task):
                del task["hydra"]
            tasks.append(task)
        sweep_dir = Path(str(self.config.hydra.sweep.dir))
        results = run_sweep(tasks, [list(o) for o in job_overrides], sweep_dir, self.pack_size)
        Singleton.set_state(state)
        returns = []
        for config, task, overrides, result in zip(configs, tasks, job_overrides, results, strict=True):
            failed = isinstance(result, BaseException)
            job = JobReturn(overrides=list(overrides), cfg=task, hydra_cfg=config, working_dir=str(sweep_dir))
            job.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            # Hydra raises the value of a failed job: the report has been printed, so only the exit status is left
            job.return_value = SystemExit(1) if failed else result
            returns.append(job)
        return returns
