"""The parts of ``gpu_check.py``, each in a process of its own: ``python tests/gpu_parts.py <part> <device> [quick]``.

A line of JSON for each thing that was tried: ``what``, ``ok`` (true, false, or null where nothing is to hold), numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from recipes import begun, difference, in_the_form_of_a_device, recipes, resolved, state
from torch.utils.flop_counter import FlopCounterMode

from robust_erm.store.config import Run, resolve
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.lines import prepare
from robust_erm.training import resources
from robust_erm.training.attacked import room_at_once
from robust_erm.training.faults import release
from robust_erm.training.kept import export, load
from robust_erm.training.measure import measure
from robust_erm.training.problem import build
from robust_erm.training.runs import Runs

Row = dict[str, Any]
HERE = Path(__file__).resolve().parent
CLOSE = 1e-9  # float64, after one step, relative to the largest number

_SAID = 2000  # of what is said, the last characters

CLEAN = ["attack=none", "eps=0"]
WAITS = ("optimizer=shampoo",)  # for torch's eigendecomposition, which asks whether it succeeded: no graph either
LYU2022 = ["data=gaussian", "data.d=784", "data.m=12000", "model=mlp", "model.widths=[1024,64]", "batch.size=80"]
LYU2022 += ["objective=logistic", "objective.reduction=mean", "eps=0.05"]
# the papers' sizes, as lines; and how many runs
SIZES = {
    "linear, d = 512, m = 1024, exact": (
        ["data=gaussian", "data.d=512", "data.m=1024", "model=linear", "attack=exact", "optimizer=gd", "eps=0.01"],
        64,
    ),
    "784-784-1, m = 100, PGD-10": (
        ["data=gaussian", "data.d=784", "data.m=100", "model=mlp", "model.width=784", "optimizer=gd"],
        18,
    ),
    "vardi2022: d = width = 1000, m = 31,623, no attack": (
        ["data=sphere", "data.d=1000", "data.m=31623", "model=mlp", "model.width=1000", "model.bias=first", *CLEAN],
        1,
    ),
    "lyu2022, Fig. 2: 784-1024-64-1, batches of 80 of 12,000, FGSM": ([*LYU2022, "attack=fgsm"], 9),
    "lyu2022, Fig. 2: the same, PGD-5": ([*LYU2022, "attack=pgd", "attack.steps=5"], 9),
    "Madry CNN, m = 1,000, PGD-10": (
        ["data=gaussian", "data.d=784", "data.m=1000", "model=cnn", "optimizer/schedule=constant"],
        6,
    ),
}
QUICK = {"small net": (["model=mlp", "model.width=16", "data.m=20"], 2)}


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was asked."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: str, least: float = 0.5) -> float:
    """Of one call, after a warm one."""
    work()
    synchronize(device)
    began, count = time.perf_counter(), 0
    while not count or time.perf_counter() - began < least:
        work()
        synchronize(device)
        count += 1
    return (time.perf_counter() - began) / count


def environment(device: str, quick: bool) -> Iterator[Row]:
    """What the machine is, and what it can do at most."""
    row: Row = {"what": "machine", "ok": True, "torch": torch.__version__, "cuda": torch.version.cuda}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        row |= {"name": properties.name, "capability": f"{properties.major}.{properties.minor}"}
        row |= {"memory_gib": properties.total_memory / 2**30}
    yield row
    for dtype in (torch.float64, torch.float32):
        yield {
            "what": f"product, {dtype}".replace("torch.", ""),
            "ok": None,
            "tflops": rate(device, dtype, quick) / 1e12,
        }
    one = torch.zeros(1, device=device)
    yield {"what": "launch of an empty kernel", "ok": None, "us": 1e6 * seconds(lambda: one.add_(1), device)}
    wide = torch.zeros(2**22 if quick else 2**28, device=device)
    yield {"what": "copy", "ok": None, "tb_per_s": 2 * wide.nbytes / seconds(lambda: wide.clone(), device) / 1e12}


def rate(device: str, dtype: torch.dtype, quick: bool) -> float:
    """Operations a second of a large square product."""
    n = 256 if quick else 4096
    a = torch.rand(n, n, dtype=dtype, device=device)
    return 2 * n**3 / seconds(lambda: a @ a, device)


def correct(device: str, quick: bool) -> Iterator[Row]:
    """Every recipe beside the CPU's, after a step and after fifty: what signs of rounding decide may part by then."""
    for name, folder in each(quick):
        runs = resolved(name, folder)
        (there, _), (here, _) = (in_the_form_of_a_device(runs, where) for where in (device, "cpu"))
        found: Row = {"what": name}
        for steps in (1, 50):
            for pack in (there, here):
                pack.advance(steps - pack.t)
            largest = float(here.theta.abs().max())
            found[f"apart_after_{steps}"] = difference(there.theta, here.theta) / max(largest, 1e-300)
        yield found | {"ok": found["apart_after_1"] <= CLOSE}
    if device.startswith("cuda"):
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", str(HERE / "training" / "test_cuda.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        yield {"what": "tests/training/test_cuda.py", "ok": done.returncode == 0, "says": done.stdout}


