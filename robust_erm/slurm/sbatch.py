"""sbatch: the script, what it would say of it, and what its refusals mean."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError, hint, require
from robust_erm.slurm.settings import KEY, Settings
from robust_erm.slurm.task import AGAIN
from robust_erm.store import queue

_DEATHS = 2  # times that a task which was killed goes on
# what sbatch says, and what is to be done
_ADVICE = {
    r"invalid partition": ("partition", "there is no such partition{partitions}"),
    r"Invalid account": ("account", "is no account that may use this partition; sacctmgr show user $USER withassoc"),
    r"Invalid qos": ("qos", "is no quality of service that may be used here"),
    r"Invalid feature": ("constraint", "no node has this feature; sinfo -o '%N %f' shows all"),
    r"SubmitJobLimit|Job violates accounting/QOS policy|Slurm temporarily unable to accept job|job submit limit": (
        "tasks",
        "more than may be submitted now; ask for fewer: hydra.launcher.tasks=<n>",
    ),
    r"[Tt]ime limit": (
        "time",
        "minutes, more than the partition allows; tasks that reach their limit go on by themselves",
    ),
    r"(?i)generic resource|gres": ("gpus", "no node has so many GPUs; hydra/launcher=slurm_cpu asks for none"),
    r"node configuration is not available|specification can not be satisfied|[Mm]emory required by task": (
        "",
        "no node has what a task asks for ({asked}); sinfo -o '%P %c %m %G' shows what there is",
    ),
    r"Unable to contact|Connection refused|timed out": ("", "the SLURM controller does not answer: try again later"),
}


class NoCluster(ConfigError):
    """Raised where a machine cannot submit: it has no SLURM, or one that is not configured."""


def require_slurm() -> None:
    """Raise :class:`NoCluster` where this machine cannot submit."""
    missing = [tool for tool in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(tool) is None]
    if missing:
        advice = f"there is no {missing[0]} on this machine; run it on a login node of the cluster, or train here with "
        raise NoCluster("hydra/launcher", "slurm", f"{advice}hydra/launcher=packed")


def script(chosen: Settings, folder: Path, code: Path, name: str, tasks: int) -> str:
    """The sbatch script, as submitit writes it."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{chosen.python or shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    given: dict[str, Any] = {**parameters(chosen, folder, code, name), "command": command, "folder": folder}
    return _make_sbatch_string(**given, map_count=tasks if tasks > 1 else None)


def parameters(chosen: Settings, folder: Path, code: Path, name: str) -> dict[str, Any]:
    """Of submitit's executor: what is asked for, and what its shell does before and after Python."""
    path = [shlex.quote(str(code)), shlex.quote(os.getcwd())]
    setup = [
        *chosen.setup,
        "trap : TERM  # the shell sees the end of what it has started",
        "# the copy of the code that was made at submission, before whatever lies in the working directory",
        f"export PYTHONSAFEPATH=1 PYTHONPATH={':'.join(path)}${{PYTHONPATH:+:$PYTHONPATH}}",
        "# steps of newer SLURM versions do not take the cores over from the job",
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
        "# compiled code belongs to a machine, and wants a disk with locks that nobody else writes to",
        'if [ -z "$NUMBA_CACHE_DIR" ]; then',
        '  export NUMBA_CACHE_DIR="${TMPDIR:-/tmp}/robust-erm-$(id -u)"; mkdir -p -m 700 "$NUMBA_CACHE_DIR"',
        '  [ -O "$NUMBA_CACHE_DIR" ] || NUMBA_CACHE_DIR=$(mktemp -d)',
        "fi",
    ]
    killed = min(_DEATHS, chosen.max_requeues)
    teardown = [
        "code=$?",
        f"# {AGAIN}: told to end, checkpoints are left. Above 128: killed, so that Python could say nothing",
        "job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; job=${job:-$SLURM_JOB_ID}",
        f"deaths={shlex.quote(str(folder))}/killed-${{SLURM_ARRAY_TASK_ID:-0}}",
        f'if [ $code -gt 128 ] && [ "$(cat "$deaths" 2>/dev/null | wc -l)" -lt {killed} ]; then',
        f'  echo "$(hostname) $code" >>"$deaths"; code={AGAIN}',
        "fi",
        f"if [ $code -eq {AGAIN} ]; then",
        "  for _ in 1 2 3 4 5; do  # only what runs: SLURM may have requeued it, or somebody cancelled it",
        '    state=$(squeue -h -j "$job" -o %T) && [ -n "$state" ] && break; sleep 2',
        "  done",
        '  echo "told to end, or killed; SLURM says $state"',
        '  if [ "$state" = RUNNING ]; then scontrol requeue "$job" && echo "requeued from here"; fi',
        "fi",
        "exit $code",
    ]
    return {**chosen.parameters(), "job_name": name, "setup": setup, "teardown": teardown}


