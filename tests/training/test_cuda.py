"""The same runs on a CUDA device. Skipped, and said so, where there is none."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import GPUS

from robust_erm.core.linalg import polar
from robust_erm.store.config import Run
from robust_erm.training.pack import train_pack


@pytest.fixture(scope="module", autouse=True)
def gpus() -> Iterator[None]:
    """Those of the machine, which are hidden from all other tests."""
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES")
    if GPUS is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = GPUS
    try:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device: the GPU path is not tested here")
        yield
    finally:
        os.environ["CUDA_VISIBLE_DEVICES"] = hidden


CASES = {
    "net": ["model.width=16", "stop.steps=50"],
    "net, random start": ["model.width=16", "stop.steps=20", "attack.random_start=true", "attack.restarts=2"],
    "cd": ["model=linear", "attack=exact", "optimizer=cd", "eps=0.05", "stop.steps=50"],
    "diagonal": ["model=diagonal", "model.alpha=0.1", "attack=exact", "eps=0.05", "stop.steps=50"],
    "ten classes": ["data.classes=[0,1,2,3,4,5,6,7,8,9]", "objective=cross_entropy", "stop.steps=20"],
    "cnn": ["model=cnn", "model.hidden=16", "optimizer.schedule.lr=0.001", "stop.steps=5"],
    "adam": ["optimizer=adam", "stop.steps=20"],
    "spectral": ["optimizer=spectral", "stop.steps=20"],
}


@pytest.mark.parametrize("case", CASES)
def test_cuda_is_the_cpu(case: str, resolved: Callable[..., Run]) -> None:
    """Two runs in a pack, float64; the random numbers are the same ones."""
    found = []
    for device in ("cpu", "cuda"):
        runs = [resolved(*CASES[case], f"trainer.device={device}", f"seed={seed}", "fresh=true") for seed in (0, 1)]
        found.append(train_pack(runs))
    for cpu, cuda in zip(*found, strict=True):
        assert cuda["device"] != "cpu"
        for key, value in cpu.items():
            if isinstance(value, float) and math.isfinite(value) and key != "seconds":
                assert cuda[key] == pytest.approx(value, rel=1e-8, abs=1e-10), key


def test_the_polar_factor_of_a_sketched_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, n, 20, generator=generator).double() for n in (600, 700))
    cpu, cuda = (torch.func.vmap(polar)((left @ right.mT).to(device)) for device in ("cpu", "cuda"))
    for known, found in zip(cpu, cuda, strict=True):
        torch.testing.assert_close(found.cpu(), known, rtol=1e-9, atol=1e-10)
