"""A tree of real results, made once: runs, an evaluation, a sweep, a submission to a pretended SLURM, a gallery."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import run
from shell import fake

LINE = ["data=gaussian", "data.d=8", "data.m=6", "model=linear", "attack=exact", "stop.steps=5", "logger=none"]
QUIET = ["trainer.progress=false", "hydra.launcher.workers=0"]
SLURM = ["hydra/launcher=slurm_cpu", "hydra.launcher.detach=true"]


def pretended_slurm(folder: Path) -> dict[str, str]:
    """An environment in which sbatch takes everything, and nobody ever hears of it again."""
    for name in ("squeue", "sacct", "sinfo", "scontrol", "scancel"):
        fake(folder, name, "exit 0")
    fake(folder, "sbatch", "echo Submitted batch job 12")
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``outputs/``: two runs with evaluations, a sweep, a submission, and what lemma_c4 reproduces."""
    root = tmp_path_factory.mktemp("results")
    env = pretended_slurm(root / "bin")
    for command, *line in (
        ["train", "-m", "seed=0,1", *LINE, *QUIET],
        ["evaluate", "outputs", "attack=apgd", "apgd.steps=5", "points=10"],
        ["train", "-m", "seed=2,3", *LINE, *SLURM],
        ["reproduce", "tsilivis2024/lemma_c4", "scale=smoke", "output_dir=gallery", *QUIET],
    ):
        done = run(command, *line, cwd=root, env=env)
        assert done.status == 0, f"{line}\n{done.out}{done.err}"
    shutil.rmtree(root / "outputs" / "sweeps" / ".code")
    return root


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Callable[[], Path]:
    """copied() -> a fresh copy of the tree."""
    count = 0

    def copy() -> Path:
        nonlocal count
        count += 1
        place = tmp_path / str(count)
        shutil.copytree(results, place)
        for path in place.glob("outputs/sweeps/*/slurm/**/*.json"):  # they name the folder that a sweep was started in
            path.write_text(path.read_text().replace(str(results), str(place)))
        return place

    return copy
