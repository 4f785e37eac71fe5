"""A real SLURM, thrown away afterwards: launch/local_slurm.sh."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster; SLURM that cannot be had is said aloud, and never passes."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [tool for tool in ("slurmctld", "slurmd", "munged") if shutil.which(tool, path=path) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(
            f"SLURM IS NOT TESTED HERE: {'there is no ' + missing[0] if missing else 'needs root'} "
            "(on Debian, as root: apt install slurm-wlm munge)"
        )
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.script("up")
    yield made
    made.script("down")
    assert not made.home.exists()


@pytest.fixture
def quiet(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with nothing in its queue and both nodes up, before and after."""
    cluster.empty()
    yield cluster
    cluster.empty()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Callable[..., Path]:
    """Where a line was trained by the packed launcher, uninterrupted."""
    known: dict[Any, Path] = {}

    def trained(*line: str) -> Path:
        if line not in known:
            known[line] = tmp_path_factory.mktemp("reference")
            done = cluster.train(*line, "hydra.launcher.workers=2", cwd=known[line], launcher="packed")
            assert done.returncode == 0, done.stderr
        return known[line]

    return trained
