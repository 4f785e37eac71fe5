"""Sweeps on a real SLURM: what interrupts them changes no byte of what they bring home."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, attempts, ended, sweep_of, until
from shell import ROOT, has_checkpoint, same_results

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, one process
Reference = Callable[..., Path]

# two tasks, each two packs of 800 steps that sleep for SLOW seconds each
SWEEP = [
    "optimizer=gd,sd",
    "optimizer._target_=slow.Slow",
    "eps=0,0.1",
    "stop.steps=800",
    "stop.loss=null",
    "logger=none",
]
SLOW = {"SLOW": "0.01"}
ONE = ["hydra.launcher.cpus=1", "hydra.launcher.workers=1", "hydra.launcher.memory=1", "trainer.checkpoint_seconds=0.2"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster; SLURM that cannot be had is said aloud, and never passes."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [tool for tool in ("slurmctld", "slurmd", "munged") if shutil.which(tool, path=path) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(
            f"SLURM IS NOT TESTED HERE: {'there is no ' + missing[0] if missing else 'needs root'} "
            "(on Debian, as root: apt install slurm-wlm munge)"
        )
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.script("up")
    yield made
    made.script("down")
    assert not made.home.exists()


@pytest.fixture
def quiet(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with nothing in its queue and both nodes up, before and after."""
    cluster.empty()
    yield cluster
    cluster.empty()


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Callable[..., Path]:
    """Where a line was trained by the packed launcher, uninterrupted."""
    known: dict[Any, Path] = {}

    def trained(*line: str) -> Path:
        if line not in known:
            known[line] = tmp_path_factory.mktemp("reference")
            done = cluster.train(*line, "hydra.launcher.workers=2", cwd=known[line], launcher="packed")
            assert done.returncode == 0, done.stderr
        return known[line]

    return trained


def running(cluster: Cluster) -> list[str]:
    return [row.split()[0] for row in cluster.queue() if row.endswith("main RUNNING")]


def test_the_line(quiet: Cluster, tmp_path: Path) -> None:
    """As the README has it, on pretended GPUs; then once more, when nothing is left to do."""
    line = ["optimizer=gd,sd", "eps=0,0.2"]
    process = quiet.started(*line, cwd=tmp_path / "slurm", launcher="slurm")
    local = quiet.train(*line, cwd=tmp_path / "local", launcher="packed")
    done = ended(process)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert same_results(tmp_path / "slurm", tmp_path / "local") == 4
    assert done.stdout == local.stdout, "table, folders, figure"
    assert "GPU 0 was given, but torch" in done.stderr or "GPU 1 was given, but torch" in done.stderr or _has_cuda()
    summary = json.loads(next((tmp_path / "slurm").glob("outputs/*/summary.json")).read_text())
    local_summary = json.loads(next((tmp_path / "local").glob("outputs/*/summary.json")).read_text())
    assert summary["git"] == local_summary["git"], "a copy of the code knows what it is a copy of"
    again = quiet.train(*line, cwd=tmp_path / "slurm", launcher="slurm")
    assert again.returncode == 0
    assert again.stdout == local.stdout
    assert "submitted" not in again.stderr


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.mark.turns(130)
def test_many_points_on_both_nodes(quiet: Cluster, tmp_path: Path) -> None:
    """200 points in four tasks that fill a node each: two at a time, and one at a time on one node."""
    points = ["data=gaussian", "data.d=20", "data.m=10", "model=linear", "attack=exact", "optimizer=adam"]
    points += ["seed=range(50)", "eps=0,0.01,0.02,0.03", "stop.steps=500", "stop.loss=null", "logger=none"]
    cut = [f"hydra.launcher.{o}" for o in ("cpus=4", "workers=1", "pack_size=50", "memory=2", "array_parallelism=2")]
    for name, more in {"both": [], "one": ["hydra.launcher.sbatch={nodelist:n1}"]}.items():
        done = quiet.train(*points, *cut, *more, cwd=tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / name).glob("outputs/*/summary.json"))) == 200
        found = attempts(tmp_path / name)
        assert len(found) == 4
        at_once = [sum(a["began"] <= b["began"] < a["ended"] for a in found) for b in found]
        assert max(at_once) == (2 if name == "both" else 1)
        assert {a["node"] for a in found} == ({"n1", "n2"} if name == "both" else {"n1"})
    assert len(list(Path(tmp_path / "both" / sweep_of(tmp_path / "both") / "slurm" / "1").iterdir())) < 40