def require_time(chosen: Settings) -> None:
    """Raise :class:`ConfigError` where the partition allows less: SLURM may take such a job, and never start it."""
    for name, limit, default in _partitions():
        if name == chosen.partition or (default and not chosen.partition):
            advice = f"minutes, but partition {name} allows {limit:g}; tasks that reach their limit go on by themselves"
            require(chosen.time <= limit, f"{KEY}.time", chosen.time, advice)


def test(text: str, chosen: Settings) -> str:
    """What sbatch thinks of a script, which is not submitted: when it would start.

    It sees nodes as they are just now, and calls what waits for a drained one impossible.

    Raises:
        ConfigError: it would be refused.
    """
    with outside_of_jobs():
        done = subprocess.run(["sbatch", "--test-only"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise refusal(done.stderr, chosen)
    return done.stderr.strip().removeprefix("sbatch: ")


def refusal(said: str, chosen: Settings) -> ConfigError:
    """What sbatch refused, as one line that says what to do."""
    lines = [re.sub(r"^(sbatch|allocation failure): (error: )?", "", line.strip()) for line in said.splitlines()]
    lines = [line for line in lines if line and "Batch job submission failed" not in line] or lines
    text = "; ".join(dict.fromkeys(line.removeprefix("error: ") for line in lines)) or "no reason"
    if "configuration source" in said:
        advice = "SLURM is installed but not configured here; run it on a login node of the cluster"
        return NoCluster("hydra/launcher", "slurm", f"{advice} (sbatch: {text})")
    for pattern, (option, advice) in _ADVICE.items():
        if re.search(pattern, said):
            asked = {"memory": chosen.memory, "cpus": chosen.cpus, "gpus": chosen.gpus, "partition": chosen.partition}
            words = ", ".join(f"{k}={v}" for k, v in asked.items() if v)
            found = sorted({name for name, _, _ in _partitions()})
            there = f": has {', '.join(found)}{hint(chosen.partition or '', found)}" if found else ""
            advice = advice.format(partitions=there, asked=words)
            if option:
                return ConfigError(f"{KEY}.{option}", getattr(chosen, option), f"{advice} (sbatch: {text})")
            return ConfigError("hydra/launcher", "slurm", f"{advice} (sbatch: {text})")
    return ConfigError("hydra/launcher", "slurm", f"sbatch refuses: {text}")


def _partitions() -> list[tuple[str, float, bool]]:
    """Name of each partition, its time limit in minutes, whether it is the default; none where SLURM is silent."""
    said = queue.ask("sinfo", "--noheader", "--format=%R|%P|%l")
    rows = [line.split("|") for line in (said or ("", ""))[0].splitlines() if line.count("|") == 2]
    return [(name, _minutes(limit), shown.endswith("*")) for name, shown, limit in rows]


def _minutes(limit: str) -> float:
    """SLURM's ``days-hours:minutes:seconds``; without a bound where it is ``infinite``."""
    days, _, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in (days or "0", *parts)):
        return math.inf
    hours, minutes, seconds = ([0, 0, 0, *map(int, parts)])[-3:]
    return 1440 * int(days or 0) + 60 * hours + minutes + seconds / 60


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Inside a job (an interactive one, say) its variables would become those of what is submitted."""
    kept = dict(os.environ)
    if "SLURM_JOB_ID" in os.environ:
        for name in kept:
            if name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name != "SLURM_CONF":
                del os.environ[name]
    try:
        yield
    finally:
        os.environ |= kept