def waiting(device: str, quick: bool) -> Iterator[Row]:
    """A step asks nothing of the device: it raises where it would wait, as is known of Shampoo's alone."""
    for name, folder in each(quick):
        pack, _ = in_the_form_of_a_device(resolved(name, folder), device)
        pack.advance(2)
        now, stepper, noise = begun(pack)
        stepper.step(now, noise)
        if not device.startswith("cuda"):
            yield {"what": name, "ok": None, "says": "only CUDA says where it waits"}
            continue
        torch.cuda.set_sync_debug_mode("error")
        try:
            stepper.step(now, noise)
            row: Row = {"what": name, "ok": True}
        except RuntimeError:
            row = {"what": name, "ok": name in WAITS, "says": traceback.format_exc()}
        torch.cuda.set_sync_debug_mode("default")
        yield row


def graphs(device: str, quick: bool) -> Iterator[Row]:
    """A step as one graph: the same bits, and how much less time."""
    if not device.startswith("cuda"):
        yield {"what": "graphs", "ok": None, "says": "are CUDA's"}
        return
    for name, folder in each(quick):
        runs = resolved(name, folder)
        row: Row = {"what": name}
        packs = [in_the_form_of_a_device(runs, device)[0] for _ in range(2)]
        for kind, pack in zip(("eager", "graph"), packs, strict=True):
            pack.graphs = kind == "graph"
            began = time.perf_counter()
            pack.advance(20)
            synchronize(device)
            row[f"ms_first_20_{kind}"] = 1e3 * (time.perf_counter() - began)
        row["apart"] = difference(*map(state, packs))
        for kind, pack in zip(("eager", "graph"), packs, strict=True):
            row[f"us_{kind}"] = 1e6 * per_step(pack, device)
        captured = packs[1].graphs
        yield row | {"ok": row["apart"] == 0 and (captured or name in WAITS), "captured": captured}


def speed(device: str, quick: bool) -> Iterator[Row]:
    """Steps a second at the papers' sizes, and the share of the rate of products that they reach."""
    for dtype in ("float32", "float64"):
        most = rate(device, getattr(torch, dtype), quick)
        for name, (line, count) in (QUICK if quick else SIZES).items():
            yield at_size(name, line, count, dtype, device, most)


def at_size(name: str, line: list[str], count: int, dtype: str, device: str, most: float) -> Row:
    """One row of :func:`speed`."""
    row: Row = {"what": f"{name}; {count} runs, {dtype}", "ok": None}
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = composed([*line, f"dtype={dtype}"], folder, count)
            pack, _ = in_the_form_of_a_device(runs, device)
            pack.graphs = False
            pack.advance(1)
            with FlopCounterMode(display=False) as counter:
                pack.advance(1)
            floor = counter.get_total_flops() / most
            eager = per_step(pack, device)
            if getattr(runs[0].model, "fills_device", False):  # is one run after another faster than the map?
                type(runs[0].model).fills_device = False
                row["steps_per_s_mapped"] = 1 / per_step(pack, device)
                type(runs[0].model).fills_device = True
            row |= {"steps_per_s": 1 / eager, "flop": counter.get_total_flops(), "share_of_products": floor / eager}
            if device.startswith("cuda"):
                pack.graphs = True
                graph = per_step(pack, device)
                row |= {"steps_per_s_graph": 1 / graph, "share_graph": floor / graph, "captured": pack.graphs}
        except RuntimeError as error:
            row |= {"ok": False, "says": str(error)[:500]}
    return row


