"""Which steps an optimizer should take by default: what each schedule comes to, in steps and not in time. A table.

python tests/benchmarks/schedules.py [--only NAME ...] [--quick] [--out FILE]

Every optimizer with the schedule of its yaml, as today, and with steps that follow the flow, on every kind of default
experiment. A cell: the least robust margin per the optimizer's own norm after so many steps, in percent of the best of
these schedules; - where not all points are separated, * where they were and at the end are not. The mean of two draws.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hydra import compose, initialize_config_dir

from robust_erm.store.config import Run, resolve
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.lines import prepare
from robust_erm.training.measure import measure
from robust_erm.training.problem import build

GAUSSIAN = "data=gaussian data.d=20 data.m=15 data.k_w=20 data.k_x=20 data.m_test=10 eps_unit=margin eps=0.5"
EXPERIMENTS = {
    "linear": f"{GAUSSIAN} model=linear attack=exact",
    "deep linear, L = 3": f"{GAUSSIAN} model=deep_linear model.depth=3 model.width=20 attack=exact p=2",
    "diagonal": f"{GAUSSIAN} model=diagonal attack=exact",
    "MLP, FGM": f"{GAUSSIAN} model=mlp model.width=20 attack=fgm p=2",
    "digits, MLP, PGD": "",
    "digits, 10 classes": "data.classes=[0,1,2,3,4,5,6,7,8,9] model=linear objective=cross_entropy eps=0.05 data.m=100",
}
OPTIMIZERS = {  # the step on log L that was the default of gd; then those of the yamls
    "gd": ("log_constant", "stable"),
    "sd": ("short",),
    "cd": ("bounded_loss",),
    "steepest": ("constant",),
    "spectral": ("constant",),
    "momentum": ("constant",),
    "adam": ("constant",),
    "muon": ("power",),
    "signum": ("power",),
    "nmd": ("power",),
    "lion": ("power",),
    "shampoo": ("power",),
    "descent": ("power",),
}
SEEDS = (0, 1)


def resolved(line: str) -> list[Run]:
    """A run for each seed."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        fixed = ["logger=none", "trainer.device=cpu", "stop.loss=null"]
        return [resolve(compose("train", [*fixed, *line.split(), f"seed={seed}"])) for seed in SEEDS]


def shares(line: str, steps: int) -> tuple[float, bool]:
    """The mean own-norm margin that two runs come to, and whether one has lost what it had separated."""
    runs = resolved(f"{line} stop.steps={steps}")
    pack, evaluation, _ = build(runs, torch.device("cpu"))
    rows, separated = torch.arange(len(runs)), torch.zeros(len(runs), dtype=torch.bool)
    while len(pack.running):
        pack.advance(max(1, steps // 20))
        found = measure(pack, evaluation, rows)
        now = torch.tensor([row["margin_robust"] for row in found]) > 0
        separated |= now
    own = [row[f"margin_robust_{runs[0].optimizer.norm.name}"] for row in found]
    return sum(own) / len(own), bool((separated & ~now).any())


def cell(line: str, schedules: tuple[str, ...], steps: int) -> str:
    """What each schedule comes to, in percent of the best."""
    found = [shares(f"{line} optimizer/schedule={name}", steps) for name in schedules]
    best = max(value for value, _ in found)
    return " / ".join((f"{100 * value / best:.0f}" if value > 0 else "-") + "\\*" * lost for value, lost in found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it runs")
    parser.add_argument("--out", type=Path, help="write the table there too")
    args = parser.parse_args()
    prepare()
    torch.set_num_threads(1)
    counts = (20,) if args.quick else (500, 5000)
    heads = ["optimizer", "steps", *EXPERIMENTS]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for optimizer, steps in itertools.product(args.only, counts):
        names = (*OPTIMIZERS[optimizer], "relative")
        cells = [cell(f"{line} optimizer={optimizer}", names, steps) for line in EXPERIMENTS.values()]
        lines.append(f"| {optimizer}: {' / '.join(names)} | {steps:,} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
