"""Measured speed, as ratios against :mod:`baseline` within one process: a table in Markdown.

python tests/benchmarks/speed.py [--only NAME ...] [--quick] [--out FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import baseline
import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import MNIST_FOLDER, make_runs

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.linalg import polar
from robust_erm.data.digits import Digits
from robust_erm.data.gaussian import Gaussian
from robust_erm.data.mnist import MNIST
from robust_erm.data.sphere import Sphere
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.adam import Adam
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant
from robust_erm.training import kernels as compiled
from robust_erm.training.runs import Runs

ROOT = Path(__file__).resolve().parents[2]
D = 512
Row = tuple[str, str, str]  # workload, measured, to reach


class Sizes:
    """How much is measured; ``--quick`` only shows that it runs."""

    def __init__(self, quick: bool) -> None:
        self.steps, self.repeats = (3, 1) if quick else (200, 5)
        self.points = (4, 8) if quick else (500, 2000)
        self.ms = (16,) if quick else (64, 256, 1024)
        self.net = (16, 32) if quick else (100, 784)
        self.long = 50 if quick else 200_000
        self.stop = 20 if quick else 200_000
        self.mirrored = 4 if quick else 1000
        self.around = 4 if quick else 64
        self.commands = not quick  # sweeps are commands of their own; else in this process, which spares the imports


def packed(ms: int, sets: int, each: int, optimizer: Any, dtype: torch.dtype, k_x: int = D) -> tuple[Runs, Any]:
    """Sets * each runs that differ in eps and step size, on ``sets`` data sets; and the first data set."""
    drawn = [Gaussian(d=D, m=ms, k_x=k_x).draw(seed) for seed in range(sets)]
    x, y = np.stack([s.x_train for s in drawn]), np.stack([s.y_train for s in drawn])
    which = torch.arange(sets).repeat_interleave(each)
    eps = torch.linspace(0, 0.05, each).repeat(sets).tolist()
    runs = make_runs(
        x[:1].repeat(len(eps), 0),
        y[:1].repeat(len(eps), 0),
        eps,
        optimizer=optimizer,
        attack=Exact(),
        dtype=dtype,
        steps=10**9,
    )
    runs.train.x, runs.train.y = (torch.as_tensor(a, dtype=dtype) for a in (x, y))
    runs.train.of_run = which
    runs.recipe = dataclasses.replace(runs.recipe, sparse=k_x < D)
    runs.numbers = {"schedule.lr": torch.logspace(-6, -5, len(eps), dtype=dtype)}
    runs.__post_init__()
    return runs, drawn[0]


def bare(runs: Runs, sizes: Sizes, products: int) -> float:
    """Seconds of the matrix products alone that one step contains."""
    z = runs.kernel.z
    rows = len(runs.eps) // len(z)
    w, s = z.new_zeros(rows, z.shape[2]), z.new_zeros(rows, z.shape[1])
    out_s, out_w = torch.empty_like(s), torch.empty_like(w)

    def run(n: int) -> None:
        for _ in range(n):
            for k in range(len(z)):
                if products == 2:
                    torch.mm(w, runs.kernel.zt[k], out=out_s)
                torch.mm(s, z[k], out=out_w)

    return timed(run, sizes)


def timed(run: Callable[[int], object], sizes: Sizes, steps: int | None = None) -> float:
    """Seconds a step, with one thread or with a thread a core, whichever is faster."""
    found = []
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        found.append(baseline.seconds(run, steps or sizes.steps, sizes.repeats))
    return min(found)


def usual(name: str, m: int, drawn: Any, sizes: Sizes) -> float:
    """Seconds a step of the usual script."""
    x, y = (torch.as_tensor(a, dtype=torch.float32) for a in (drawn.x_train, drawn.y_train))
    model = baseline.linear(D)
    kind: Any = torch.optim.SGD if name == "GD" else baseline.CoordinateDescent
    return timed(baseline.linear_steps(model, kind(model.parameters(), lr=1e-6), x, y, 0.01), sizes)


def linear(sizes: Sizes) -> Iterator[Row]:
    """GD and CD on dense points."""
    goals = {
        ("GD", 1, "float32"): (80, 30, 12), ("GD", 1, "float64"): (40, 16, 6), ("CD", 1, "float32"): (60, 30, 18),
        ("GD", 8, "float32"): (25, 12, 5), ("CD", 8, "float32"): (18, 12, 6),
    }  # fmt: skip
    for (name, sets, dtype), goal in goals.items():
        ratios, shares = [], []
        for m in sizes.ms:
            optimizer = Steepest(Constant(1e-6), 2.0 if name == "GD" else 1.0)
            runs, drawn = packed(m, sets, 64 // sets, optimizer, getattr(torch, dtype))
            slow = usual(name, m, drawn, sizes)
            fast = timed(runs.advance, sizes)
            ratios.append(slow / (fast / 64))
            shares.append(bare(runs, sizes, 2 if name == "GD" else 1) / fast)
        each = "64 runs on one data set" if sets == 1 else "8 runs on each of 8 data sets"
        sizes_ = " / ".join(map(str, sizes.ms))
        times = " / ".join(f"{r:.0f}x" if r >= 10 else f"{r:.1f}x" for r in ratios)
        found = f"{times}; products {' / '.join(f'{s:.0%}' for s in shares)}"
        yield f"{name}, d = {D}, m = {sizes_}, {each}, {dtype}", found, " / ".join(f"{g}x" for g in goal)


def sparse(sizes: Sizes) -> Iterator[Row]:
    """CD on k-sparse points."""
    for m in sizes.ms:
        found = []
        for k in (4, 12, 23):
            runs, drawn = packed(m, 1, 64, Steepest(Constant(1e-6), 1.0), torch.float64, k)
            slow = usual("CD", m, drawn, sizes)
            found.append(slow / (timed(runs.advance, sizes) / 64))
        yield f"CD, k-sparse points, k = 4 / 12 / 23, m = {m}, float64", " / ".join(f"{f:.0f}x" for f in found), "100x"


def net(sizes: Sizes) -> Iterator[Row]:
    """One-hidden-layer nets with PGD: GD and SD, 3 eps, 3 seeds, in two packs on as many threads."""
    m, width = sizes.net
    rng = np.random.default_rng(0)
    if MNIST_FOLDER.is_dir() and width == 784:
        drawn = [MNIST(folder=str(MNIST_FOLDER), classes=(2, 7), m=m).draw(seed) for seed in range(3)]
        x, y, what = np.stack([s.x_train for s in drawn]), np.stack([s.y_train for s in drawn]), "MNIST 2 vs 7"
    else:
        x, y, what = rng.random((3, m, width)), rng.choice([-1.0, 1.0], size=(3, m)), "random points"
    steps = min(sizes.steps, 10)
    first = [torch.as_tensor(a[0], dtype=torch.float32) for a in (x, y)]
    slow = timed(baseline.net_steps(width, *first, 0.2), sizes, steps)
    given: dict[str, Any] = {"model": MLP(width=width, init_scale=1e-2), "attack": PGD(), "domain": (0.0, 1.0)}
    given |= {"dtype": torch.float32, "steps": 10**9, "seeds": [0, 0, 0, 1, 1, 1, 2, 2, 2]}
    optimizers = [Steepest(Constant(1e-5)), Steepest(Constant(1e-5), math.inf, True)]
    index = np.repeat(np.arange(3), 3)
    packs = [make_runs(x[index], y[index], [0.0, 0.2, 0.3] * 3, optimizer=o, **given) for o in optimizers]
    torch.set_num_threads(1)

    def both(n: int) -> None:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda pack: pack.advance(n), packs))

    fast = baseline.seconds(both, steps, min(sizes.repeats, 3)) / 18
    right, out = torch.rand(width, width), torch.empty(m, width)

    def products(n: int) -> None:
        for _ in range(22 * n):
            torch.mm(first[0], right, out=out)

    least = timed(products, sizes, steps)
    found = f"{slow / fast:.1f}x; all its matrix products, as a mapped step takes them, would give {slow / least:.1f}x"
    yield f"MLP {width}-{width}-1, {what}, m = {m}, PGD-10, GD and SD x 3 eps x 3 seeds, float32, CPU", found, "3x"
    given |= {"optimizer": optimizers[0], "seeds": [0]}
    alone = [baseline.net_steps(width, *first, 0.2), make_runs(x[:1], y[:1], [0.2], **given).advance]
    usual_, one = baseline.in_turns(alone, steps, sizes.repeats)
    yield "GD of it alone, eps = 0.2, one thread", f"{one / usual_:.2f} of its {1e3 * usual_:,.0f} ms", "at most 1.2"


def components(sizes: Sizes) -> Iterator[Row]:
    """Every fully connected model, alone and in a pack, on one thread, against the plain loop: time of a run's step."""
    torch.set_num_threads(1)
    classes = Digits(classes=tuple(range(10)), m=200).draw(0)
    pair = Digits(classes=(2, 7), m=200).draw(0)
    sphere, wide = Sphere(d=200, m=200, m_test=1).draw(0), 1000 if sizes.commands else 20
    batch, large = Sphere(d=784, m=64, m_test=1).draw(0), 1024 if sizes.commands else 20
    cross, logistic, exponential = Objective("cross_entropy", "mean"), Objective("logistic", "mean"), Objective()
    gd, adam = Steepest(Constant(1e-12)), Adam(Constant(1e-12))  # nothing ends, nothing diverges
    calm, fgsm, box = NoAttack(), FGM(math.inf), (0.0, 1.0)
    of_ten: Any = lambda f, x: nn.functional.cross_entropy(f(x), torch.as_tensor(classes.y_train).long())  # noqa: E731

    def binary(y: Any, of: Callable[[Tensor], Tensor], exact: float = 0.0) -> Any:
        def loss(f: Any, x: Tensor) -> Tensor:
            margin = torch.as_tensor(y).to(x) * f(x).squeeze(-1)
            if exact:
                weight = f[2].weight @ f[1].weight @ f[0].weight
                margin = margin - exact * weight.norm()
            return of(-margin)

        return loss

    soft, hard = lambda s: nn.functional.softplus(s).mean(), lambda s: s.exp().sum()
    sgd: Any = lambda f: torch.optim.SGD(f.parameters(), lr=1e-12)  # noqa: E731
    theirs_adam: Any = lambda f: torch.optim.Adam(f.parameters(), lr=1e-12)  # noqa: E731
    deep, net, three = DeepLinear(depth=3, width=64), MLP(width=64), MLP(depth=3, width=64)
    rows: list[tuple[str, Any, Any, Any, Any, Any, int, Any, Any, Any, float]] = [
        ("linear, 10 classes, GD", classes, Linear(), gd, calm, cross, 10, [64, 10], of_ten, sgd, 0.0),
        ("linear, 10 classes, GD, FGSM", classes, Linear(), gd, fgsm, cross, 10, [64, 10], of_ten, sgd, 0.1),
        ("deep linear, L = 3, GD, exact l_2", pair, deep, gd, Exact(2.0), logistic, 1, [64, 64, 64, 1],
         binary(pair.y_train, soft, 0.1), sgd, 0.0),
        ("MLP 64-64-1, Adam", pair, net, adam, calm, logistic, 1, [64, 64, 1], binary(pair.y_train, soft),
         theirs_adam, 0.0),
        ("MLP 64-64-64-1, GD, FGSM", pair, three, gd, fgsm, logistic, 1, [64, 64, 64, 1],
         binary(pair.y_train, soft), sgd, 0.1),
        (f"MLP 200-{wide}-1 with hidden biases, m = 200, GD", sphere, MLP(width=wide, bias="first"), gd, calm,
         exponential, 1, [200, wide, 1], binary(sphere.y_train, hard), sgd, 0.0),
        (f"MLP 784-{large}-64-1 on a batch of 64 points, GD, FGSM", batch, MLP(widths=(large, 64)), gd, fgsm,
         logistic, 1, [784, large, 64, 1], binary(batch.y_train, soft), sgd, 0.1),
    ]  # fmt: skip
    for name, drawn, model, optimizer, attack, objective, outputs, shape, loss, theirs, eps in rows:
        dtype = torch.float64 if model.__class__ is MLP and model.bias == "first" else torch.float32
        x = torch.as_tensor(drawn.x_train, dtype=dtype)
        linear_ = isinstance(model, DeepLinear | Linear)
        plain = baseline.stack(shape, getattr(model, "bias", "none") == "first", None if linear_ else nn.ReLU).to(dtype)
        what = [baseline.loop(plain, theirs(plain), x, x, loss, eps)]
        for count in (1, 16):
            given: dict[str, Any] = {"model": model, "optimizer": optimizer, "attack": attack, "objective": objective}
            given |= {"outputs": outputs, "dtype": dtype, "steps": 10**9, "domain": box, "seeds": list(range(count))}
            what.append(make_runs(x, drawn.y_train, [eps or 0.1] * count, **given).advance)
        what.append(_products(shape, len(x), dtype, attacked=eps > 0))
        usual_, one, many, products = baseline.in_turns(what, sizes.steps, 2 * sizes.repeats)
        alone, pack, bound = one / usual_, 16 * usual_ / many, 16 * usual_ / products
        in_pack = f"in a pack of 16 {pack:.1f}x faster"
        in_pack += "" if attack.closed_form else f", its products alone {bound:.1f}x"
        said = f"alone {alone:.2f} of its {1e6 * usual_:,.0f} us; {in_pack}"
        yield f"{name}, {str(dtype)[6:]}, one thread", said, "alone at most 1.2; in a pack 4x"