def memory(device: str, quick: bool) -> Iterator[Row]:
    """What packs were said to need, and what they took."""
    if not device.startswith("cuda"):
        yield {"what": "memory", "ok": None, "says": "of a device is CUDA's"}
        return
    for name, (line, count) in SIZES.items():
        for many in sorted({1, 2, count}):
            with tempfile.TemporaryDirectory() as folder:
                runs = composed([*line, "dtype=float32"], folder, many)
                torch.zeros(1, device=device)  # so that there is something to ask
                release()
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_reserved(device)
                pack, evaluation = in_the_form_of_a_device(runs, device)
                pack.advance(2)
                took = torch.cuda.max_memory_reserved(device) - before
                measure(pack, evaluation, pack.running)
                measured = torch.cuda.max_memory_reserved(device) - before
                said = many * (resources.of_run(runs[0]) + resources.of_data(runs[0])) + resources.of_libraries(runs[0])
                yield {
                    "what": f"{name}; {many} runs",
                    "ok": took <= said and measured <= said + room_at_once(torch.device(device)),  # see its docstring
                    "said_gib": said / 2**30,
                    "took_gib": took / 2**30,
                    "measured_gib": measured / 2**30,
                }
                del pack


def bits(device: str, quick: bool) -> Iterator[Row]:
    """The same pack twice, in halves, and resumed half-way; on a GPU only the first is promised."""
    for name, folder in each(quick):
        runs = resolved(name, folder)
        whole, again, resumed = (in_the_form_of_a_device(runs, device)[0] for _ in range(3))
        whole.advance(20)
        again.advance(20)
        halves = [in_the_form_of_a_device([run], device)[0] for run in runs]
        for half in halves:
            half.advance(20)
        first = in_the_form_of_a_device(runs, device)[0]
        first.advance(10)
        load(resumed, {i: export(first, i) for i in range(len(runs))})
        resumed.t = 10
        resumed.advance(10)
        theta = whole.theta.cpu()
        row: Row = {
            "what": name,
            "twice": difference(again.theta, theta),
            "halves": difference(torch.cat([half.theta for half in halves]), theta),
            "resumed": difference(resumed.theta, theta),
        }
        yield row | {"ok": row["twice"] == 0 and row["resumed"] == 0}


def commands(device: str, quick: bool) -> Iterator[Row]:
    """Whole commands on the device: a sweep with two workers, the same line again, an evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", "-m", "optimizer=gd,sd", "eps=0,0.2", "model.width=16", "stop.steps=20"]
        train += [f"trainer.device={device}", "logger=none", "hydra.launcher.workers=2", "trainer.progress=false"]
        train += [f"output_dir={folder}"]
        for line in (train, train, ["evaluate", folder, "points=10", "square.queries=20", f"device={device}"]):
            yield commanded(line) | {"what": " ".join([line[0], *line[2:4]])}


def evaluation(device: str, quick: bool) -> Iterator[Row]:
    """Strong attacks and certificates at a paper's size: 784-784-1 on Gaussian points, 8 runs, 1,000 points of each."""
    many, runs = ("10", 2) if quick else ("1000", 8)
    with tempfile.TemporaryDirectory() as folder:
        line = ["train", "-m", "data=gaussian", "data.d=784", "data.m=100", "data.m_test=1000", "dtype=float32"]
        line += ["model=mlp", f"model.width={16 if quick else 784}", "stop.steps=50", f"seed=range({runs})", "eps=0.01"]
        commanded([*line, "logger=none", f"trainer.device={device}", f"output_dir={folder}"])
        what = ["evaluate", folder, f"points={many}", "parts=test", "checks=false", f"device={device}"]
        yield commanded(what) | {"what": f"evaluate, {runs} runs, {many} points"}


