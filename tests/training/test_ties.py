"""Results do not depend on the order of the points; where a sign is rounding's, that is said.

Pixels have few values, and all points weigh the same at theta = 0: sums over points cancel, and so do two classes'
weights of a pixel. What rounding leaves of such a sum must move nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from conftest import train

from robust_erm.attacks.attack import without_rounding
from robust_erm.data.dataset import Dataset
from robust_erm.data.digits import Digits
from robust_erm.store.config import Run
from robust_erm.training.pack import train_pack
from robust_erm.training.problem import build
from robust_erm.training.ties import undecided

TEN = "data.classes=[0,1,2,3,4,5,6,7,8,9]"
BASE = ["model=linear", "objective=cross_entropy", "eps=0.05", "stop.steps=60"]


@dataclass(frozen=True)
class Reordered(Digits):
    """The same points in another order."""

    order: int = 0

    def draw(self, seed: int) -> Dataset:
        drawn = super().draw(seed)
        order = np.random.default_rng(self.order).permutation(len(drawn.y_train))
        return replace(drawn, x_train=drawn.x_train[order], y_train=drawn.y_train[order])


def spread(run: Run, seeds: int = 6) -> float:
    """How far the parameters of reordered runs are from one another at the end, in parts of the largest."""
    orders = [
        replace(run, seed=seed, data=Reordered(run.data.classes, m=run.data.m, order=k))
        for seed in range(seeds)
        for k in range(3)
    ]
    theta = train(build(orders, torch.device("cpu"))[0]).theta.view(seeds, 3, -1)
    apart = (theta.amax(1) - theta.amin(1)).amax(-1)
    return float((apart / theta.abs().amax((1, 2))).max())


CASES = [
    (classes, attack, optimizer)
    for classes in ("data.classes=[2,7]", TEN)
    for attack in ("exact", "pgd", "fgsm")
    for optimizer in ("gd", "sd", "adam", "spectral")
    if not (optimizer == "sd" and classes == TEN)  # its own signs are ties of the data: the next test
]


@pytest.mark.parametrize(("classes", "attack", "optimizer"), CASES)
def test_the_order_of_points_changes_nothing(
    resolved: Callable[..., Run], classes: str, attack: str, optimizer: str
) -> None:
    """Three orders of six draws; before ties were seen as such, many fell apart by 1e-6 to 0.3."""
    run = resolved(*BASE, f"optimizer={optimizer}", f"attack={attack}", classes)
    assert spread(run) < 1e-9


def test_signs_that_stay_open_are_said(resolved: Callable[..., Run], caplog: pytest.LogCaptureFixture) -> None:
    """Where sign descent's first step is rounding's, and nowhere else."""
    runs = [
        resolved(*BASE, "attack=exact", f"optimizer={name}", f"seed={seed}", classes)
        for name in ("sd", "gd")
        for classes in ("data.classes=[2,7]", TEN)
        for seed in range(6)
    ]
    said, apart = {}, {}
    for run in runs:
        pack = build([run], torch.device("cpu"))[0]
        said[run.id], apart[run.id] = int(undecided(pack)), spread(replace(run, seed=run.seed), 1)
    ten = [run for run in runs if run.optimizer.r > 2 and len(run.data.classes) == 10]
    assert any(said[run.id] for run in ten)
    assert not any(said[run.id] for run in runs if run not in ten)
    logging.getLogger("robust_erm").addHandler(caplog.handler)
    try:
        train_pack(ten)
    finally:
        logging.getLogger("robust_erm").removeHandler(caplog.handler)
    named = {record.message.partition(":")[0] for record in caplog.records if "depends on the order" in record.message}
    assert named == {run.name for run in ten if said[run.id]}


def test_rounding_is_what_lies_below_64_roundings_of_the_largest() -> None:
    for dtype in (torch.float32, torch.float64):
        unit = torch.finfo(dtype).eps
        g = torch.tensor([[3.0, -3e2 * unit, 1e2 * unit, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=dtype)
        assert without_rounding(g).tolist() == [[3.0, float(g[0, 1]), 0.0, 0.0], [0.0] * 4]