def without(name: str) -> AbstractContextManager[object]:
    """Where nothing that the compiled kernel of that name does is compiled; may be entered again and again."""
    loaded = compiled._loaded
    own = {f: cache(getattr(compiled, f).__wrapped__) for f in ("for_scores", "for_attacks", "for_stack")}
    return patch.multiple(compiled, _loaded=lambda k, dtype: None if k == name else loaded(k, dtype), **own)


def kernels(sizes: Sizes) -> Iterator[Row]:
    """Each compiled kernel where it is used most: what takes its place, in time, on one thread."""
    torch.set_num_threads(1)
    m, gd = sizes.ms[-1] if sizes.ms[-1] < 100 else 256, Steepest(Constant(1e-12))
    size, width = sizes.net
    pair, ten = Digits(classes=(2, 7), m=200).draw(0), Digits(classes=tuple(range(10)), m=200).draw(0)
    wide, three = Sphere(d=width, m=size, m_test=1).draw(0), MLP(depth=3, width=64)
    cross, logistic = Objective("cross_entropy", "mean"), Objective("logistic", "mean")

    def runs(drawn: Any, count: int, model: Any, attack: Any, objective: Objective, optimizer: Any = gd) -> Runs:
        x = torch.as_tensor(drawn.x_train, dtype=torch.float32)
        given: dict[str, Any] = {"model": model, "attack": attack, "objective": objective, "optimizer": optimizer}
        given |= {"outputs": 10 if objective is cross else 1, "dtype": torch.float32, "steps": 10**9}
        given |= {"domain": (0.0, 1.0), "seeds": list(range(count))}
        return make_runs(x, drawn.y_train, [0.1] * count, **given)

    fgsm, pgd, adam = FGM(math.inf), PGD(), Adam(Constant(1e-12))
    cases: list[tuple[str, str, Callable[[], Runs]]] = [
        ("Dense", f"GD, d = {D}, m = {m}, 64 runs on one data set", lambda: packed(m, 1, 64, gd, torch.float32)[0]),
        ("Sparse", f"CD, 12-sparse points, m = {m}, 64 runs",
         lambda: packed(m, 1, 64, Steepest(Constant(1e-12), 1.0), torch.float64, 12)[0]),
        ("Net", f"MLP {width}-{width}-1, m = {size}, PGD-10, alone",
         lambda: runs(wide, 1, MLP(width=width), pgd, Objective())),
        ("Stacks", "MLP 64-64-64-1, m = 200, FGSM, alone", lambda: runs(pair, 1, three, fgsm, logistic)),
        ("Stacks", "the same, 16 runs", lambda: runs(pair, 16, three, fgsm, logistic)),
        ("Scores", "linear, 10 classes, m = 200, 16 runs", lambda: runs(ten, 16, Linear(), NoAttack(), cross)),
        ("Attacks", "linear, 10 classes, m = 200, PGD-10, 16 runs", lambda: runs(ten, 16, Linear(), pgd, cross)),
        ("Moments", "MLP 64-64-1, m = 200, Adam, 16 runs",
         lambda: runs(pair, 16, MLP(width=64), NoAttack(), logistic, adam)),
    ]  # fmt: skip
    for name, what, make in cases:
        with_it, bare_ = make(), without(name)
        with bare_:
            other = make()

        def off(n: int, bare_: Any = bare_, other: Runs = other) -> None:
            with bare_:
                other.advance(n)

        mine, instead = baseline.in_turns([with_it.advance, off], min(sizes.steps, 20), sizes.repeats)
        yield f"{name}: {what}; without it / with it, one thread", f"{instead / mine:.1f}", "above 1"