def commanded(line: list[str]) -> Row:
    """A whole command: whether it ends well, in how many seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", f"robust_erm.{line[0]}", *line[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    says = done.stdout + done.stderr
    return {"what": line[0], "ok": done.returncode == 0, "seconds": time.perf_counter() - began, "says": says}


def faults(device: str, quick: bool) -> Iterator[Row]:
    """A pack that does not fit beside what else is on the device: its halves do, after what it held is let go."""
    if not device.startswith("cuda"):
        yield {"what": "faults", "ok": None, "says": "of a device are CUDA's"}
        return
    line = ["data=gaussian", "data.d=784", "data.m=1000", "model=cnn", "optimizer/schedule=constant", "stop.steps=2"]
    line += ["dtype=float32", "attack.steps=2", "logger=none", "trainer.progress=false", f"trainer.device={device}"]
    with tempfile.TemporaryDirectory() as folder:
        synchronize(device)
        one = composed(line[:-3], f"{folder}/one", 1)
        pack, _ = in_the_form_of_a_device(one, device)
        pack.advance(1)
        took = torch.cuda.max_memory_allocated(device)
        del pack
        torch.cuda.empty_cache()
        spare = torch.cuda.mem_get_info(device)[0] - int(3.5 * took) - 2**30  # a worker's context takes half a GiB
        held = torch.empty(max(0, spare), dtype=torch.uint8, device=device)
        sweep = ["train", "-m", *line, "seed=range(8)", "hydra.launcher.pack_size=8", f"output_dir={folder}"]
        row = commanded(sweep) | {"what": "a pack of 8, room for some 3"}
        row |= {"took_gib": took / 2**30, "held_gib": held.nbytes / 2**30}
        row["halved"] = row["says"].count("trying its halves")
        yield row | {"ok": row["ok"] and row["halved"] > 0}


def where(device: str, quick: bool) -> Iterator[Row]:
    """Linear packs whose whole step is compiled on a CPU: microseconds of a step there, on one thread, and here."""
    line = ["data=gaussian", "data.d=512", "model=linear", "attack=exact", "optimizer=gd", "eps=0.01"]
    for m in (64,) if quick else (64, 256, 1024, 4096, 16384):
        with tempfile.TemporaryDirectory() as folder:
            runs = composed([*line, f"data.m={m}"], folder, 8 if quick else 64)
            row: Row = {"what": f"d = 512, m = {m}, {len(runs)} runs", "ok": None, "rmd": len(runs) * m * 512}
            for name, place, graphs in (("cpu", "cpu", False), ("eager", device, False), ("graph", device, True)):
                pack, *_ = build(runs, torch.device(place))
                pack.graphs = graphs and place.startswith("cuda")
                row[f"us_{name}"] = 1e6 * per_step(pack, place)
        yield row


PARTS = {
    f.__name__: f
    for f in (environment, correct, waiting, graphs, bits, memory, commands, faults, where, speed, evaluation)
}


def each(quick: bool) -> Iterator[tuple[str, str]]:
    """Recipes, each with a folder; quick: every tenth."""
    with tempfile.TemporaryDirectory() as folder:
        for name in list(recipes())[:: 10 if quick else 1]:
            yield name, folder


def composed(line: list[str], folder: str, count: int) -> list[Run]:
    """Runs of a line that never end, of one data set."""
    fixed = [f"output_dir={folder}", "logger=none", "trainer.device=cpu", "stop.loss=null", "stop.steps=1000000"]
    schedule = [] if any("schedule" in word for word in line) else ["optimizer/schedule=constant"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        lines = ([*fixed, *schedule, *line, f"optimizer.schedule.lr={1e-6 * (k + 1)}"] for k in range(count))
        return [resolve(compose("train", one)) for one in lines]


def per_step(pack: Runs, device: str) -> float:
    """Seconds of a step, of as many at once as take some 0.2 s."""
    steps = max(2, min(200, int(0.4 / seconds(lambda: pack.advance(2), device, 0.0))))
    return seconds(lambda: pack.advance(steps), device) / steps


def main(part: str, device: str, quick: bool) -> None:
    """Print the rows of a part as they come."""
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(1)  # on a CPU bits are promised of one thread
    prepare()
    for row in PARTS[part](device, quick):
        last = {"says": row["says"][-_SAID:]} if "says" in row else {}
        print(json.dumps(row | last), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "quick" in sys.argv[3:])
