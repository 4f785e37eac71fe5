"""What recipes do on the pretended accelerator, beside the CPU: ``python tests/on_pretended.py 0/4`` prints JSON.

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

import pretended  # isort: skip  (before all that differentiates)

import torch
from recipes import begun, difference, in_the_form_of_a_device, recipes, resolved, state

from robust_erm.evaluation import folders
from robust_erm.evaluation.options import parsed
from robust_erm.sweeps.lines import prepare
from robust_erm.training.kept import export, load, on_host
from robust_erm.training.measure import Evaluation, measure
from robust_erm.training.pack import train_pack
from robust_erm.training.runs import Runs
from robust_erm.training.stepper import Carry

EVALUATED = {"model=mlp": [], "net, ten classes": ["attack=apgd", "certify=false", "checks=false"]}  # by options


def packs(name: str, folder: str) -> tuple[Runs, Evaluation, Runs, Evaluation]:
    """The same runs on the device and on the CPU."""
    runs = resolved(name, folder)
    return *in_the_form_of_a_device(runs, pretended.NAME), *in_the_form_of_a_device(runs, "cpu")


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
    now, stepper, noise = begun(pack)
    stepper = replace(stepper, accumulate=None)  # whose loop is numba's: graphs hold torch's form, of other last digits
    known = stepper.step(now, noise)  # first: a cached property is found once, under a lock
    torch._dynamo.reset()
    whole = torch.compile(stepper.step, fullgraph=True, backend="aot_eager", dynamic=False)
    return known, whole(now, noise)


def evaluated(name: str, folder: str) -> dict[str, Any]:
    """Of a recipe: evaluations on the CPU, there, there of half the points, and of twice the runs; what each asks."""
    few = [
        "square.queries=3",
        "apgd.steps=2",
        "apgd.restarts=1",
        "fab.steps=1",
        "fresh=true",
        "measure=per_attack",
        "parts=test",
    ]
    few += ["distance=true", *EVALUATED[name]]
    for count in (2, 4):
        runs = resolved(name, f"{folder}/{count}", count)
        train_pack([replace(run, stop=replace(run.stop, steps=3)) for run in runs])
    rows, costs, failed = [], [], []
    there = pretended.NAME
    for device, points, count in (("cpu", 6, 2), (there, 6, 2), (there, 3, 2), (there, 6, 4)):
        folders.device_of = partial(_device, device)
        given, options = parsed([f"{folder}/{count}", f"points={points}", *few])
        (found, wrong), counts = pretended.counted(partial(folders.evaluate, given, options))
        rows.append([[v for k, v in row.items() if isinstance(v, float) and k != "seconds"] for row in found])
        costs, failed = [*costs, counts.totals()], [*failed, *wrong]
    return {"numbers": len(rows[0][0]), "difference": difference(*rows[:2]), "failed": failed, "costs": costs}


def saved(name: str, folder: str) -> list[tuple[int, int]]:
    """Reads that exporting all of two runs takes, and all of four; and copies that putting them back takes."""
    found = []
    for count in (2, 4):
        pack, _ = in_the_form_of_a_device(resolved(name, folder, count), pretended.NAME)
        pack.advance(2)

        def exported(pack: Runs = pack, count: int = count) -> list[Any]:
            host = on_host(pack)
            return [export(pack, i, host) for i in range(count)]

        kept, asked = pretended.counted(exported)
        theta = pack.theta.cpu().clone()
        pack.advance(2)
        _, sent = pretended.counted(partial(load, pack, dict(enumerate(kept))))
        assert torch.equal(pack.theta.cpu(), theta)
        found.append((asked.totals()[2], sent.totals()[1]))
    return found


def _device(name: str, options: Any) -> torch.device:
    return torch.device(name)


def main(part: str) -> None:
    """Print what is found of the recipes k, k + of, k + 2 of, ...; or of evaluations, or of saving."""
    with tempfile.TemporaryDirectory() as folder:
        if part == "evaluated":
            print(json.dumps({name: evaluated(name, f"{folder}/{k}") for k, name in enumerate(EVALUATED)}))
        elif part == "saved":
            print(json.dumps(saved("optimizer=adam", folder)))
        else:
            k, of = map(int, part.split("/"))
            print(json.dumps({name: steps(name, folder) for name in list(recipes())[k::of]}))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)
    prepare()
    main(sys.argv[1])
