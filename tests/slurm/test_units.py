"""The parts that need no SLURM."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shell import ROOT, fake

from robust_erm.core.errors import ConfigError
from robust_erm.slurm import __main__ as slurm
from robust_erm.slurm import folder as folders
from robust_erm.slurm import sbatch, submit
from robust_erm.slurm.folder import ending
from robust_erm.slurm.settings import changed, settings
from robust_erm.slurm.task import AGAIN, FUTILE, Work
from robust_erm.slurm.watch import Watch
from robust_erm.store import files, locks, queue, source
from robust_erm.store.config import Run, resolve
from robust_erm.store.identity import as_data
from robust_erm.store.queue import Seen
from robust_erm.store.run_folder import RunFolder
from robust_erm.training import resources

# ---- settings, script, refusals -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gpus": -1}, "hydra.launcher.gpus = -1: must be 0 or more"),
        ({"time": "long"}, "hydra.launcher.time = long: has the wrong type"),
        ({"time": 1}, "hydra.launcher.warning = 90: seconds, must be less than the time limit (60 s)"),
        ({"tasks": 0}, "hydra.launcher.tasks = 0: must be 1 or more, or null"),
        ({"memory": 0}, "hydra.launcher.memory = 0.0: GiB, must be positive"),
        ({"partitions": "a"}, "hydra.launcher.partitions = a: unknown option"),
        ({"sbatch": {"cpus_per_task": 3}}, "hydra.launcher.sbatch.cpus_per_task = 3: is set by hydra.launcher.cpus"),
        ({"sbatch": "--exclude"}, "must be a mapping of sbatch options"),
        ({"poll": 0}, "hydra.launcher.poll = 0.0: seconds, must be positive"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(values)
    assert said in str(error.value)


def test_settings_of_a_resume() -> None:
    old = settings({"memory": 4, "sbatch": {"exclude": "n7"}})
    new = changed(old, ["memory=32", "partition=big", "sbatch={}"])
    assert (new.memory, new.partition, new.sbatch, new.cpus) == (32.0, "big", {}, old.cpus)
    with pytest.raises(ConfigError, match=r"memry = 32: unknown option.*did you mean memory"):
        changed(old, ["memry=32"])
    with pytest.raises(ConfigError, match="time = 4:00:00: has the wrong type"):
        changed(old, ["time=4:00:00"])
    with pytest.raises(ConfigError, match="must be <option>=<value>"):
        changed(old, ["memory"])


def test_script_asks_for_what_was_asked(tmp_path: Path) -> None:
    given = {"partition": "gpu", "account": "me", "qos": "high", "constraint": "a100", "gpus": 2, "cpus": 3}
    given |= {
        "memory": 1.5,
        "time": 90,
        "setup": ["module load cuda"],
        "sbatch": {"mail_type": "END", "exclusive": True},
    }
    given |= {"python": "apptainer exec --nv image.sif python", "array_parallelism": 5, "srun": ["--cpu-bind=none"]}
    chosen = settings(given)
    text = sbatch.script(chosen, tmp_path, tmp_path / "code", "name", 40)
    for line in (
        "--partition=gpu", "--account=me", "--qos=high", "--constraint=a100", "--gpus-per-node=2", "--cpus-per-task=3",
        "--mem=1536M", "--time=90", "--mail-type=END", "--exclusive", "--requeue", "--signal=TERM@90", "--array=0-39%5",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "wckey" not in text
    assert text.index("module load cuda") < text.index("export PYTHONSAFEPATH=1 PYTHONPATH=") < text.index("srun ")
    assert "--cpu-bind=none apptainer exec --nv image.sif python -u -m submitit" in text
    assert "--array" not in sbatch.script(chosen, tmp_path, tmp_path / "code", "name", 1)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
         "accounting/QOS policy (job submit limit, user's size and/or time limits)",
         "hydra.launcher.tasks = None: more than may be submitted now; ask for fewer: hydra.launcher.tasks=<n> "
         "(sbatch: QOSMaxSubmitJobPerUserLimit)"),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
         "hydra.launcher.account = None: is no account that may use this partition"),
        ("sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: "
         "Requested node configuration is not available", "no node has what a task asks for (cpus=1)"),
        ("sbatch: error: Unable to contact slurm controller (connect failure)", "the SLURM controller does not answer"),
        ("sbatch: error: What is this", "sbatch refuses: What is this"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(said: str, line: str) -> None:
    found = str(sbatch.refusal(said, settings({})))
    assert line in found
    assert "\n" not in found


def test_time_limits() -> None:
    given = ["infinite", "30:00", "1:00:00", "2-00:00:00", "10"]
    assert [sbatch._minutes(text) for text in given] == [float("inf"), 30, 60, 2880, pytest.approx(1 / 6)]


def test_inside_a_job_its_variables_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "5", "SLURM_CONF": "c", "SBATCH_QOS": "q"}.items():
        monkeypatch.setenv(name, value)
    with sbatch.outside_of_jobs():
        assert "SLURM_MEM_PER_CPU" not in os.environ
        assert os.environ["SLURM_CONF"] == "c"
        assert os.environ["SBATCH_QOS"] == "q"
    assert os.environ["SLURM_MEM_PER_CPU"] == "5"


# ---- tasks ----------------------------------------------------------------------------------------


def runs_of(resolved: Callable[..., Run], seeds: int, *more: str) -> list[Run]:
    base = ("data=gaussian", "data.d=20", "data.m=10", "model=linear", "attack=exact", "logger=none")
    return [resolved(*base, f"seed={s}", *more) for s in range(seeds)]


@pytest.mark.turns
def test_thousands_of_points_are_tens_of_tasks(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_max_array_size", lambda: 1000)
    few = runs_of(resolved, 3)
    many = [run for k in range(30) for run in runs_of(resolved, 2, f"stop.steps={k + 1}")]
    chosen = settings({"array_parallelism": 4})
    for runs in (few, many):
        members = submit.shares(runs, chosen)
        assert sorted(i for indices in members for i in indices) == list(range(len(runs)))
    assert len(submit.shares(few, chosen)) == 1, "three runs are not worth two GPUs"
    tasks = submit.shares(many, chosen)
    assert len(tasks) == 16
    steps = [sum(many[i].stop.steps for i in indices) for indices in tasks]
    assert max(steps) <= 1.2 * sum(steps) / len(steps), "about equal in work"
    for indices in tasks:  # packs stay together
        assert all(i ^ 1 in indices for i in indices)
    monkeypatch.setattr(submit, "_max_array_size", lambda: 7)
    assert len(submit.shares(many, chosen)) == 7, "never more than an array may have"
    assert len(submit.shares(many, settings({"tasks": 3}))) == 3


def test_configs_survive_the_journey(resolved: Callable[..., Run]) -> None:
    lines = [("p=inf",), ("p=2", "attack=pgd"), ("experiment=tsilivis2024/linear", "optimizer=cd", "eps=0.5")]
    for line in lines:
        run = resolved(*line)
        again = resolve(json.loads(json.dumps(as_data(run))))
        assert again == run
        assert again.id == run.id


def test_a_task_uses_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert resources.cores() == 1
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    assert resources.available() <= 100 * 2**20
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "30")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "2")
    assert resources.available() <= 60 * 2**20


# ---- what SLURM says ------------------------------------------------------------------------------

SACCT = """12_0|COMPLETED|0:0|n1
12_1|OUT_OF_MEMORY|0:125|n2
12_2|CANCELLED by 1000|0:15|n2
12_[3-9%4]|PENDING|0:0|None assigned
13|TIMEOUT|0:0|n1
"""


def squeue(*rows: tuple[str, ...]) -> str:
    return "\n".join("".join(f"{v:<{w}}" for v, w in zip(r, queue._FIELDS.values(), strict=True)) for r in rows)


def test_with_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue knows what is under way, sacct what has ended."""
    live = squeue(("12_1", "FAILED", "None", "19209", "2", "n1"), ("12_3", "PENDING", "Resources", "0", "0", ""))
    fake(tmp_path, "squeue", f"cat <<'E'\n{live}\nE")
    fake(tmp_path, "sacct", f"cat <<'E'\n{SACCT}E")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = queue.look(["12", "13"])
    assert found is not None
    assert found["12_1"] == Seen("FAILED", "", "75:9", 2, "n1")
    assert found["12_3"] == Seen("PENDING", "Resources", "0:0", 0, "")
    over = queue.ended(["12", "13"])
    assert over["12_2"].state == "CANCELLED"
    assert over["13"] == Seen("TIMEOUT", code="0:0", node="n1")
    assert over["13"].over
    assert "12_4" not in over


