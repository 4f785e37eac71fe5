"""What recipes do on the pretended accelerator, beside the CPU: ``python -m tests.on_pretended 0/4`` prints JSON.

Every fourth recipe, from the first: what a step asks of the device, and how far its numbers are from the CPU's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

from tests import pretended  # isort: skip  (before all that differentiates)

import torch
from hydra import compose, initialize_config_dir
from torch.utils import _pytree as pytree

from robust_erm.evaluation import folders
from robust_erm.evaluation.options import parsed
from robust_erm.store.config import Run, resolve
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.lines import prepare
from robust_erm.training.measure import Evaluation, measure
from robust_erm.training.pack import train_pack
from robust_erm.training.problem import build
from robust_erm.training.runs import Runs
from robust_erm.training.stepper import Carry

SMALL = ["data.m=12", "eps=0.1", "stop.steps=1000000", "stop.loss=null"]
FEW = ["attack.steps=3"]
MLP, TEN = ["model=mlp", "model.width=6", "model.init_scale=1"], ["data.classes=[0,1,2,3,4,5,6,7,8,9]"]
NET = [*MLP, *FEW]
LINEAR = ["model=linear", "attack=exact"]
MODELS = {
    "linear": [],
    "diagonal": [],
    "deep_linear": ["model.width=6"],
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


EVALUATED = {"model=mlp": [], "net, ten classes": ["attack=apgd_dlr", "certify=false", "checks=false"]}  # by options


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
        "net, learning rates": lambda s: [f"optimizer.schedule.lr={10.0**-s}"],
        "net, half of the runs clean": lambda s: [f"eps={0.1 * (s % 2)}"],
    }.get(name, lambda _: [])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        lines = ([*fixed, *SMALL, f"seed={s}", *recipes()[name], *own(s)] for s in range(count))
        return [resolve(compose("train", line)) for line in lines]


def difference(one: Any, other: Any) -> float:
    """The largest between two trees of numbers; inf where one is finite alone."""
    largest = 0.0
    for a, b in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
        apart = torch.as_tensor(a).cpu().double() - torch.as_tensor(b).double()
        largest = max(largest, float(apart.nan_to_num(0, torch.inf).abs().max())) if apart.numel() else largest
    return largest


def packs(name: str, folder: str) -> tuple[Runs, Evaluation, Runs, Evaluation]:
    """The same runs on the device and on the CPU, where they take the forms of a device."""
    runs = resolved(name, folder)
    there, evaluated_there, _ = build(runs, torch.device(pretended.NAME))
    here, evaluated_here, _ = build(runs, torch.device("cpu"))
    here.kernel = here.net = None
    here.state.pop("kernel", None)
    return there, evaluated_there, here, evaluated_here


def state(pack: Runs) -> list[Any]:
    """All that a checkpoint holds of the runs."""
    return [pack.theta, pack.best_theta, pack.best_log_loss, pack.status, pack.state]


def steps(name: str, folder: str) -> dict[str, Any]:
    """Of one recipe: what a step asks of the device, and how far training and a measurement are from the CPU's."""
    there, evaluated_there, here, evaluated_here = packs(name, folder)
    there.advance(1)
    few, many = (pretended.counted(partial(there.advance, n))[1].totals() for n in (1, 3))
    here.advance(5)
    launches, to_device, to_host = ((b - a) / 2 for a, b in zip(few, many, strict=True))
    trained = difference(state(there), state(here))
    rows = [measure(there, evaluated_there, there.running), measure(here, evaluated_here, here.running)]
    compiled = difference(*one_graph(here))
    costs = {"launches": launches, "to_device": to_device, "to_host": to_host}
    return {**costs, "trained": trained, "measured": difference(*rows), "compiled": compiled}


def one_graph(pack: Runs) -> tuple[Carry, Carry]:
    """A step of all runs: as it is, and as one graph without a break."""
    rows = pack.running
    x, y = pack.train.of(rows)
    now, stepper = pack.begun(rows, (x, y))
    noise = pack.noise(pack.recipe.attack, rows.tolist(), x.shape[-2], pack.generators)
    known = stepper.step(now, noise)  # first: a cached property is found once, under a lock
    torch._dynamo.reset()
    whole = torch.compile(stepper.step, fullgraph=True, backend="aot_eager", dynamic=False)
    return known, whole(now, noise)


def evaluated(name: str, folder: str) -> dict[str, Any]:
    """Of the runs of a recipe: an evaluation on the CPU, there, and there of fewer points; and what each asks."""
    few = ["square.queries=3", "apgd.steps=2", "apgd.restarts=1", "fab.steps=1", "fresh=true", "measure=per_attack"]
    few += EVALUATED[name]
    train_pack([replace(run, stop=replace(run.stop, steps=3)) for run in resolved(name, folder)])
    rows, costs, failed = [], [], []
    for device, points in (("cpu", 6), (pretended.NAME, 6), (pretended.NAME, 3)):
        folders.device_of = partial(_device, device)
        given, options = parsed([folder, f"points={points}", *few])
        (found, wrong), counts = pretended.counted(partial(folders.evaluate, given, options))
        rows.append([[v for k, v in row.items() if isinstance(v, float) and k != "seconds"] for row in found])
        costs, failed = [*costs, counts.totals()], [*failed, *wrong]
    return {"numbers": len(rows[0][0]), "difference": difference(*rows[:2]), "failed": failed, "costs": costs}


def _device(name: str, options: Any) -> torch.device:
    return torch.device(name)


def main(part: str) -> None:
    """Print what is found of the recipes k, k + of, k + 2 of, ...; or ``evaluated``: of evaluations."""
    with tempfile.TemporaryDirectory() as folder:
        if part == "evaluated":
            print(json.dumps({name: evaluated(name, f"{folder}/{k}") for k, name in enumerate(EVALUATED)}))
        else:
            k, of = map(int, part.split("/"))
            print(json.dumps({name: steps(name, folder) for name in list(recipes())[k::of]}))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    prepare()
    main(sys.argv[1])