def _products(shape: list[int], n: int, dtype: torch.dtype, attacked: bool) -> Callable[[int], None]:
    """The matrix products of steps of a pack of 16, whoever computes them."""
    many = 16
    xs = [torch.randn(many, n, width, dtype=dtype) for width in shape]
    weights = [torch.randn(many, b, a, dtype=dtype) for a, b in itertools.pairwise(shape)]

    def passes(steps: int) -> None:
        for _ in range(steps):
            for k, w in enumerate(weights):
                for _ in range(1 + attacked):  # a pass forward, with an attack another one
                    xs[k] @ w.mT
                for _ in range((k > 0) + attacked):  # back to the parameters, to the inputs
                    xs[k + 1] @ w
                xs[k + 1].mT @ xs[k]

    return passes


def factor(sizes: Sizes) -> Iterator[Row]:
    """The direction of spectral descent for a dense layer's gradient over few samples."""
    m, width = sizes.net
    matrix = torch.randn(width, m) @ torch.randn(m, width)

    def ours(n: int) -> None:
        for _ in range(n):
            polar(matrix)

    def whole(n: int) -> None:
        for _ in range(n):
            torch.linalg.svd(matrix, full_matrices=False)

    slow, fast = (timed(run, sizes, min(sizes.steps, 10)) for run in (whole, ours))
    yield f"Polar factor of a gradient, {width} x {width}, m = {m}, float32, over an SVD", f"{slow / fast:.1f}x", "5x"


