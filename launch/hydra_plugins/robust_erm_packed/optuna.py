"""``hydra/sweeper=optuna``: the plugin hydra-optuna-sweeper, as a search for the most, with one table at its end.

The plugin's own config minimises, and so would pick the least accurate model. Hydra imports this module at every start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.config_source import ConfigLoadError
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.robust_erm_packed.launcher import PackedLauncher
from omegaconf import DictConfig, OmegaConf


def register() -> None:
    """Put this config in the place of the plugin's, where that is installed, once Hydra has found its plugins."""
    store = ConfigStore.instance()
    try:
        found = store.load("hydra/sweeper/optuna.yaml").node
    except ConfigLoadError:
        return
    ours = {
        "_target_": "hydra_plugins.robust_erm_packed.optuna.OptunaSweeper",
        "direction": "maximize",  # of the metric that ``returns`` names
        "n_jobs": 4,  # trained together, as one batch: the next batch knows their results
        "max_failure_rate": 0.5,  # of a batch, beyond which the search ends
    }
    store.store(group="hydra/sweeper", name="optuna", node=OmegaConf.merge(found, ours), provider="robust_erm")


class OptunaSweeper(Sweeper):
    """Optuna's search, in which each batch of trials is a sweep; one table over all of them, and the best, at the end.

    Args:
        options: the plugin's.
    """

    def __init__(self, **options: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper as Plugin

        self.inner = Plugin(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before ``sweep``."""
        self.inner.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.settings = config

    def sweep(self, arguments: list[str]) -> None:
        """Search; whatever ends it, say what has been found."""
        from robust_erm.sweeps.trials import conclude

        launcher = self.inner.sweeper.launcher
        if not isinstance(launcher, PackedLauncher):
            self.inner.sweep(arguments)
            return
        folder = Path(str(self.settings.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        launcher.aside = ["report=false"]  # not a table for every batch
        launched = launcher.launch
        found: list[Path] = []

        def launch(job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            returns = launched(job_overrides, initial_job_idx)
            found.extend(Path(str(job.working_dir)) for job in returns if job.status == JobStatus.COMPLETED)
            return returns

        launcher.launch = launch  # type: ignore[method-assign]
        try:
            self.inner.sweep(arguments)
        finally:
            conclude(found, folder, self.settings.returns, self.settings.report)
