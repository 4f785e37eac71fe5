"""Shared pieces: small runs, and the configs of conf/."""

from __future__ import annotations

import gzip
import hashlib
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
# what a script starts in the background ignores Ctrl-C, and so would all that the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import once
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from turns import (  # noqa: F401
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

from robust_erm.attacks.exact import Exact
from robust_erm.core.params import Layout
from robust_erm.core.streams import torch_stream
from robust_erm.data import cifar10, mnist
from robust_erm.models.linear import Linear
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.bounded_loss import BoundedLoss
from robust_erm.store.config import Run, resolve
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.lines import prepare
from robust_erm.training.points import Points
from robust_erm.training.runs import Runs
from robust_erm.training.step import Recipe

# on a machine with a GPU every test is one of the CPU, but for test_cuda.py: here, and in all that the tests start
GPUS = os.environ.get("CUDA_VISIBLE_DEVICES")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # torch asks the environment each time, not the driver once
torch.set_num_threads(1)
prepare()
once.read_yaml_once()

MNIST_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a command did to the package's log in this process is undone."""
    log = logging.getLogger("robust_erm")
    yield
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """compose(overrides...) -> the config that the command line would give, into a temporary folder."""

    def of(*overrides: str) -> DictConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            fixed = [f"output_dir={tmp_path}/outputs", "logger=none", "trainer.progress=false"]
            fixed += ["trainer.threads=1", "trainer.device=cpu"]
            return compose("train", [*fixed, *overrides])

    yield of
    GlobalHydra.instance().clear()


@pytest.fixture
def resolved(composed: Callable[..., DictConfig]) -> Callable[..., Run]:
    """resolved(overrides...) -> the checked run."""
    return lambda *overrides: resolve(composed(*overrides))


def separable(m: int, d: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Gaussian points with labels of a Gaussian teacher."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, d))
    return x, np.where(x @ rng.standard_normal(d) > 0, 1.0, -1.0)


def make_runs(
    x: Any,
    y: Any,
    eps: list[float],
    *,
    model: Any = None,
    optimizer: Any = None,
    attack: Any = None,
    objective: Objective | None = None,
    steps: int = 100,
    loss: float | None = None,
    seeds: list[int] | None = None,
    domain: tuple[float, float] | None = None,
    dtype: torch.dtype = torch.float64,
    outputs: int = 1,
) -> Runs:
    """Runs on shared data (x (m, d)) or one set a run (x (R, m, d)); linear GD with the exact attack by default."""
    model = model or Linear()
    seeds = seeds or [0] * len(eps)
    x, y = torch.as_tensor(x, dtype=dtype), torch.as_tensor(y, dtype=dtype)
    of_run = torch.arange(len(eps)) if x.ndim == 3 else torch.zeros(len(eps), dtype=torch.int64)
    x, y = x.reshape(-1, *x.shape[-2:]), y.reshape(-1, y.shape[-1])
    inits = [model.init(x.shape[-1], outputs, torch_stream(seed, "init")) for seed in seeds]
    layout = Layout.of(inits[0])
    recipe = Recipe(
        model,
        layout,
        objective or Objective(),
        optimizer or Steepest(BoundedLoss()),
        attack or Exact(),
        domain,
    )
    return Runs(
        recipe=recipe,
        train=Points(x, y, of_run),
        eps=torch.tensor(eps, dtype=dtype),
        theta=torch.stack([layout.flatten(p) for p in inits]).to(dtype),
        seeds=seeds,
        target=torch.full((len(eps),), -math.inf if loss is None else math.log(loss), dtype=dtype),
        steps=steps,
    )


def train(runs: Runs, chunk: int = 100) -> Runs:
    """Advance to the end."""
    while len(runs.running):
        runs.advance(chunk)
    return runs


@pytest.fixture
def idx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four tiny IDX files, and their checksums in place of the official ones."""
    folder = tmp_path / "served"
    folder.mkdir()
    rng, files = np.random.default_rng(0), {}
    mnist.load.cache_clear()
    for part, n in (("train", 60), ("t10k", 30)):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, raw in (
            ("images-idx3", np.array([2051, n, 28, 28], dtype=">u4").tobytes() + pixels.tobytes()),
            ("labels-idx1", np.array([2049, n], dtype=">u4").tobytes() + labels.tobytes()),
        ):
            name = f"{part}-{kind}-ubyte"
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
            files[name] = (hashlib.sha256(raw).hexdigest(), n)
    monkeypatch.setattr(mnist, "FILES", files)
    return folder


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the six files of CIFAR-10, of 20 images each instead of 10,000."""
    folder, rng = tmp_path / "cifar", np.random.default_rng(0)
    folder.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        records = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    monkeypatch.setattr(cifar10, "IMAGES", 20)
    return folder