def sweep(sizes: Sizes, folder: Path, *overrides: str, files: int | None = None) -> float:
    """Seconds of a whole command."""
    if not sizes.commands:
        from robust_erm.sweeps.lines import sweep

        sweep([*overrides, f"output_dir={folder}", "trainer.progress=false", "hydra.launcher.workers=0"])
        return 1.0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    start = time.perf_counter()
    line = [
        sys.executable,
        "-m",
        "robust_erm.train",
        "-m",
        *overrides,
        f"output_dir={folder}",
        "trainer.progress=false",
    ]
    shell = [] if files is None else ["bash", "-c", f'ulimit -n {files}; exec "$@"', "-"]
    subprocess.run([*shell, *line], env=environment, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def end_to_end(sizes: Sizes) -> Iterator[Row]:
    """3 draws x 3 eps x GD, CD and diagonal net, to the paper's stopping rule."""
    from robust_erm.reports.tables import load

    m = sizes.ms[len(sizes.ms) // 2]
    common = [
        "data=gaussian",
        f"data.m={m}",
        "attack=exact",
        "eps=0,0.25,0.5",
        "eps_unit=margin",
        "seed=0,1,2",
        f"stop.steps={sizes.stop}",
        "dtype=float32",
    ]
    with tempfile.TemporaryDirectory() as name:
        linear_ = sweep(
            sizes, Path(name), *common, "model=linear", "optimizer=gd,cd", "optimizer/schedule=bounded_loss"
        )
        diagonal = sweep(
            sizes, Path(name), *common, "model=diagonal", "optimizer/schedule=constant", "optimizer.schedule.lr=2e-3"
        )
        table = load(name)
    drawn = Gaussian(d=D, m=m).draw(0)
    x, y = (torch.as_tensor(a, dtype=torch.float32) for a in (drawn.x_train, drawn.y_train))
    model = baseline.Diagonal(D)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    each = {"gd": usual("GD", m, drawn, sizes), "cd": usual("CD", m, drawn, sizes)}
    slow_diagonal = timed(baseline.linear_steps(model, optimizer, x, y, 0.01), sizes)
    steps = table.groupby(["model", "optimizer"])["step"].sum()
    slow = sum(n * (slow_diagonal if k[0] == "diagonal" else each[k[1]]) for k, n in steps.items())
    took = linear_ + diagonal
    counts = ", ".join(f"{'/'.join(k)} {n:,}" for k, n in steps.items())
    found = f"{slow / took:.0f}x ({took:.0f} s, W&B and imports included; the usual loop {slow:.0f} s: {counts} steps)"
    yield f"3 draws x 3 eps x GD, CD, diagonal net, d = {D}, m = {m}, to L <= 1e-3 or 2e5 steps, float32", found, "12x"


def heatmap(sizes: Sizes) -> Iterator[Row]:
    """A sample of tsilivis2024 Fig. 2 right: k_W, k_X in {12, 512}, 3 eps, one draw, to the paper's stopping rule."""
    from robust_erm.reports.tables import load

    ms = sizes.ms[:2]
    line = ["experiment=tsilivis2024/linear", "measure_per_decade=1", "logger=none", "eps=0,0.25,0.5", "seed=0"]
    line += ["optimizer=gd,cd", "optimizer/schedule=bounded_loss", f"stop.steps={sizes.stop}", "report=false"]
    line += ["data.k_w=12,512", "data.k_x=12,512", f"data.m={','.join(map(str, ms))}", f"data.m_test={D * D}"]
    with tempfile.TemporaryDirectory() as name:
        took = sweep(sizes, Path(name), *line)
        table = load(name)
    steps = table.groupby(["optimizer", "data.m"])["step"].sum()
    each = {(o, m): usual(o.upper(), m, Gaussian(d=D, m=m).draw(0), sizes) for o in ("gd", "cd") for m in ms}
    slow = sum(n * each[key] for key, n in steps.items())
    counts = ", ".join(f"{o} {n:,}" for o, n in steps.groupby("optimizer").sum().items())
    found = (
        f"{slow / took:.0f}x ({took:.0f} s, margins and imports included; the usual loop {slow:.0f} s: {counts} steps)"
    )
    name = (
        f"Fig. 2 right, {len(table)} of its 1,440 runs (k in {{12, 512}}, m = {' and '.join(map(str, ms))}, one draw)"
    )
    yield f"{name}, float64; the usual loop float32", found, ""


def overhead(sizes: Sizes) -> Iterator[Row]:
    """What Lightning, measurements, files and W&B add to the bare packed steps."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from robust_erm.store.config import resolve
    from robust_erm.store.source import conf_dir
    from robust_erm.sweeps.lines import prepare
    from robust_erm.training.pack import train_pack
    from robust_erm.training.problem import build

    prepare()
    GlobalHydra.instance().clear()  # a sweep in this process leaves its own
    with tempfile.TemporaryDirectory() as name, initialize_config_dir(str(conf_dir()), version_base="1.3"):
        common = [
            "data=gaussian",
            "data.m=256",
            "model=linear",
            "attack=exact",
            "optimizer/schedule=constant",
            "optimizer.schedule.lr=1e-7",
        ]
        fixed = [
            *common,
            f"stop.steps={sizes.long}",
            "stop.loss=null",
            f"output_dir={name}",
            "trainer.threads=1",
            "logger.mode=offline",
        ]
        runs = [resolve(compose("train", [*fixed, f"eps={eps}"])) for eps in np.linspace(0, 0.05, sizes.around)]
        pack, _, _ = build(runs, torch.device("cpu"))
        pack.advance(10)
        start = time.perf_counter()
        while len(pack.running):
            pack.advance(5000)
        alone = time.perf_counter() - start
        start = time.perf_counter()
        train_pack(runs)
        whole = time.perf_counter() - start
    found = f"{whole / alone - 1:.1%} ({alone:.1f} s bare, {whole:.1f} s with all)"
    yield (
        f"Lightning, measurements, files and W&B around 64 runs of {sizes.long:,} steps, d = {D}, m = 256",
        found,
        "5 %",
    )


def points(sizes: Sizes) -> Iterator[Row]:
    """Thousands of tiny runs: time a point over the computation, and memory."""
    line = [
        "data=gaussian",
        "data.d=64",
        "data.m=32",
        "data.m_test=100",
        "model=linear",
        "attack=exact",
        "stop.steps=2",
        "stop.loss=null",
        "eps=0.01",
        "logger=none",
    ]
    took, again, peaks = [], [], []
    for n in sizes.points:
        with tempfile.TemporaryDirectory() as name:
            for times in (took, again):
                times.append(sweep(sizes, Path(name), *line, f"seed=range({n})"))
        peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    few, n = sizes.points
    start = time.perf_counter()
    drawn = [Gaussian(d=64, m=32, k_w=64, k_x=64, m_test=100).draw(seed) for seed in range(n)]
    x, y = np.stack([s.x_train for s in drawn]), np.stack([s.y_train for s in drawn])
    make_runs(x, y, [0.01] * n, steps=2, seeds=list(range(n))).advance(2)
    alone = (time.perf_counter() - start) / n
    each = (took[1] - took[0]) / (n - few)
    found = f"{1e3 * (each - alone):.1f} ms, {1e3 * took[1] / n:.1f} ms with all starts ({took[1]:.0f} s); "
    found += f"finished ones again {1e3 * (again[1] - again[0]) / (n - few):.1f} ms; "
    found += f"largest process {peaks[0]:.0f} MiB at {few}, {peaks[1]:.0f} MiB at {n:,} points"
    yield f"{n:,} points of two steps, time a further point over the computation", found, "10 ms, flat"


def mirror(sizes: Sizes) -> Iterator[Row]:
    """W&B, offline, for a thousand tiny runs, under the usual limit of open files."""
    line = ["data=gaussian", "data.d=16", "data.m=8", "data.m_test=10", "model=linear", "attack=exact"]
    line += ["stop.steps=2", "stop.loss=null", "eps=0.01", f"seed=range({sizes.mirrored})"]
    took = {}
    for logger in ("none", "wandb"):
        with tempfile.TemporaryDirectory() as name:
            took[logger] = sweep(sizes, Path(name), *line, f"logger={logger}", files=1024)
            found = len(list(Path(name).glob("*/wandb/offline-run-*/*.wandb")))
            assert found == (sizes.mirrored if logger == "wandb" else 0)
    each = 1e3 * (took["wandb"] - took["none"]) / sizes.mirrored
    found_ = f"{each:.1f} ms ({took['none']:.0f} s without, {took['wandb']:.0f} s with; two workers)"
    yield f"W&B offline, {sizes.mirrored:,} runs of 3 rows, 1,024 open files allowed: time a run", found_, "15 ms"


ALL: dict[str, Callable[[Sizes], Iterator[Row]]] = {
    f.__name__: f
    for f in (linear, sparse, net, components, kernels, factor, end_to_end, heatmap, overhead, points, mirror)
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(ALL), default=list(ALL))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    head = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    lines = [f"| {head}: workload | measured | to reach |", "|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name in options.only:
        for row in ALL[name](Sizes(options.quick)):
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
