"""Sweeps: nothing is done twice, nothing is lost, and no run takes another along."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from shell import ROOT, command, folders, has_checkpoint, same_results, until

from robust_erm.reports.live import View, duration
from robust_erm.reports.tables import grouped, varying
from robust_erm.store import locks
from robust_erm.store.config import Run, resolve
from robust_erm.store.source import conf_dir
from robust_erm.store.typed import contained
from robust_erm.sweeps import plan
from robust_erm.sweeps.compose import composed as fast
from robust_erm.training import resources

SMALL = ["data=gaussian", "data.d=20", "data.m=10", "model=linear", "attack=exact", "logger=none", "eps=0.01"]
FAULTY = [*SMALL, "data._target_=faulty.Faulty", "stop.steps=30", "stop.loss=null"]
# about four seconds a run: long enough to be interrupted
LONG = ["stop.steps=300", "stop.loss=null", "logger=none", "trainer.checkpoint_seconds=0", "trainer.inner_steps=5"]
SWEEP = ["-m", "optimizer=gd,sd", "eps=0,0.1", "seed=0,1"]


def started(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    line = [sys.executable, "-m", "robust_erm.train", *arguments]
    cwd.mkdir(parents=True, exist_ok=True)
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Processes of the session that train."""
    lines = subprocess.run(["ps", "-o", "pid=,args=", "-s", str(process.pid)], capture_output=True, text=True).stdout
    rows = [line.split(None, 1) for line in lines.splitlines()]
    return [int(pid) for pid, args in rows if "forkserver" in args or "spawn_main" in args]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("uninterrupted")
    done = command(*SWEEP, *LONG, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd


# ---- launchers ------------------------------------------------------------------------------------


@pytest.mark.turns(70)
def test_one_by_one_gives_the_same_results(uninterrupted: Path, tmp_path: Path) -> None:
    done = command(*SWEEP, *LONG, "hydra/launcher=basic", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same_results(uninterrupted, tmp_path) == 8


@pytest.mark.turns(40)
def test_quiet_and_line_by_line_off_a_terminal(uninterrupted: Path, tmp_path: Path) -> None:
    done = command("-m", "eps=0,0.1", "stop.steps=2", "logger=none", cwd=tmp_path)
    *before, last = done.stderr.splitlines()  # a line every few seconds, so on a slow machine there are some before
    assert all(" packs " in f" {line}" for line in before), before
    assert "packs 1/1" in last or "packs 2/2" in last
    assert "runs 2/2: 0 converged, 2 max_steps, 0 diverged, 0 failed" in last
    again = command("-m", "eps=0,0.1", "stop.steps=3", "logger=none", "trainer.progress=false", cwd=tmp_path)
    assert again.stderr == ""


@pytest.mark.turns
def test_sweepers_get_numbers_in_order(tmp_path: Path) -> None:
    """What Optuna's and Ax's sweepers do: batches of overrides in, float(return_value) out, twice."""
    script = (
        """
import sys
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.lines import prepare, task
prepare()
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.types import HydraContext, RunMode
"""
        + f"""
initialize_config_dir(str(conf_dir()), version_base="1.3")
loader = GlobalHydra.instance().config_loader()
config = loader.load_configuration("train", {[*SMALL, "stop.steps=2", "returns=log_loss"]!r}, RunMode.MULTIRUN)
from hydra._internal.callbacks import Callbacks
context = HydraContext(config_loader=loader, callbacks=Callbacks())
launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
for first, seeds in ((0, [3, 1]), (2, [2, 3])):
    returns = launcher.launch([{SMALL!r} + ["stop.steps=2", "returns=log_loss", f"seed={{s}}"] for s in seeds], first)
    assert all(job.status == JobStatus.COMPLETED for job in returns)
    assert [job.overrides[-1] for job in returns] == [f"seed={{s}}" for s in seeds]
    print("values", *(repr(float(job.return_value)) for job in returns))
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values = [list(map(float, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("values")]
    assert values[0][0] == values[1][1]
    found = {json.loads(p.read_text())["log_loss"] for p in tmp_path.glob("outputs/*/summary.json")}
    assert {value for pair in values for value in pair} == found
    assert len(found) == 3


# ---- nothing is done twice ------------------------------------------------------------------------


@pytest.mark.turns(50)
def test_more_values_train_only_the_new_ones(tmp_path: Path) -> None:
    line = ["-m", *SMALL, "stop.steps=20"]
    assert command(*line, "seed=0,1", cwd=tmp_path).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/*/*.*") if "sweeps" not in str(p)}
    assert len(before) >= 8
    more = command(*line, "seed=0,1,2", cwd=tmp_path)
    assert "runs 1/1" in more.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    fresh = command(*line, "seed=0,1,2", "fresh=true", cwd=tmp_path)
    assert "runs 3/3" in fresh.stderr
    assert all(p.stat().st_mtime_ns > t for p, t in before.items() if p.name == "metrics.parquet")


def test_a_default_changes_the_runs_that_it_affects(tmp_path: Path) -> None:
    """Ids under conf/, and under a copy in which sign descent's default step is another."""
    changed = tmp_path / "conf"
    shutil.copytree(conf_dir(), changed)
    sd = changed / "optimizer" / "schedule" / "short.yaml"
    assert "lr: 2e-4" in sd.read_text()
    sd.write_text(sd.read_text().replace("lr: 2e-4", "lr: 3e-4"))
    ids = []
    for conf in (conf_dir(), changed):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            master = loader.load_configuration("train", [], RunMode.MULTIRUN)
            points = [[f"optimizer={o}", f"eps={eps}"] for o in ("gd", "sd", "adam") for eps in (0, 0.1)]
            ids.append([resolve(c).id for c in fast(loader, master, points)])  # type: ignore[arg-type]
    same = [a == b for a, b in zip(*ids, strict=True)]
    assert same == [True, True, False, False, True, True]


LINES = [
    ["optimizer=sd", "eps=0.3", "seed=4"],
    ["data=gaussian", "data.d=30", "data.m=7", "data.k_x=4"],
    ["data.classes=[0,1]", "stop.loss=null", "logger.tags=[a,b]", "p=inf"],
    ["p=2", "eps=1e-3", "stop.steps=1e3"],
    ["+attack@eval_attacks.strong=pgd_strong", "eval_attacks.strong.steps=7"],
    ["optimizer/schedule=growing", "optimizer.schedule.factor=1.5", "~seed", "+seed=3"],
    ["experiment=tsilivis2024/linear", "optimizer=cd", "data.k_w=4", "eps=0.5"],
    ["output_dir='with space'", "logger.group=x", "logger.project=${dtype}"],
    ["stop={steps:3,loss:null}", "model.width=5"],
    ["++model.width=9", "dtype=float32"],
]


def test_fast_composing_is_hydras() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", [], RunMode.MULTIRUN)
        for twice in (LINES, LINES[::-1]):
            for overrides, found in zip(twice, fast(loader, master, twice), strict=True):
                config = loader.load_sweep_config(master, overrides)
                OmegaConf.set_struct(config, False)
                del config["hydra"]
                assert found == contained(config), overrides
    GlobalHydra.instance().clear()


# ---- nothing is lost ------------------------------------------------------------------------------


@pytest.mark.turns(80)
def test_ctrl_c_then_the_same_line(uninterrupted: Path, tmp_path: Path) -> None:
    process = started(*SWEEP, *LONG, cwd=tmp_path)
    until(lambda: has_checkpoint(tmp_path))
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "of 8 runs have ended; what has been reached is kept, and the same line goes on from there" in said
    assert len(list(tmp_path.glob("outputs/*/summary.json"))) < 8
    assert not list(tmp_path.glob("outputs/*/.lock*")), "locks are given back"
    assert command(*SWEEP, *LONG, cwd=tmp_path).returncode == 0
    assert same_results(uninterrupted, tmp_path) == 8


@pytest.mark.turns(70)
def test_everything_killed_then_the_same_line(uninterrupted: Path, tmp_path: Path) -> None:
    """kill -9 of the whole session; in the next sweep other packs are formed, and bits stay."""
    process = started(*SWEEP, *LONG, cwd=tmp_path)
    until(lambda: has_checkpoint(tmp_path))
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list(tmp_path.glob("outputs/*/summary.json"))) < 8
    line = [*SWEEP[:-1], "seed=1", *LONG, "hydra.launcher.pack_size=1"]
    assert command(*line, cwd=tmp_path).returncode == 0
    assert command(*SWEEP, *LONG, cwd=tmp_path).returncode == 0
    assert same_results(uninterrupted, tmp_path) == 8
    assert not list(tmp_path.glob("outputs/*/.*.tmp"))


@pytest.mark.turns(40)
def test_the_controller_killed_ends_its_workers(uninterrupted: Path, tmp_path: Path) -> None:
    process = started(*SWEEP, *LONG, cwd=tmp_path)
    until(lambda: has_checkpoint(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not workers_of(process), 30)
    assert not list(tmp_path.glob("outputs/*/.lock*"))
    assert command(*SWEEP, *LONG, cwd=tmp_path).returncode == 0
    assert same_results(uninterrupted, tmp_path) == 8


@pytest.mark.turns(40)
def test_a_killed_worker_is_replaced(uninterrupted: Path, tmp_path: Path) -> None:
    process = started(*SWEEP, *LONG, cwd=tmp_path)
    until(lambda: has_checkpoint(tmp_path))
    os.kill(workers_of(process)[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "the worker died (SIGKILL)" in said
    assert "they go on from their checkpoints" in " ".join(said.split())
    assert same_results(uninterrupted, tmp_path) == 8


def test_each_fault_ends_its_own_run_only(tmp_path: Path) -> None:
    faults = ["none", "raise", "kill", "memory"]
    line = ["-m", *FAULTY, f"+data.fault={','.join(faults)}", "optimizer.schedule.lr=1e-3,1e305"]
    process = started(*line, "optimizer/schedule=constant", cwd=tmp_path)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    status: dict[str, list[str]] = {}
    for path in tmp_path.glob("outputs/*/summary.json"):
        config = (path.parent / "config.yaml").read_text()
        fault = next(fault for fault in faults if f"fault: {fault}\n" in config)
        status.setdefault(fault, []).append(json.loads(path.read_text())["status"])
    assert {fault: sorted(words) for fault, words in status.items()} == {"none": ["diverged", "max_steps"]}
    failed = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 6
    causes = " ".join(failed)
    assert causes.count("ValueError: the teacher has left") == 2
    assert causes.count("the worker died (SIGKILL): out of memory?") == 2
    assert causes.count("memory") >= 4
    assert "6 of 8 runs failed; the same line tries them again" in out


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"A FULL DISK IS NOT TESTED HERE: cannot mount a small one ({mounted.stderr.decode().strip()})")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.turns
def test_a_full_disk(tiny_disk: Path, tmp_path: Path) -> None:
    line = ["-m", *SMALL, "stop.steps=20", "seed=range(12)", "hydra.launcher.pack_size=2", "hydra.launcher.workers=1"]
    process = started(*line, f"output_dir={tiny_disk}", cwd=tmp_path)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "No space left on device" in out
    assert "Traceback" not in said
    whole = [json.loads(p.read_text()) for p in tiny_disk.glob("*/summary.json")]
    assert 0 < len(whole) < 12
    subprocess.run(["mount", "-o", "remount,size=20m", str(tiny_disk)], check=True)
    again = started(*line, f"output_dir={tiny_disk}", cwd=tmp_path)
    out, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert len(list(tiny_disk.glob("*/summary.json"))) == 12


# ---- two at once ----------------------------------------------------------------------------------


@pytest.mark.turns(50)
def test_two_sweeps_at_once(uninterrupted: Path, tmp_path: Path) -> None:
    """The second trains what is free, waits for the rest, and both end with everything."""
    first = started(*SWEEP, *LONG, cwd=tmp_path)
    until(lambda: has_checkpoint(tmp_path))
    second = started(*SWEEP[:-1], "seed=0,1,2", *LONG, cwd=tmp_path)
    for process in (first, second):
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    starts = "".join(p.read_text() for p in tmp_path.glob("outputs/*-s[01]-*/run.log")).count("started at step 0")
    assert starts == 8, "no run was trained twice"
    for folder in folders(tmp_path):
        if "-s2-" in folder.name:
            shutil.rmtree(folder)
    assert same_results(uninterrupted, tmp_path) == 8


def test_locks(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert locks.acquire(folder) is None
    assert locks.acquire(folder) == locks.Held(f"process {os.getpid()} on {socket.gethostname()}", folder / ".lock-1")
    locks.release(folder)
    assert locks.holder(folder) is None
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def left(content: str) -> None:
        locks.release(folder)
        for path in folder.iterdir():
            path.unlink()
        (folder / f"{locks.LOCK}1").write_text(content)

    stale = {"host": socket.gethostname(), "pid": gone.pid, "began": "123"}
    left(json.dumps(stale))
    assert locks.acquire(folder) is None, "its process is gone"
    left(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": "123"}))
    assert locks.acquire(folder) is None, "another process has its number now"
    locks.release(folder)
    assert not list(folder.iterdir()), "stale ones are cleared away"
    left(json.dumps({**stale, "host": "elsewhere"}))
    assert locks.holder(folder) == f"process {gone.pid} on elsewhere"
    assert locks.acquire(folder) is not None, "not silent for long"
    left("")
    assert locks.acquire(folder) is None, "its process died while writing it"


MINE = locks._mine()


@pytest.mark.parametrize(
    ("who", "silent", "holds"),
    [
        ({"host": "renamed"}, 1e6, True),  # this very process: this boot, these process numbers
        ({"host": "renamed", "pid": 2**22 + 1}, 0, False),  # this machine, and no such process
        ({"boot": "another"}, 10, True),  # another machine of this name, or before it was restarted
        ({"boot": "another"}, 200, False),
        ({"pids": "pid:[1]"}, 10, True),  # another container on this machine
        ({"pids": "pid:[1]"}, 200, False),
        ({"host": "elsewhere", "boot": "another"}, 200, False),
        ({"host": "elsewhere", "boot": "another"}, -1e6, False),  # touched in a year to come
        ({"host": "elsewhere", "boot": None, "pids": None}, 10, True),  # left by an earlier version
        ({"host": "elsewhere", "boot": None, "pids": None}, 200, False),
        ({"pid": "12"}, 0, False),  # no lock of ours
        ({"host": None}, 0, False),
    ],
)
def test_whom_to_believe(tmp_path: Path, who: dict[str, Any], silent: float, holds: bool) -> None:
    lock = tmp_path / f"{locks.LOCK}1"
    lock.write_text(json.dumps(MINE | who))
    os.utime(lock, (time.time() - silent,) * 2)
    assert (locks.holder(tmp_path) is not None) == holds
    held = locks.acquire(tmp_path)
    assert (held is not None) == holds
    if held is not None:
        assert held.lock == lock


def test_a_heartbeat_shows_who_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.01)
    (tmp_path / "other").mkdir()
    theirs = tmp_path / "other" / f"{locks.LOCK}1"
    theirs.write_text(json.dumps(MINE | {"pid": 1}))
    assert locks.acquire(tmp_path) is None
    mine = tmp_path / f"{locks.LOCK}1"
    for path in (mine, theirs):
        os.utime(path, (0, 0))
    with locks.beating([tmp_path, tmp_path / "other", tmp_path / "nowhere"]):
        until(lambda: mine.stat().st_mtime > time.time() - 60)
    assert theirs.stat().st_mtime == 0, "nobody else's"
    assert not [t for t in threading.enumerate() if t.name == "locks"]


@pytest.mark.turns
def test_a_holder_of_whom_nothing_is_known_is_named_at_once_and_taken_over(tmp_path: Path) -> None:
    """The container of yesterday: killed, its lock left, no host of that name any more."""
    line = ["data=gaussian", "data.d=8", "data.m=6", "model=linear", "attack=exact", "stop.steps=5", "logger=none"]
    assert command(*line, cwd=tmp_path).returncode == 0
    (folder,) = folders(tmp_path)
    for silent, said in ((1000, False), (locks.PATIENCE - 15, True)):  # long enough to start, in a fork
        (folder / "summary.json").unlink()
        lock = folder / f"{locks.LOCK}1"
        lock.write_text(json.dumps({"host": "container-of-yesterday", "pid": 4711, "began": "1", "job": None}))
        os.utime(lock, (time.time() - silent,) * 2)
        done = command(*line, "trainer.progress=false", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        named = (
            f"{folder.name}: process 4711 on container-of-yesterday trains it, by its lock {lock.relative_to(tmp_path)}"
        )
        assert (named in done.stderr) == said
        assert (folder / "summary.json").is_file()
        assert not list(folder.glob(".*lock*"))


def test_leftover_locks_are_cleared(tmp_path: Path) -> None:
    """Of a process killed between its summary and the end, or while it was making a lock."""
    line = ["data=gaussian", "data.d=8", "data.m=6", "model=linear", "attack=exact", "stop.steps=5", "logger=none"]
    assert command(*line, cwd=tmp_path).returncode == 0
    (folder,) = folders(tmp_path)
    lock, making, young = folder / f"{locks.LOCK}3", folder / ".1234.lock", folder / ".5678.lock"
    lock.write_text(json.dumps(MINE | {"pid": 2**22 + 1}))
    making.write_text("{")
    os.utime(making, (0, 0))
    young.write_text("{")
    assert command(*line, cwd=tmp_path).returncode == 0
    assert not lock.exists()
    assert not making.exists()
    assert young.exists(), "somebody may be at it"


def test_a_slow_process_does_not_take_what_was_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw a stale lock; before it makes the next one, all are given back, and somebody else takes the first."""
    stale = {"host": socket.gethostname(), "pid": 2**22 + 1, "began": "1"}
    other = {"host": "elsewhere", "pid": 1, "began": "1"}
    (tmp_path / f"{locks.LOCK}4").write_text(json.dumps(stale))
    made = locks._made

    def late(mine: Path, lock: Path) -> bool:
        (tmp_path / f"{locks.LOCK}4").unlink(missing_ok=True)
        (tmp_path / f"{locks.LOCK}1").write_text(json.dumps(other))
        return made(mine, lock)

    monkeypatch.setattr(locks, "_made", late)
    assert locks.acquire(tmp_path) is not None
    assert [p.name for p in tmp_path.iterdir()] == [f"{locks.LOCK}1"]


def test_one_of_many_gets_the_lock(tmp_path: Path) -> None:
    """Twenty processes, one stale lock: exactly one takes it over."""
    (tmp_path / "run").mkdir()
    stale = {"host": socket.gethostname(), "pid": 2**22 + 1, "began": "1"}
    (tmp_path / "run" / f"{locks.LOCK}1").write_text(json.dumps(stale))
    script = (
        "import sys, time, pathlib; from robust_erm.store import locks; sys.stdin.readline(); "
        f"print(locks.acquire(pathlib.Path({str(tmp_path / 'run')!r})), flush=True); sys.stdin.readline()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    many = [
        subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True, env=environment)
        for _ in range(20)
    ]
    for process in many:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline().strip() for process in many if process.stdout]
    for process in many:
        process.communicate("\n")
    assert said.count("None") == 1
    assert sum(word.startswith("Held(by='process ") for word in said) == 19


# ---- packs ----------------------------------------------------------------------------------------


def of(resolved: Callable[..., Run], *overrides: str, **varied: list[Any]) -> list[Run]:
    runs = [resolved(*overrides)]
    for key, values in varied.items():
        name = key.replace("__", ".")
        runs = [resolved(*overrides, f"{name}={value}") for value in values]
    return runs


def test_packs_share_what_they_can(resolved: Callable[..., Run]) -> None:
    base = ("data=gaussian", "data.d=20", "data.m=10", "model=linear", "attack=exact")
    runs = [
        *(resolved(*base, f"seed={s}", f"eps={e}") for s in (0, 1) for e in (0, 0.1)),
        resolved(*base, "optimizer.schedule.lr=0.5"),
        resolved(*base, "data.k_w=3"),
        resolved(*base, "model.init_scale=0.1"),
        resolved(*base, "stop.loss=1e-2"),
        resolved(*base, "data.m=11"),
        resolved(*base, "optimizer=sd"),
        resolved(*base, "stop.steps=7"),
    ]
    found = plan.packs(runs, None, 1)
    assert sorted(sorted(pack.members) for pack in found) == [[0, 1, 2, 3, 4, 5, 6, 7], [8], [9], [10]]
    assert [len(pack.members) for pack in plan.packs(runs[:4], 3, 1)] == [3, 1]
    assert [len(pack.members) for pack in plan.packs(runs[:4], None, 2)] == [2, 2]
    seeds = [runs[i].seed for pack in plan.packs(runs[:4], None, 2) for i in pack.members]
    assert seeds == [0, 0, 1, 1], "runs of one data set beside each other"


def test_packs_are_bounded_by_memory(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [resolved(f"seed={s}", "model.width=300") for s in range(12)]
    each, data = resources.of_run(runs[0]), resources.of_data(runs[0])
    room = 3.5 * (each + data)
    monkeypatch.setattr(resources, "available", lambda: (room + plan._WORKER) / 0.6)
    assert [len(pack.members) for pack in plan.packs(runs, None, 1)] == [3, 3, 3, 3]


MEASURED = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import pathlib, tempfile
from robust_erm.store.config import resolve
from robust_erm.training import resources
from robust_erm.store.source import conf_dir
from robust_erm.sweeps.lines import prepare
prepare()
from hydra import compose, initialize_config_dir
from robust_erm.training.pack import train_pack
initialize_config_dir(str(conf_dir()), version_base="1.3")
def of(seed, *more):
    fixed = ["logger=none", "stop.steps=2", "trainer.threads=1", f"output_dir={{tempfile.mkdtemp()}}"]
    return resolve(compose("train", [*fixed, f"seed={{seed}}", *{overrides!r}, *more]))
def peak():
    return 1024 * int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
train_pack([of(0)])
before = peak()
runs = [of(seed, "stop.steps=1") for seed in range({n})]
train_pack(runs)
used = peak() - before
print(used / sum(resources.of_run(run) + resources.of_data(run) for run in runs))
"""


@pytest.mark.turns(70)
@pytest.mark.parametrize(
    "overrides",
    [
        ["data=gaussian", "data.d=784", "data.m=100", "data.m_test=1000", "model.width=784"],
        ["data=gaussian", "data.d=512", "data.m=1024", "model=linear", "attack=exact", "data.m_test=1000"],
        ["data.classes=[0,1,2]", "objective=cross_entropy", "model=cnn", "data.m=100"],
    ],
    ids=["net", "linear", "cnn"],
)
@pytest.mark.turns
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of peak memory")
def test_the_estimate_of_memory_holds(overrides: list[str]) -> None:
    """Peak memory of a pack beyond that of one run, over the estimate: at most 1, and not absurdly less."""
    n = 3 if "model=cnn" in overrides else 6
    script = MEASURED.format(root=str(ROOT), tests=str(ROOT / "tests"), overrides=overrides, n=n)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0.02 < float(done.stdout.split()[-1]) <= 1.0


# ---- what is seen ---------------------------------------------------------------------------------


def test_live_view_counts() -> None:
    from collections import Counter

    view = View(10, 1000, quiet=True)
    view.packs = 2
    view.start(1, "first", 4, 100)
    view.start(2, "second", 6, 100)
    view.progress(1, {"t": 50, "steps": 200, "spared": 0, "ended": Counter()})
    view.progress(2, {"t": 10, "steps": 60, "spared": 90, "ended": Counter(converged=1)})
    text = view._summary()
    assert "packs 0/2, 2 running; runs 1/10: 1 converged, 0 max_steps" in text
    assert "at most" in text
    view.stop(1, Counter(max_steps=3, failed=1))
    assert "packs 1/2, 1 running; runs 5/10: 1 converged, 3 max_steps, 0 diverged, 1 failed" in view._summary()
    assert duration(187) == "3:07"
    assert duration(7509) == "2:05:09"


def test_the_table_is_grouped_over_seeds() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"optimizer": o, "eps": eps, "seed": seed, "status": "converged", "test_robust_acc": rng.random(), "step": 5}
        for o in ("gd", "sd")
        for eps in (0.0, 0.1)
        for seed in range(3)
    ]
    rows[0]["status"] = "diverged"
    frame = pd.DataFrame(rows)
    table, keys = grouped(frame, varying(frame))
    assert keys == ["optimizer", "eps"]
    assert list(table["runs"]) == [3, 3, 3, 3]
    assert table["status"][0] == "2 converged, 1 diverged"
    expected = frame.groupby(["optimizer", "eps"])["test_robust_acc"].agg(["mean", "sem"])
    assert np.allclose(table["test_robust_acc"], expected["mean"])
    assert np.allclose(table["test_robust_acc_half"], 4.302653 * expected["sem"]), "t of 2 degrees of freedom"
    one, keys = grouped(frame[frame["seed"] == 0], ["optimizer", "eps"])
    assert len(one) == 4
    assert keys == ["optimizer", "eps"]