@pytest.mark.turns(70)
def test_gpus_are_not_shared(quiet: Cluster, tmp_path: Path) -> None:
    points = ["stop.steps=2", "logger=none", "seed=range(6)", "hydra.launcher.pack_size=1", "hydra.launcher.gpus=1"]
    done = quiet.train(*points, *ONE, cwd=tmp_path, launcher="slurm")
    assert done.returncode == 0, done.stderr
    found = attempts(tmp_path)
    assert len(found) == 6
    assert {a["gpus"] for a in found} == {"0", "1"}, "CUDA_VISIBLE_DEVICES, one each"
    for a in found:
        for b in found:
            if a["task"] < b["task"] and a["began"] < b["ended"] and b["began"] < a["ended"]:
                assert (a["node"], a["gpus"]) != (b["node"], b["gpus"]), "two at a time on one GPU"


# ---- interruptions --------------------------------------------------------------------------------


@pytest.mark.turns(120)
def test_requeue_and_preemption(quiet: Cluster, reference: Reference, tmp_path: Path) -> None:
    """One task is requeued by hand, the other preempted by a job of the urgent partition: SIGTERM is all it is told,
    as before its time limit (``--signal=TERM@90``)."""
    threads = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}  # signals come to any thread
    process = quiet.started(*SWEEP, *ONE, cwd=tmp_path, **SLOW, **threads)
    until(lambda: len(running(quiet)) == 2 and both_train(tmp_path))
    quiet.says("scontrol", "requeue", next(job for job in running(quiet) if job.endswith("_0")))
    quiet.says("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 2")
    done = ended(process)
    assert done.returncode == 0, done.stderr
    assert {a["task"] for a in attempts(tmp_path) if a["restarts"]} == {0, 1}
    assert "requeued: " in done.stderr
    by_hand, preempted = [p.read_text() for p in logs(tmp_path)]
    assert "DUE TO JOB REQUEUE" in by_hand
    assert "requeued from here" not in by_hand, "one requeue is enough"
    assert "checkpoints are left" in preempted
    assert "requeued from here" in preempted
    assert "resumed at step" in "".join(p.read_text() for p in tmp_path.glob("outputs/*/run.log"))
    assert same_results(tmp_path, reference(*SWEEP)) == 4

    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/*/*.*")}
    tasks = len(attempts(tmp_path))
    until(lambda: not quiet.queue())
    quiet.says("scontrol", "requeue", logs(tmp_path)[0].name.removesuffix("_0_log.out"))
    until(lambda: "this task had finished; nothing to do" in logs(tmp_path)[0].read_text())
    until(lambda: not quiet.queue())
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(attempts(tmp_path)) == tasks


def both_train(cwd: Path) -> bool:
    """Both tasks are under way: a run of each has a checkpoint, and none of it has ended."""
    folders = {word: [p.parent for p in cwd.glob(f"outputs/*-{word}-*/checkpoint.pt")] for word in ("gd", "sd")}
    return all(some and not any((p / "summary.json").exists() for p in some) for some in folders.values())


def logs(cwd: Path) -> list[Path]:
    return sorted((cwd / sweep_of(cwd)).glob("slurm/1/*_log.out"))


def steps_of(task: str) -> list[int]:
    """Processes of submitit in the step of that task, ``_1``, of any array."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (place / "environ").read_bytes()
            ours = f"SLURM_ARRAY_TASK_ID={task[1:]}\0".encode() in variables and b"SLURM_STEP_ID=" in variables
            if ours and b"submitit.core._submit" in (place / "cmdline").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def kill_step(task: str) -> None:
    """The task's process, and what it may just have forked, which looks like it."""
    found = steps_of(task)
    assert found
    for process in found:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.mark.turns(90)