def test_without_accounting_or_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    fake(tmp_path, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert queue.look(["12"]) == {}, "it has forgotten the job"
    assert queue.ended(["12"]) == {}
    assert queue.runs("12") is False
    fake(tmp_path, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert queue.look(["12"]) is None, "nothing is known"
    assert queue.runs("14") is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert queue.look(["12"]) is None
    assert queue.runs("15") is None


# ---- locks ----------------------------------------------------------------------------------------


def test_locks_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job on another host: alive as long as SLURM says so; this very job, requeued: gone."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    held = {"host": "elsewhere", "pid": 1, "began": "1", "job": "12", "restarts": 0}
    for k, (state, holds) in enumerate({"RUNNING": True, "COMPLETED": False, "PENDING": False}.items()):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / f"{locks.LOCK}1").write_text(json.dumps(held))
        fake(tmp_path / "bin", "squeue", f"echo {state}")
        queue._answers.clear()
        assert locks.holder(folder) == ("process 1 on elsewhere (job 12)" if holds else None)
        assert (locks.acquire(folder) is not None) == holds
        if not holds:
            locks.release(folder)
            assert list(folder.iterdir()) == []
    fake(tmp_path / "bin", "squeue", "echo RUNNING")
    queue._answers.clear()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert locks.acquire(tmp_path / "0") is None


def test_a_task_is_called_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last task of array 27 has job number 27, by which SLURM means all of them."""
    for name, value in {"SLURM_JOB_ID": "27", "SLURM_ARRAY_JOB_ID": "27", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    assert queue.this_job() == ("27_3", 0)


def test_locks_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", refused)
    assert locks.acquire(tmp_path) is None
    assert locks.acquire(tmp_path) is not None
    locks.release(tmp_path)
    assert locks.acquire(tmp_path) is None


# ---- copies of the code ---------------------------------------------------------------------------


@pytest.mark.turns
def test_snapshot(tmp_path: Path) -> None:
    place = source.snapshot(tmp_path / "code")
    assert source.snapshot(tmp_path / "code") == place
    assert [p.name for p in (tmp_path / "code").iterdir()] == [source.fingerprint()]
    script = (
        "import robust_erm.train, robust_erm.page, robust_erm.training.pack, robust_erm.slurm.task; "
        "from robust_erm.store import source; print(robust_erm.__file__); print(source.revision())"
    )
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == [str(place / "robust_erm" / "__init__.py"), str(source.revision())]
    assert (place / "robust_erm" / "reports" / "page.html").is_file()
    (place / "robust_erm" / "training" / "step.py").unlink()  # a scratch disk that is cleared of what is old
    assert source.snapshot(tmp_path / "code") == place
    assert (place / "robust_erm" / "training" / "step.py").is_file()


# ---- a sweep on disk ------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> folders.SlurmSweep:
    """Two tasks of two runs each; SLURM says what the tests put into ``seen``."""
    made = folders.SlurmSweep(tmp_path / "sweep")
    (made.path / "1").mkdir(parents=True)
    ids = ["a", "b", "c", "d"]
    points = [{"id": i, "folder": str(tmp_path / i)} for i in ids]
    files.write_json(made.path / "sweep.json", {"cwd": str(tmp_path), "points": points})
    facts = {"job": "12", "name": "x", "tasks": [2, 2], "steps": [9, 9], "code": "c", "revision": "r", "settings": {}}
    files.write_json(made.path / "1" / "submission.json", facts)
    for k in (0, 1):
        runs = [{"id": i, "config": {}, "margin": None} for i in ids[2 * k : 2 * k + 2]]
        work = {"code": "c", "max_requeues": 3, "poll": 1.0, "runs": runs}
        files.write_json(folders.Submission(made.path / "1").work(k), work)
    return made


def stands(
    monkeypatch: pytest.MonkeyPatch,
    sweep: folders.SlurmSweep,
    seen: dict[str, Seen] | None,
    accounting: dict[str, Seen] | None = None,
) -> Any:
    monkeypatch.setattr(queue, "look", lambda jobs: seen)
    monkeypatch.setattr(queue, "ended", lambda jobs: accounting or {})
    return Watch(sweep).look(patient=False)


def test_how_a_sweep_stands(sweep: folders.SlurmSweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = {"12_0": Seen("RUNNING", node="n1"), "12_1": Seen("PENDING", "Priority")}
    assert stands(monkeypatch, sweep, both).waiting == {"a", "b", "c", "d"}
    assert stands(monkeypatch, sweep, None).waiting == {"a", "b", "c", "d"}, "silence is no failure"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "summary.json").write_text('{"id": "a", "name": "a", "step": 1, "status": "converged"}')
    dead = {"12_0": Seen("OUT_OF_MEMORY", code="0:125", restarts=2, node="n1"), "12_1": Seen("PENDING")}
    standing = stands(monkeypatch, sweep, dead)
    assert (standing.done, standing.waiting) == (1, {"c", "d"})
    assert "task 0 (job 12_0) ended without a word: OUT_OF_MEMORY, exit 0:125 on n1, after 2 requeues" in str(
        standing.results["b"]
    )
    assert [ending(task) for task in standing.dead] == ["OUT_OF_MEMORY, exit 0:125 on n1, after 2 requeues"]
    forgotten = stands(monkeypatch, sweep, {"12_1": Seen("PENDING")}, {"12_0": Seen("TIMEOUT", code="0:0")})
    assert [ending(task) for task in forgotten.dead] == ["TIMEOUT"]
    failures = {"d": {"cause": "ValueError: no", "traceback": ""}}
    said = {"state": "done", "failures": failures, "held": ["c"], "results": [], "notes": [], "attempts": []}
    said |= {"restarts": 0, "progress": {}}
    files.write_json(folders.Submission(sweep.path / "1").said(1), said)
    standing = stands(monkeypatch, sweep, {"12_0": dead["12_0"]})
    assert standing.results["d"].cause == "ValueError: no"
    assert "was in other hands when task 1 (job 12_1) came to it" in standing.results["c"].cause
    (tmp_path / "c").mkdir()
    assert locks.acquire(tmp_path / "c") is None
    assert stands(monkeypatch, sweep, {}).waiting == {"c"}, "in other hands still"


def test_a_job_whose_number_was_not_written_down(sweep: folders.SlurmSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = sweep.submissions()[0].facts
    files.write_json(sweep.path / "1" / "submission.json", facts | {"job": ""})
    monkeypatch.setattr(queue, "named", lambda name: "77" if name == "x" else None)
    assert stands(monkeypatch, sweep, {"77_0": Seen("RUNNING")}).tasks[0].job == "77_0"
    assert sweep.submissions()[0].facts["job"] == "77"


def test_folders_that_hold_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert slurm.main(["status", str(tmp_path)]) == 2
    assert "holds no sweep that was submitted to SLURM" in capsys.readouterr().err


def test_a_run_in_training_is_not_trained_afresh(resolved: Callable[..., Run], tmp_path: Path) -> None:
    (run,) = runs_of(resolved, 1, "fresh=true", f"output_dir={tmp_path}")
    folder = RunFolder(run).path
    folder.mkdir()
    submit._require_free(run)
    assert locks.acquire(folder) is None
    with pytest.raises(ConfigError, match=rf"cannot be trained afresh: process {os.getpid()} on .* trains it"):
        submit._require_free(run)


def test_ctrl_c_waits_for_the_end_of_a_submission() -> None:
    """Also with threads, which numpy and torch have."""
    done = []

    def submission() -> None:
        with submit._undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        submission()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_lost_the_lock_leaves_no_checkpoint(tmp_path: Path) -> None:
    assert locks.acquire(tmp_path) is None
    assert not locks.lost(tmp_path)
    (tmp_path / f"{locks.LOCK}2").write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": "1"}))
    assert locks.lost(tmp_path)


def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems say so with ESTALE."""
    path, left, read = tmp_path / "a", [errno.ESTALE, errno.ESTALE], Path.read_bytes
    path.write_text("content")

    def stale(self: Path) -> bytes:
        if left:
            raise OSError(left.pop(), "Stale file handle")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert files.read_text(path) == "content"
    left[:] = [errno.ESTALE] * 9
    with pytest.raises(files.Damaged, match="Stale"):
        files.read_text(path)


# ---- attempts of a task ---------------------------------------------------------------------------


def test_starts_that_take_no_step_are_told(sweep: folders.SlurmSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that is shorter than the start would otherwise go round until max_requeues."""
    submission = folders.Submission(sweep.path / "1")

    def attempt(restarts: int, steps: int | None) -> str:
        """One that is told to end after so many steps; None: before it has begun."""
        monkeypatch.setattr("robust_erm.slurm.task.this_job", lambda: ("12_0", restarts))
        work = Work(submission.path, 0)
        if steps is None:
            return work.end_at_once()

        def train() -> None:
            work.sweep = SimpleNamespace(view=SimpleNamespace(totals=lambda: {"steps": steps}))
            raise KeyboardInterrupt

        monkeypatch.setattr(work, "_train", train)
        return work.run()

    work = files.read_json(submission.work(0)) | {"max_requeues": 100}
    files.write_json(submission.work(0), work)
    ends = [0, None, 5, 0, 0, 7, 0, None, 0]
    states = [attempt(k, steps) for k, steps in enumerate(ends)]
    assert states == ["stopped"] * (len(ends) - 1) + ["done"]
    said = folders.read_said(submission.said(0))
    assert [a["steps"] for a in said["attempts"]] == [steps or 0 for steps in ends]
    assert f"{FUTILE} starts in a row were told to end before a step was taken" in said["failures"]["a"]["cause"]
    assert "hydra.launcher.time" in said["failures"]["b"]["cause"]
    assert attempt(len(ends), 9) == "done", "it does not begin again"


# ---- the job's shell ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "state", "kills", "requeued"),
    [
        (0, "RUNNING", 0, False),
        (1, "RUNNING", 0, False),  # an error: it would come again
        (AGAIN, "RUNNING", 0, True),
        (AGAIN, "COMPLETING", 0, False),  # SLURM does it, or somebody has cancelled
        (AGAIN, "RUNNING", 2, True),
        (137, "RUNNING", 0, True),
        (137, "RUNNING", 1, True),
        (137, "RUNNING", 2, False),
        (143, "CANCELLED", 0, False),
    ],
)
def test_who_is_requeued(tmp_path: Path, code: int, state: str, kills: int, requeued: bool) -> None:
    """The script's last lines, with commands in SLURM's place."""
    fake(tmp_path / "bin", "squeue", f"echo {state}")
    fake(tmp_path / "bin", "scontrol", f"echo $* >>{tmp_path}/asked")
    (tmp_path / "killed-3").write_text("n1 137\n" * kills)
    lines = sbatch.parameters(settings({}), tmp_path, tmp_path, "name")["teardown"]
    script = "\n".join([f"(exit {code})", *lines])
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "9"}
    environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(["bash", "-c", script], env=environment, check=False)
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("requeue 7_3\n" if requeued else "")
    assert done.returncode in (code, AGAIN)
