"""What a sweep asks of the cluster: the options of ``hydra/launcher=slurm``, checked."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robust_erm.core.errors import ConfigError, positive, require
from robust_erm.store.typed import typed

KEY = "hydra.launcher"


@dataclass(frozen=True)
class Settings:
    """See ``conf/hydra/launcher/slurm.yaml`` for what each means."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 0
    cpus: int = 1
    memory: float | None = None
    time: int = 240
    setup: tuple[str, ...] = ()
    python: str | None = None
    sbatch: Any = None
    srun: tuple[str, ...] = ()
    array_parallelism: int = 16
    tasks: int | None = None
    workers: int | None = None
    pack_size: int | None = None
    max_requeues: int = 20
    warning: int = 90
    poll: float = 10.0
    snapshots: str | None = None
    dry_run: bool = False
    detach: bool = False

    def __post_init__(self) -> None:
        ones, zeros = ("cpus", "array_parallelism", "time"), ("gpus", "max_requeues", "warning")
        for name, least in {**dict.fromkeys(ones, 1), **dict.fromkeys(zeros, 0)}.items():
            require(getattr(self, name) >= least, name, getattr(self, name), f"must be {least} or more")
        for name in ("tasks", "pack_size", "workers"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "must be 1 or more, or null")
        ok = self.memory is None or 0 < self.memory < math.inf
        require(ok, "memory", self.memory, "GiB, must be positive, or null")
        positive("poll", self.poll, "seconds, must be positive and finite")
        early = f"seconds, must be less than the time limit ({60 * self.time} s)"
        require(self.warning < 60 * self.time, "warning", self.warning, early)
        extra = self.sbatch if self.sbatch is not None else {}
        require(isinstance(extra, dict), "sbatch", extra, "must be a mapping of sbatch options: {exclude: node7}")
        ours = {
            "array": "tasks and array_parallelism",
            "output": "nothing: logs lie beside the task",
            "signal": "warning",
            "mem": "memory",
            "cpus-per-task": "cpus",
            "time": "time",
            "partition": "partition",
            "job-name": "nothing",
        }
        for name in map(str, extra):
            instead = ours.get(name.replace("_", "-"))
            require(instead is None, f"sbatch.{name}", extra[name], f"is set by {KEY}.{instead}")

    def parameters(self) -> dict[str, Any]:
        """The same in submitit's words, what is left to the cluster left out."""
        asked: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": None if self.memory is None else f"{round(1024 * self.memory)}M",
            "time": self.time,
            "array_parallelism": self.array_parallelism,
            "signal_delay_s": self.warning,
            "srun_args": list(self.srun) or None,
            "stderr_to_stdout": True,
            "nodes": 1,
        }
        asked = {k: v for k, v in asked.items() if v is not None} | {"wckey": None}  # not submitit's own
        extra = {str(k).replace("_", "-"): v for k, v in (self.sbatch or {}).items()}
        # TERM is what preemption sends, too; USR2, submitit's own choice, would have it requeue at any moment
        extra = {"requeue": True, "signal": f"TERM@{self.warning}", "ntasks-per-node": 1, **extra}
        return asked | {"additional_parameters": extra}


def settings(values: dict[str, Any]) -> Settings:
    """The checked settings.

    Raises:
        ConfigError: naming ``hydra.launcher.<option>``, its value and what would be right.
    """
    chosen: Settings = typed(Settings, values, KEY)
    return chosen


def changed(old: Settings, assignments: list[str]) -> Settings:
    """``old`` with ``key=value`` assignments, values in YAML."""
    values = dataclasses.asdict(old)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        require(bool(equals), key, "", "must be <option>=<value>, such as memory=32")
        require(key not in ("dry_run", "detach"), key, value, "is no option of a resume, which submits and returns")
        values[key] = value if ":" in value and "{" not in value else yaml.safe_load(value)  # 4:00 is 240 in YAML
    try:
        return settings(values)
    except ConfigError as error:
        raise ConfigError(error.key.removeprefix(f"{KEY}."), error.value, error.expected) from None


def snapshots(chosen: Settings, sweep: Path) -> Path:
    """Where copies of the code lie: beside the sweeps, unless told otherwise."""
    return Path(chosen.snapshots) if chosen.snapshots else sweep.parent / ".code"
