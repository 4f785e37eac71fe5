"""Hundreds of bad inputs over all commands: no traceback, no hang, a few lines that say what would be right.

Values of the wrong type, range and kind for options; lines that Hydra's grammar refuses; and files on disk, each
damaged in every way.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Done, run
from results import LINE, QUIET, pretended_slurm
from results import copied as copied
from results import results as results

LINES = 6  # of refusal, at most


def fault(done: Done, refused: bool | None = None) -> str:
    """What is wrong with how a command ended; empty where it ended by itself, in a few lines without a traceback."""
    said = [line for line in done.err.splitlines() if line.strip()]
    lines = [line for line in said if line.startswith("robust_erm: ") and "failed: " not in line]
    if done.status is None:
        return "hung"
    if done.crashed:
        return "a traceback"
    if len(said if done.status == 2 else lines) > LINES or any(len(line) > 600 for line in lines):
        return "too many words"
    if refused is not None and refused != bool(done.status):
        return "taken" if refused else "refused"
    return "no word" if done.status and not lines and "failed: " not in done.out + done.err else ""


class Tried:
    """Cases, and what was wrong with them."""

    def __init__(self) -> None:
        self.count, self.faults = 0, [""]

    def add(self, what: str, done: Done, found: str) -> None:
        self.count += 1
        if found:
            self.faults.append(f"---- {found}: {what}; status {done.status}\n{done.out[-500:]}{done.err[-1500:]}")

    def require_none(self, least: int) -> None:
        assert self.count >= least, f"only {self.count} cases"
        assert len(self.faults) == 1, f"{len(self.faults) - 1} of {self.count} cases" + "\n".join(self.faults)


# ---- options --------------------------------------------------------------------------------------

# keys of train, and a line in which they mean something
KEYS = {
    "": ["eps", "eval_eps", "p", "eps_unit", "seed", "dtype", "measure_per_decade", "returns", "stale", "fresh"],
    "stop.": ["steps", "loss"],
    "trainer.": ["threads", "device", "inner_steps", "checkpoint_seconds", "progress"],
    "data.": ["d", "m", "m_test", "k_w", "k_x", "ties", "sigma"],
    "hydra.launcher.": ["workers", "pack_size"],
    "model.": ["init_scale"],
    "attack.": ["p"],
    "optimizer.": ["r", "normalized"],
    "optimizer.schedule.": ["lr"],
    "objective.": ["loss", "reduction"],
}
VALUES = [
    *("-1", "0", "1.5", "nan", "inf", "-inf", "1e400", "1000000000000", "99999999999999999999999", "''", "null"),
    *("true", "abc", "[1,2]", "{a:1}", "[]", "'0,1'", "1e-400", "0x10", "\\udcff"),
]
# what net, images and iterative attacks have beside these
OTHER = [
    "model=mlp model.depth={} data=digits data.m=10 attack=pgd",
    "model=mlp model.width={} data=digits data.m=10 attack=pgd",
    "model=mlp model.bias={} data=digits data.m=10 attack=pgd",
    "model=mlp model.widths={} data=digits data.m=10 attack=pgd",
    "model=mlp model.activation={} data=digits data.m=10 attack=pgd",
    "model=mlp model.activation=leaky model.slope={} data=digits data.m=10 attack=pgd",
    "model=mlp model.activation=power model.power={} data=digits data.m=10 attack=pgd",
    "model=mlp model.trained={} data=digits data.m=10 attack=pgd",
    "model=mlp model.init_law={} data=digits data.m=10 attack=pgd",
    "model=mlp model.layer_scales={} data=digits data.m=10 attack=pgd",
    "model=deeplinear model.depth={}",
    "data=digits data.classes={} data.m=10",
    "data=digits data.m={}",
    "data=mnist data.folder={}",
    "data=clusters data.k={}",
    "data=clusters data.positive={}",
    "data=clusters data.noise={}",
    "data=clusters data.correlation={}",
    "data=clusters data.norm_spread={}",
    "data=clusters data.balanced={}",
    "data=clusters data.labels={}",
    "attack=pgd attack.steps={} model=mlp model.width=4 data=digits data.m=10",
    "attack=pgd attack.relative_step={} model=mlp model.width=4 data=digits data.m=10",
    "attack=pgd attack.random_start=true attack.restarts={} model=mlp model.width=4 data=digits data.m=10",
    "optimizer=adam optimizer.beta1={}",
    "optimizer=gd optimizer/schedule=growing optimizer.schedule.every={}",
    "optimizer=gd optimizer/schedule={}",
    "data={}",
    "model={}",
    "attack={}",
    "experiment={}",
    "output_dir={}/x",
    "run_dir={}/x",
]


def chosen(seed: int, cases: list[str], count: int) -> list[str]:
    return random.Random(seed).sample(cases, min(count, len(cases)))


@pytest.mark.turns
@pytest.mark.parametrize("part", range(4))
def test_options_of_train(tmp_path: Path, part: int) -> None:
    """A value of each kind for every option: trained, or refused in a line before anything is."""
    ours = [f"{group}{key}={value}" for group, keys in KEYS.items() for key in keys for value in VALUES]
    theirs = [line.replace("{}", value) for line, value in itertools.product(OTHER, VALUES)]
    tried = Tried()
    for k, line in enumerate(chosen(part, ours, 30) + chosen(part, theirs, 25)):
        place = tmp_path / str(k)
        place.mkdir()
        done = run("train", *LINE, "report=false", *QUIET, *line.split(" "), cwd=place)
        left = [p for p in place.rglob("*") if p.is_file()] if done.status == 2 else []
        tried.add(line, done, fault(done) or (f"refused, and left {left}" if left else ""))
    tried.require_none(55)


SYNTAX = [
    *("seed=0,1", "seed=range(0)", "seed=range(1,5,0)", "seed=glob(*)", "seed=interval(0,1)", "seed=choice(", "seed="),
    *("seed", "=3", "-m", "--foo", "-x", "--cfg=foo", "--multirn", "++", "~data", "~seed", "+seed=1", "+a.b=1"),
    *("eps=[0.1", "eps={0.1", "eps=0.1)", "eps=$x", "eps=${", "eps=${oc.env:NOWHERE}", "a=b=c", "data.d=8 data.d=9"),
    *("data._target_=os.system", "data._target_=nowhere.Data", "data._target_=3", "data._target_=robust_erm"),
    *("optimizer=gd,sd eps=0.1,", "model=[linear,mlp]", "model=null", "data=/etc/passwd", "experiment=../x", "stop=3"),
    *("stop=null", "stop={steps:3}", "stop={stops:3}", "trainer=null", "logger=3", "hydra/launcher=none"),
    *("hydra/sweeper=none", "hydra.sweeper.max_batch_size=x", "hydra.launcher=null", "hydra.sweep.dir=/proc/x"),
    *("output_dir=/proc/x", "output_dir=/dev/null", "run_dir=/dev/null/x", "optimizer.schedule=constant"),
    *("eval_attacks=pgd", "+attack@eval_attacks.x=none_such", "+attack@eval_attacks.a.b=pgd", "+eval_attacks.x=3"),
    *("data.ties=\x1b[31m", "model=\n", "seed=٣", "eps=½", "data=gaussian,none_such", "seed=0,0"),
]


@pytest.mark.turns
@pytest.mark.parametrize("flag", ["", "-m"])
def test_lines_of_train(tmp_path: Path, flag: str) -> None:
    tried = Tried()
    for k, line in enumerate(SYNTAX):
        place = tmp_path / str(k)
        place.mkdir()
        done = run("train", *filter(None, [flag]), *LINE, "report=false", *QUIET, *line.split(" "), cwd=place)
        tried.add(f"{flag} {line}", done, fault(done) or ("an escape" if "\x1b" in done.out + done.err else ""))
    tried.require_none(60)


OTHERS = {
    "results": [
        *("nowhere", "outputs --where", "outputs --where a=b", "outputs --where seed", "outputs --where seed=9"),
        *("outputs --columns none_such", "outputs --csv", "outputs --csv /dev/null/x", "outputs --csv outputs"),
        *("outputs --compare seed --metric nothing", "outputs --compare none_such", "outputs --figure x.png"),
        *(
            "outputs --compare seed --figure x.bmp",
            "outputs --compare status",
            "outputs --compare seed --figure /proc/x.png",
        ),
        *("outputs --parquet /proc/x", "--foo", "outputs --csv " + "x" * 300, "outputs --where =", "''"),
    ],
    "page": [
        "nowhere",
        "outputs --out outputs",
        "outputs --out /proc/x/y",
        "outputs --where a=b",
        "--foo",
        "outputs x",
    ],
    "evaluate": [
        *(
            "nowhere",
            "outputs attack=autoattack",
            "outputs eps=-1",
            "outputs eps=x",
            "outputs eps=nan",
            "outputs eps=1e400",
        ),
        *("outputs points=0", "outputs points=-1", "outputs points=x", "outputs points=1e30", "outputs parts=none"),
        *(
            "outputs exact=-1",
            "outputs exact=nan",
            "outputs checks=x",
            "outputs fresh=3",
            "outputs stale=x",
            "outputs a=b",
        ),
        *(
            "outputs apgd.steps=0",
            "outputs apgd.steps=1e12",
            "outputs apgd.nothing=3",
            "outputs apgd=3",
            "outputs fab.p=3",
        ),
        *(
            "outputs device=gpu",
            "outputs device=cuda:99",
            "outputs square.queries=x",
            "outputs trust=",
            "--foo",
            "-x",
            "=",
        ),
        *("outputs/none outputs", "outputs attack=", "outputs attack=apgd,none", "outputs name=../x", ""),
    ],
    "gallery": ["nowhere", "outputs", "outputs --out /dev/null/x", "gallery --out bin/sbatch", "--foo"],
    "reproduce": [
        *(
            "",
            "nothing",
            "fig1",
            "tsilivis2024/fig1 scale=x",
            "tsilivis2024/none",
            "../x",
            "tsilivis2024/fig1 evaluate.x=3",
        ),
        *("tsilivis2024/lemma_c4 scale=smoke data.d=x", "tsilivis2024/lemma_c4 scale=smoke none=3", "--foo"),
        *(
            "tsilivis2024/fig3_left scale=smoke evaluate.eps=0.1",
            "tsilivis2024/lemma_c4 scale=smoke output_dir=/proc/x",
        ),
    ],
    "workspace": ["--foo", "a b c", "x"],
    "slurm": [
        *("", "nothing", "status nowhere", "status outputs/sweeps", "status bin/sbatch", "collect", "collect outputs"),
        *(
            "watch nowhere",
            "cancel nowhere",
            "resume nowhere",
            "resume nowhere memory=x",
            "resume",
            "--foo",
            "status --foo",
        ),
    ],
}


@pytest.mark.parametrize("command", OTHERS)
def test_lines_of_other_commands(copied: Callable[[], Path], command: str) -> None:
    root, tried = copied(), Tried()
    env = pretended_slurm(root / "bin")
    for line in OTHERS[command]:
        few = ["points=5"] if command == "evaluate" and "points" not in line else []
        done = run(command, *[word.strip("'") for word in line.split()], *few, cwd=root, env=env)
        tried.add(f"{command} {line}", done, fault(done))
    tried.require_none(len(OTHERS[command]))


# ---- files ----------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda p: p.write_bytes(b""),
    "cut off": lambda p: p.write_bytes(p.read_bytes()[: len(p.read_bytes()) // 2]),
    "binary": lambda p: p.write_bytes(bytes(range(256)) * 4),
    "null": lambda p: p.write_text("null"),
    "list": lambda p: p.write_text("[1, 2]"),
    "other": lambda p: p.write_text('{"a": {"b": [1]}}'),
    "number": lambda p: p.write_text("1" * 5000),
    "nested": lambda p: p.write_text("[" * 3000 + "]" * 3000),
    "anchors": lambda p: p.write_text("a: &a [x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n!!python/object/apply:os.system [x]"),
    "folder": lambda p: (p.unlink(), p.mkdir()),
    "gone": lambda p: p.unlink(),
    "loop": lambda p: (p.unlink(), p.symlink_to(p.name)),
    "pipe": lambda p: (p.unlink(), os.mkfifo(p)),
    "text": lambda p: p.write_text("what is this?\n"),
}
RUN_FILES = [
    "config.yaml",
    "summary.json",
    "metrics.parquet",
    "checkpoint.pt",
    "evaluations/*.json",
    "evaluations/*.npz",
]
OPENERS = {
    "results": ["outputs"],
    "page": ["outputs"],
    "evaluate": ["outputs", "attack=apgd", "apgd.steps=5", "points=10"],
}


def broken(root: Path, pattern: str, damage: str) -> Path:
    """One file of the tree, damaged."""
    path = sorted(root.glob(pattern))[0]
    DAMAGES[damage](path)
    return path


@pytest.mark.turns
@pytest.mark.parametrize("file", RUN_FILES)
def test_damaged_runs_beside_a_whole_one(copied: Callable[[], Path], file: str) -> None:
    """A run for each damage: each command goes on with the others, and what it refuses it names."""
    tried, root = Tried(), copied()
    (whole,), (good,) = root.glob("outputs/*-s0-*"), root.glob("outputs/*-s1-*")
    for damage in DAMAGES:
        shutil.copytree(whole, root / "outputs" / damage)
        broken(root / "outputs" / damage, file, damage)
    for command, line in OPENERS.items():
        if command == "evaluate":
            for path in [*good.glob("evaluations/*"), *whole.glob("evaluations/*")]:
                path.unlink()
        done = run(command, *line, cwd=root)
        found = fault(done)
        if command == "results" and not (good.name in done.out and whole.name in done.out):
            found = found or "a whole run is missing"
        if command == "evaluate" and not all(list(run.glob("evaluations/apgd*.json")) for run in (good, whole)):
            found = found or "a whole run was not evaluated"
        tried.add(f"{command}, {file}", done, found)
    tried.require_none(len(OPENERS))


@pytest.mark.turns
@pytest.mark.parametrize("file", RUN_FILES)
def test_damaged_runs_are_named(copied: Callable[[], Path], file: str) -> None:
    """A line is typed again after one of its two runs was damaged: it is trained again, or named; the other stays."""
    tried, root = Tried(), copied()
    (folder,), (good,) = root.glob("outputs/*-s0-*"), root.glob("outputs/*-s1-*")
    before = {path: path.read_bytes() for path in good.rglob("*") if path.is_file() and path.suffix != ".log"}
    for damage in DAMAGES:
        shutil.move(folder, root / "kept")
        shutil.copytree(root / "kept", folder)
        broken(folder, file, damage)
        done = run("train", "-m", "seed=0,1", *LINE, *QUIET, "report=false", cwd=root)
        found = fault(done) or ("not named" if done.status and folder.name not in done.out + done.err else "")
        if any(not path.is_file() or path.read_bytes() != data for path, data in before.items()):
            found = found or "the other run has changed"
        tried.add(f"train, {file} {damage}", done, found)
        shutil.rmtree(folder)
        shutil.move(root / "kept", folder)
    tried.require_none(len(DAMAGES))


SWEEP_FILES = ["sweep.json", "1/submission.json", "1/task-0.json"]


@pytest.mark.turns
@pytest.mark.parametrize("file", SWEEP_FILES)
def test_damaged_files_of_a_submission(copied: Callable[[], Path], file: str) -> None:
    tried = Tried()
    for damage, command in itertools.product(DAMAGES, ("status", "collect", "resume", "cancel", "watch")):
        root = copied()
        env = pretended_slurm(root / "bin")
        (folder,) = root.glob("outputs/sweeps/*/slurm")
        broken(folder, file, damage)
        sweep = str(folder.parent.relative_to(root))
        done = run("slurm", command, sweep, *(["--yes"] if command == "resume" else []), cwd=root, env=env)
        tried.add(f"slurm {command}, {file} {damage}", done, fault(done))
        shutil.rmtree(root)
    tried.require_none(5 * len(DAMAGES))


def test_damaged_files_of_a_gallery(copied: Callable[[], Path]) -> None:
    tried = Tried()
    for damage, file in itertools.product(DAMAGES, ("claims.json", "lemma_c4.png")):
        root = copied()
        path = broken(root, f"gallery/reproduced/*/*/{file}", damage)
        done = run("gallery", str(path.parent.parent), "--scale", "smoke", "--out", "pages", cwd=root)
        named = file in done.err or (file == "claims.json" and "nothing has been reproduced there" in done.err)
        tried.add(f"gallery, {file} {damage}", done, fault(done, True) or ("" if named else "not named"))
        shutil.rmtree(root)
    tried.require_none(2 * len(DAMAGES))
