"""The W&B mirror against the real SDK, offline: what its files hold, and when."""

from __future__ import annotations

import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from robust_erm.store.config import Run
from robust_erm.store.run_folder import folder_of
from robust_erm.training import wandb_mirror
from robust_erm.training.pack import train_pack
from robust_erm.training.wandb_mirror import config, most_live

ROOT = Path(__file__).resolve().parents[2]
LINEAR = ("data=gaussian", "data.d=16", "data.m=8", "model=linear", "attack=exact", "logger=wandb")


def records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: a log of 32 KiB blocks in LevelDB's format, after a header of 7 bytes.

    Ends where the file does, in the middle of a record or not.
    """
    from wandb.proto import wandb_internal_pb2

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        if kind == 0 or at + 7 + size > len(data):
            return
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def mirrored(folder: Path, finished: bool = True) -> dict[str, Any]:
    """The one W&B run of a run folder, once the SDK's service has written it out."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 10 * finished
    while (found := read(file))["exit"] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def read(file: Path) -> dict[str, Any]:
    """A .wandb file: id, config, steps, rows, summary, exit code (None: not finished)."""
    found: dict[str, Any] = {"config": {}, "rows": [], "summary": {}, "exit": None}

    def key(item: Any) -> str:
        return item.key or ".".join(item.nested_key)

    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
            found["config"] = {key(u): json.loads(u.value_json) for u in record.run.config.update if u.key != "_wandb"}
        elif kind == "history":
            found["rows"].append({key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            found["summary"] |= {key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    found["steps"] = [row["_step"] for row in found["rows"]]
    return found


def measured(folder: Path) -> list[int]:
    steps: list[int] = pd.read_parquet(folder / "metrics.parquet")["step"].tolist()
    return steps


def test_files_hold_every_row_once(resolved: Callable[..., Run]) -> None:
    """Ids are the names, rows are in step order, the summary is there; again after fresh=true."""
    for fresh in ("false", "true"):
        runs = [resolved(*LINEAR, "stop.steps=20", f"seed={seed}", f"fresh={fresh}") for seed in (0, 1)]
        summaries = train_pack(runs)
        for run, summary in zip(runs, summaries, strict=True):
            found = mirrored(folder_of(run))
            assert found["id"] == found["name"] == run.name
            assert found["steps"] == [row["step"] for row in found["rows"]] == measured(folder_of(run))
            assert found["rows"][-1]["test_robust_acc"] == summary["test_robust_acc"]
            assert found["summary"]["status"] == "max_steps"
            assert found["summary"]["final/test_robust_acc"] == summary["test_robust_acc"]
            assert found["config"] == config(run)
            assert found["exit"] == 0


def test_config_is_what_wandb_can_plot(resolved: Callable[..., Run]) -> None:
    found = config(resolved(*LINEAR, "optimizer=sd", "eps=0.25"))
    assert (found["eps"], found["data"]["m"], found["p"]) == (0.25, 8, "inf")
    assert found["optimizer"]["name"] == "sd"
    assert "output_dir" not in found
    json.dumps(found, allow_nan=False)


def test_runs_beyond_the_bound_wait(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five at a time, and they end at different steps: no row is lost, and none comes twice."""
    import wandb

    monkeypatch.setattr(wandb_mirror, "most_live", lambda: 2)
    live, most, init = set(), [], wandb.init

    def counted(**settings: Any) -> Any:
        run = init(**settings)
        finish = run.finish
        live.add(run.id)
        most.append(len(live))
        object.__setattr__(run, "finish", lambda exit_code: (live.discard(run.id), finish(exit_code)))
        return run

    monkeypatch.setattr(wandb, "init", counted)
    losses = ("4", "null", "null", "7.9", "6")
    runs = [resolved(*LINEAR, "stop.steps=60", f"seed={i}", f"stop.loss={loss}") for i, loss in enumerate(losses)]
    summaries = train_pack(runs)
    assert len({summary["step"] for summary in summaries}) > 1, "all ended at once: shows nothing"
    assert max(most) == 3, "the bound, and the one for a run that ended while it waited"
    assert not live
    for run in runs:
        found = mirrored(folder_of(run))
        assert found["steps"] == measured(folder_of(run))
        assert found["exit"] == 0


def started(cwd: Path, *arguments: str, limit: int = 1024) -> subprocess.Popen[str]:
    """Python under ``ulimit -n``, with a service process of its own for the SDK; its output goes to ``said``."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'launch'}", "WANDB_MODE": "offline"}
    environment.pop("WANDB_SERVICE", None)
    line = shlex.join([sys.executable, *arguments])
    shell = ["bash", "-c", f"ulimit -n {limit} && exec {line} > said 2>&1"]
    return subprocess.Popen(shell, cwd=cwd, env=environment, text=True)


_SEEDS = """
import dataclasses, sys
from hydra import compose, initialize_config_dir
from robust_erm.store.config import resolve
from robust_erm.store.source import conf_dir
from robust_erm.training.pack import train_pack

initialize_config_dir(str(conf_dir()), version_base="1.3")
run = resolve(compose("train", sys.argv[2:]))
train_pack([dataclasses.replace(run, seed=seed) for seed in range(int(sys.argv[1]))])
"""


@pytest.mark.turns
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="ulimit -n as on Linux")
def test_hundreds_of_runs_under_a_limit_of_open_files(tmp_path: Path) -> None:
    """A pack of 200 runs, 400 open files, soft and hard: 111 are live at most, and every run is whole."""
    n = 200
    process = started(tmp_path, "-c", _SEEDS, str(n), *LINEAR, "trainer.threads=1", "stop.steps=2", limit=400)
    process.wait(timeout=300)
    said = (tmp_path / "said").read_text()
    assert process.returncode == 0, said
    assert "W&B failed" not in said
    assert not any("W&B failed" in log.read_text() for log in tmp_path.glob("outputs/*/run.log"))
    folders = sorted(path.parent for path in tmp_path.glob("outputs/*/summary.json"))
    assert len(folders) == n
    found = [mirrored(folder) for folder in folders]
    assert [one["id"] for one in found] == [folder.name for folder in folders]
    assert all(one["steps"] == [0, 1, 2] and one["exit"] == 0 for one in found)


def children(pid: int) -> list[int]:
    stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat"))
    return [int(text.split()[0]) for text in stats if int(text.rsplit(")", 1)[1].split()[1]) == pid]


@pytest.mark.turns
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="finds the SDK's service process by /proc")
def test_kill_loses_half_a_second_and_resume_sends_all(tmp_path: Path) -> None:
    """SIGKILL to training and to the SDK's service: rows older than the flush interval are in the file."""
    overrides = (
        "stop.loss=null",
        "trainer.inner_steps=5",
        "trainer.checkpoint_seconds=0",
        "measure_per_decade=3",
        "trainer.threads=1",
    )
    process = started(tmp_path, "-m", "robust_erm.train", *LINEAR, "stop.steps=1000000", *overrides)
    try:
        deadline = time.monotonic() + 90
        while not list(tmp_path.glob("outputs/*/metrics.parquet")) and time.monotonic() < deadline:
            time.sleep(0.01)
        (folder,) = tmp_path.glob("outputs/gaussian*")
        time.sleep(1.5)
        old = measured(folder)  # a row at 1, 2, 5, 10, ...: the last one is waiting for no other
        time.sleep(0.7)
        services = children(process.pid)
    finally:
        for pid in (process.pid, *children(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert services, "the service process was not found"
    assert not (folder / "summary.json").exists(), "killed too late to show anything"
    found = mirrored(folder, finished=False)
    assert len(old) > 5
    assert found["steps"][: len(old)] == old
    assert found["exit"] is None
    assert json.loads(json.dumps(found["config"]))["stop"]["steps"] == 1000000


def test_resume_replaces_the_older_file(
    resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Cut off after step 10 and trained on: one file, with the rows before and after, each once; sync finds it once."""
    from robust_erm.training.callbacks import Progress

    run = resolved(*LINEAR, "stop.steps=40", "trainer.inner_steps=5")

    def cut(self: Progress, trainer: Any, module: Any, *_: Any) -> None:
        if module.runs.t >= 10:
            raise RuntimeError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_train_batch_end", cut)
        with pytest.raises(RuntimeError, match="cut off"):
            train_pack([run])
    before = mirrored(folder_of(run))
    assert before["exit"] == 1
    assert before["steps"]
    assert before["steps"][-1] < 40
    train_pack([run])
    found = mirrored(folder_of(run))
    assert found["id"] == before["id"] == run.name
    assert found["steps"] == measured(folder_of(run))
    assert found["exit"] == 0
    sync = (
        f"{shlex.quote(sys.executable)} -m wandb sync --dry-run outputs/*/wandb/offline-run-*"  # as the README has it
    )
    done = subprocess.run(["bash", "-c", sync], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Would sync 1 run(s)" in done.stderr
    assert done.stderr.count(f"run-{run.name}.wandb") == 1


def test_bound_leaves_room(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for hard, bound in ((1024, 319), (256, 63), (64, 1), (100_000, 1000), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (64, hard))
        assert most_live() == bound
        assert bound == 1 or hard == resource.RLIM_INFINITY or 3 * (bound + 1) + 60 <= hard
