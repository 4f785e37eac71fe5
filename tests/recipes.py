"""What can be trained: every component of conf/, and what is made of several; and two packs, compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch.utils import _pytree as pytree

from robust_erm.objectives import Objective
from robust_erm.store.config import Run, resolve
from robust_erm.store.source import conf_dir
from robust_erm.training.measure import Evaluation
from robust_erm.training.problem import build
from robust_erm.training.runs import Runs
from robust_erm.training.stepper import Carry, Stepper

SMALL = ["data.m=12", "eps=0.1", "stop.steps=1000000", "stop.loss=null"]
FEW = ["attack.steps=3"]
MLP, TEN = ["model=mlp", "model.width=6", "model.init_scale=1"], ["data.classes=[0,1,2,3,4,5,6,7,8,9]"]
NET = [*MLP, *FEW]
LINEAR = ["model=linear", "attack=exact"]
MODELS = {
    "linear": [],
    "diagonal": [],
    "deep_linear": ["model.width=6"],
    "linear_conv": [],
    "mlp": ["model.width=6"],
    "cnn": ["model.channels=[2,3]", "model.hidden=4"],
}
SMOOTH = ["optimizer/schedule=smooth", "objective=logistic"]
STRONG = ("apgd", "apgd_dlr", "apgd_targeted", "fab", "pgd_strong", "square")  # evaluated with, not trained with
MADE = {  # of several parts
    "linear sd exact": ["data=gaussian", "data.d=16", *LINEAR, "optimizer=sd"],  # of digits it makes margins of 0
    "linear cd exact": [*LINEAR, "optimizer=cd"],
    "linear, l_1 threat": [*LINEAR, "p=1"],
    "linear, l_2 threat": [*LINEAR, "p=2"],
    "linear, ten classes": [*LINEAR, *TEN, "objective=cross_entropy", "optimizer.schedule.most=null"],
    "diagonal exact": ["model=diagonal", "attack=exact", "optimizer/schedule=inverse_loss"],
    "deep linear exact": ["model=deep_linear", "model.width=6", "attack=exact", "p=2", *SMOOTH],
    "sparse Gaussian": ["data=gaussian", "data.d=16", "data.k_x=3", "data.m_test=40", *LINEAR, "optimizer=cd"],
    "net, ten classes": [*NET, *TEN, "objective=cross_entropy"],
    "net, biases, three layers": [*NET, "model.depth=3", "model.bias=all", "objective=logistic"],
    "net, l_2 threat": [*NET, "p=2"],
    "net, random start": [*NET, "attack.random_start=true"],
    "net, mini-batches": [*NET, "batch.size=2", "optimizer/schedule=constant"],
    "linear, mini-batches": [*LINEAR, "batch.size=2", "optimizer/schedule=constant"],
    "net, learning rates": [*NET, "optimizer/schedule=constant"],  # see resolved
    "net, half of the runs clean": [*NET],
}


def recipes() -> dict[str, list[str]]:
    """Every component of conf/ at least once, and what is made of several."""
    found = {f"model={name}": [f"model={name}", *own, *FEW] for name, own in MODELS.items()}
    found |= {f"optimizer={name}": [*NET, f"optimizer={name}"] for name in names("optimizer", "oracle")}
    found |= {
        f"schedule={name}": [*NET, f"optimizer/schedule={name}"] for name in names("optimizer/schedule", "smooth")
    }
    found |= {f"attack={name}": [*MLP, f"attack={name}"] for name in names("attack", "exact", *STRONG)}
    return found | MADE


def names(group: str, *but: str) -> list[str]:
    """The choices of a group of conf/."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem not in but)


def resolved(name: str, folder: str, count: int = 2) -> list[Run]:
    """``count`` runs of a recipe: seeds, and what else differs within its pack."""
    fixed = [f"output_dir={folder}", "logger=none", "trainer.progress=false", "trainer.threads=1", "trainer.device=cpu"]
    own = {
        "net, learning rates": [[f"optimizer.schedule.lr={10.0 ** (-2 - s)}"] for s in range(count)],
        "net, half of the runs clean": [[f"eps={0.1 * (s % 2)}"] for s in range(count)],
    }.get(name, [[]])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        runs = [resolve(compose("train", [*fixed, *SMALL, *recipes()[name], *more])) for more in own]
    return [replace(runs[s % len(runs)], seed=s) for s in range(count)]


def difference(one: Any, other: Any) -> float:
    """The largest between two trees of numbers; inf where one is finite alone."""
    largest = 0.0
    for a, b in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
        apart = torch.as_tensor(a).cpu().double() - torch.as_tensor(b).cpu().double()
        largest = max(largest, float(apart.nan_to_num(0, torch.inf).abs().max())) if apart.numel() else largest
    return largest


def in_the_form_of_a_device(runs: list[Run], device: str) -> tuple[Runs, Evaluation]:
    """A pack, and what it is measured with; on a CPU without what is compiled for one."""
    pack, evaluation, _ = build(runs, torch.device(device))
    pack.kernel = pack.net = None
    pack.state.pop("kernel", None)
    objective = pack.recipe.objective
    pack.recipe = replace(pack.recipe, objective=_Uncompiled(objective.loss, objective.reduction))
    return pack, evaluation


class _Uncompiled(Objective):
    """The same losses; what overrides a method has no compiled form."""

    def shares(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().shares(s)


def state(pack: Runs) -> list[Any]:
    """All that a checkpoint holds of the runs."""
    return [pack.theta, pack.best_theta, pack.best_log_loss, pack.status, pack.state]


def begun(pack: Runs) -> tuple[Carry, Stepper, torch.Tensor]:
    """Where all runs stand, what takes a step of them on all points, and its noise."""
    rows = pack.running
    x, y = pack.train.of(rows)
    return *pack.begun(rows, (x, y)), pack.noise(pack.recipe.attack, rows.tolist(), x.shape[-2], pack.generators)
