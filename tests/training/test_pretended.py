"""Training on a pretended accelerator: the CPU's numbers, nothing that waits, and no more launches than today.

Each part is a process of its own (``on_pretended.py``): the device must come before derivatives.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]
PARTS = 4
LAUNCHES = {  # of one step: a ratchet. Lower them where you can
    "model=linear": 140,
    "model=diagonal": 177,
    "model=deep_linear": 166,
    "model=linear_conv": 181,
    "model=mlp": 157,
    "model=cnn": 388,
    "optimizer=adam": 153,
    "optimizer=cd": 129,
    "optimizer=decayed": 115,
    "optimizer=descent": 138,
    "optimizer=gd": 157,
    "optimizer=lion": 136,
    "optimizer=mirror": 137,
    "optimizer=momentum": 126,
    "optimizer=muon": 564,
    "optimizer=muon_ns": 246,
    "optimizer=nmd": 149,
    "optimizer=sd": 117,
    "optimizer=shampoo": 241,
    "optimizer=signum": 132,
    "optimizer=spectral": 547,
    "optimizer=steepest": 184,
    "schedule=bounded_loss": 120,
    "schedule=constant": 115,
    "schedule=growing": 118,
    "schedule=inverse_loss": 166,
    "schedule=log_constant": 126,
    "schedule=power": 119,
    "schedule=relative": 155,
    "schedule=short": 115,
    "schedule=stable": 157,
    "attack=fgm": 109,
    "attack=fgsm": 109,
    "attack=none": 93,
    "attack=pgd": 304,
    "attack=pgd_published": 321,
    "linear sd exact": 80,
    "linear cd exact": 92,
    "linear, l_1 threat": 188,
    "linear, l_2 threat": 155,
    "linear, ten classes": 169,
    "diagonal exact": 134,
    "deep linear exact": 258,
    "sparse Gaussian": 92,
    "net, ten classes": 241,
    "net, biases, three layers": 226,
    "net, l_2 threat": 229,
    "net, random start": 164,
    "net, mini-batches": 113,
    "linear, mini-batches": 76,
    "net, learning rates": 116,
    "net, half of the runs clean": 188,
}
ROUNDING = {"optimizer=shampoo": 1e-10}  # which takes roots of what is nearly singular
SLACK = 1.1  # another version of torch

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason=f"torch {torch.__version__} cannot pretend an accelerator in Python: the device path is not tested here",
)


def run(*arguments: str) -> Any:
    """What ``on_pretended.py`` prints."""
    command = [sys.executable, str(TESTS / "on_pretended.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.turns(200)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_recipe_is_the_cpus_and_waits_for_nothing(part: int) -> None:
    """A step copies nothing between host and device and asks nothing of the device; its launches are counted.

    It is also one graph, without a break, of the same bits.

    Where a step needs random numbers or a batch's order, which a CPU draws, those of many steps are sent at once.
    """
    for name, found in run(f"{part}/{PARTS}").items():
        assert found["trained"] < ROUNDING.get(name, 1e-14), name
        assert found["measured"] < 1e-12, name
        assert found["compiled"] == 0, name
        assert (found["to_device"], found["to_host"]) == (0, 0), name
        assert 0 < found["launches"] <= SLACK * LAUNCHES[name], name


@pytest.mark.turns(100)
def test_evaluations_are_the_cpus_and_ask_no_more_of_more_points_or_runs() -> None:
    """Attacks, certificates, distances, signs of masking: to the last bit; copies and reads are those of half.

    Of half the points a few less: where all are certified, nothing is bisected. Not of DLR, on whose plateaus rounding,
    which a CPU's compiled forms have otherwise, chooses where APGD goes.
    """
    for name, found in run("evaluated").items():
        assert (found["failed"], found["difference"]) == ([], 0), name
        assert found["numbers"] > 20, name
        _, (_, *asked), (_, *of_points), (_, *of_runs) = found["costs"]
        assert all(0 < b <= 1.5 * a for a, b in zip(of_points, asked, strict=True)), name
        assert all(0 < b <= 1.1 * a for a, b in zip(asked, of_runs, strict=True)), name


@pytest.mark.turns
def test_checkpoints_of_many_runs_take_the_copies_of_few() -> None:
    two, four = run("saved")
    assert min(two) > 0
    assert two == four