def test_what_is_killed_goes_on(quiet: Cluster, reference: Reference, tmp_path: Path) -> None:
    """A task's process, and the other node's daemon: SLURM gives that node up; what still runs there ends."""
    process = quiet.started(*SWEEP, *ONE, "hydra.launcher.cpus=4", cwd=tmp_path, **SLOW)
    until(lambda: len(running(quiet)) == 2 and both_train(tmp_path))
    kill_step("_0")
    (other,) = [a["node"] for a in attempts(tmp_path) if a["task"] == 1]
    os.kill(int((quiet.home / f"slurmd-{other}.pid").read_text()), signal.SIGKILL)
    done = ended(process)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [a["restarts"] for a in attempts(tmp_path) if a["task"] == 0] == [0, 1]
    assert same_results(tmp_path, reference(*SWEEP)) == 4


@pytest.mark.turns(70)
def test_where_nothing_may_be_requeued(quiet: Cluster, reference: Reference, tmp_path: Path) -> None:
    """One task is told to end, the other killed: both are reported, and resumed."""
    process = quiet.started(*SWEEP, *ONE, "hydra.launcher.max_requeues=0", cwd=tmp_path, **SLOW)
    until(lambda: len(running(quiet)) == 2 and both_train(tmp_path))
    quiet.says("scancel", "--signal=TERM", next(job for job in running(quiet) if job.endswith("_0")))
    (killed,) = [job for job in running(quiet) if job.endswith("_1")]
    kill_step("_1")
    done = ended(process)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "4 of 4 runs failed" in done.stdout
    assert "was requeued 0 times, as often as hydra.launcher.max_requeues allows; checkpoints are kept" in done.stdout
    assert f"task 1 (job {killed}) ended without a word: FAILED" in done.stdout
    assert "Killed" in done.stdout, "the last lines of its log"
    line = next(line for line in done.stdout.splitlines() if "python -m robust_erm.slurm resume" in line)
    arguments = line.partition("python -m robust_erm.slurm ")[2].split()
    resumed = quiet.slurm(*arguments, "max_requeues=3", "trust=slow", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "2 tasks, 4 runs" in resumed.stderr
    watched = quiet.slurm("watch", str(sweep_of(tmp_path)), cwd=tmp_path)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert same_results(tmp_path, reference(*SWEEP)) == 4
    status = quiet.slurm("status", cwd=tmp_path)
    assert f"{sweep_of(tmp_path)}: 4 of 4 runs have a result, 0 to come" in status.stdout


# ---- other shells ---------------------------------------------------------------------------------


@pytest.mark.turns(70)
def test_the_submitting_process_killed_and_code_and_configs_edited(
    quiet: Cluster, reference: Reference, tmp_path: Path
) -> None:
    """Jobs wait; meanwhile their shell is gone, a yaml changes results and the code does not even import."""
    checkout = tmp_path / "checkout"
    for folder in ("robust_erm", "conf", "launch"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    held = ["hydra.launcher.sbatch={hold:true}"]
    process = quiet.started(*SWEEP, *ONE, *held, cwd=checkout, PYTHONPATH=str(ROOT / "tests" / "slurm"))
    until(lambda: len(quiet.queue()) == 2 and (checkout / sweep_of(checkout) / "slurm/1/submission.json").is_file())
    facts = checkout / sweep_of(checkout) / "slurm/1/submission.json"
    until(lambda: json.loads(facts.read_text())["job"])
    time.sleep(1)  # pickles are moved
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    sd = checkout / "conf" / "optimizer" / "sd.yaml"
    sd.write_text(sd.read_text().replace("lr: 2e-4", "lr: 3e-4"))
    (checkout / "robust_erm" / "step.py").write_text("raise RuntimeError('edited')\n")
    sweep = str(checkout / sweep_of(checkout))
    status = quiet.slurm("status", sweep, cwd=tmp_path)
    assert status.returncode == 0, status.stderr
    assert "0 of 4 runs have a result, 0 failed, 4 to come; tasks: 2 pending" in status.stdout
    early = quiet.slurm("collect", sweep, cwd=tmp_path)
    assert early.returncode == 0, early.stderr
    assert "4 runs have not ended yet" in early.stdout
    quiet.says("scontrol", "release", json.loads(facts.read_text())["job"])
    watched = quiet.slurm("watch", sweep, cwd=tmp_path)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert same_results(checkout, reference(*SWEEP)) == 4
    collected = quiet.slurm("collect", sweep, cwd=tmp_path)
    assert collected.stdout == watched.stdout
    assert "100.0" in collected.stdout


@pytest.mark.turns(70)
def test_ctrl_c_detaches_and_cancel_cancels(quiet: Cluster, tmp_path: Path) -> None:
    process = quiet.started(*SWEEP, *ONE, cwd=tmp_path, SLOW="0.05")
    until(lambda: has_checkpoint(tmp_path))
    os.killpg(process.pid, signal.SIGINT)
    done = ended(process)
    assert done.returncode == 130, done.stderr
    assert "detached: 0 of 4 runs have ended, the tasks go on" in done.stderr
    assert f"python -m robust_erm.slurm collect {sweep_of(tmp_path)}" in done.stdout
    until(lambda: len(running(quiet)) == 2)  # the second may not have started yet
    again = quiet.train(*SWEEP, *ONE, "hydra.launcher.detach=true", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "has been submitted before, and is under way" in again.stderr
    assert len(quiet.queue()) == 2, "nothing is submitted twice"
    cancelled = quiet.slurm("cancel", str(sweep_of(tmp_path)), cwd=tmp_path)
    assert "cancelled 2 tasks; what has been reached is kept" in cancelled.stdout
    until(lambda: not quiet.queue())
    time.sleep(2)
    assert not quiet.queue(), "what was cancelled does not requeue itself"
    collected = quiet.slurm("collect", str(sweep_of(tmp_path)), cwd=tmp_path)
    assert collected.returncode == 1
    assert "CANCELLED" in collected.stdout
    assert has_checkpoint(tmp_path)
    later = ["hydra.launcher.detach=true", "hydra.launcher.sbatch={hold:true}"]
    anew = quiet.train(*SWEEP, *ONE, *later, cwd=tmp_path)
    assert anew.returncode == 0, anew.stderr
    assert "2 tasks, 4 runs" in anew.stderr, "the same line submits what was cancelled"


# ---- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("hydra.launcher.partition=man", "hydra.launcher.partition = man: there is no such partition: has main"),
        ("hydra.launcher.memory=9999", "no node has what a task asks for (memory=9999.0, cpus=4)"),
        ("hydra.launcher.time=6000", "hydra.launcher.time = 6000: minutes, but partition main allows 600"),
        ("hydra.launcher.sbatch={constraint:a100}", "hydra.launcher.constraint = None: no node has this feature"),
    ],
)
def test_refusals(quiet: Cluster, tmp_path: Path, options: str, line: str) -> None:
    done = quiet.train("seed=0,1", options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("robust_erm: ")
    assert line in done.stderr
    assert not quiet.queue()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [], "nothing half-submitted"


def test_without_sbatch(tmp_path: Path, quiet: Cluster) -> None:
    done = quiet.train("seed=0,1", cwd=tmp_path, PATH="/nowhere")
    assert done.returncode == 2
    assert "there is no sbatch on this machine; run it on a login node of the cluster" in done.stderr
    assert "or train here with hydra/launcher=packed" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_dry_run(quiet: Cluster, tmp_path: Path) -> None:
    done = quiet.train("seed=range(20)", "optimizer=gd,sd", "hydra.launcher.dry_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-5%6" in done.stdout, "packs of eight, eight and four for each optimizer"
    assert "digits, mlp, gd" in done.stdout
    assert "sbatch: Job" in done.stdout
    assert not quiet.queue()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
