"""A sweep's agent of W&B: its command line and environment as its own code makes them, offline."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from shell import ROOT, command, folders
from test_wandb import measured, read

from robust_erm.store.source import conf_dir
from robust_erm.training.agent import agents_run, go_online

SMALL = ["stop.steps=3", "trainer.progress=false", "report=false"]
VALUES = {"optimizer": "sd", "eps": 0.1, "model.width": 8}
SWEEP = ROOT / "launch" / "wandb_sweep.yaml"


def agent(run_id: str, cwd: Path, /, **values: Any) -> tuple[list[str], dict[str, str]]:
    """What an agent starts for a run of the sweep with these values, without the python, and its environment."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
    from wandb.sdk.lib import config_util

    content = yaml.safe_load(SWEEP.read_text())
    assert values.keys() == content["parameters"].keys()
    given = {key: {"value": value} for key, value in values.items()}
    words = {**create_sweep_command_args({"args": given}), "env": ["/usr/bin/env"]}
    line: list[str] = []
    for word in create_sweep_command(content["command"]):
        line += words[word[2:-1]] if word.startswith("${") else [word]
    place = cwd / "wandb" / "sweep-s1" / f"config-{run_id}.yaml"
    place.parent.mkdir(parents=True, exist_ok=True)
    config_util.save_config_file_from_dict(str(place), given)
    env = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": run_id, "WANDB_PROJECT": "other", "WANDB_ENTITY": "me"}
    return line, {**env, "WANDB_SWEEP_PARAM_PATH": str(place), "WANDB_DIR": str(cwd)}


def started(run_id: str, cwd: Path, *more: str, **values: Any) -> subprocess.CompletedProcess[str]:
    line, env = agent(run_id, cwd, **values)
    assert line[:4] == ["/usr/bin/env", "python", "-m", "robust_erm.train"]
    return command(*line[4:], *SMALL, *more, cwd=cwd, **env)


def sent(folder: Path, run_id: str) -> dict[str, Any]:
    (file,) = folder.glob(f"wandb/offline-run-*-{run_id}/*.wandb")
    return read(file)


@pytest.mark.turns(80)
def test_the_agents_run_gets_its_curve_and_metric(tmp_path: Path) -> None:
    """Once trained, and once more from disk, under another id: what was sent before stays."""
    for run_id in ("abc123", "def456"):
        done = started(run_id, tmp_path, **VALUES)
        assert done.returncode == 0, done.stderr
        assert ("1 of 1 runs were there already" in done.stderr) == (run_id == "def456")
        (folder,) = folders(tmp_path)
        summary = json.loads((folder / "summary.json").read_text())
        found = sent(folder, run_id)
        assert found["id"] == run_id
        assert found["steps"] == measured(folder)
        assert found["exit"] == 0
        assert found["summary"]["test_robust_acc"] == summary["test_robust_acc"]
        assert found["summary"]["final/test_robust_acc"] == summary["test_robust_acc"]
        assert found["summary"]["status"] == summary["status"]
        assert found["config"]["eps"] == 0.1
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2


@pytest.mark.turns(50)
def test_the_metric_is_what_returns_names(tmp_path: Path) -> None:
    """Also one that is taken at the end alone, and is in no row."""
    values = {"optimizer": "gd", "eps": 0, "model.width": 8}  # separates its points
    done = started("x1", tmp_path, "measure=[kkt]", "returns=kkt_stationarity", "stop.steps=500", **values)
    assert done.returncode == 0, done.stderr
    (folder,) = folders(tmp_path)
    value = json.loads((folder / "summary.json").read_text())["kkt_stationarity"]
    assert value is not None
    assert sent(folder, "x1")["summary"]["kkt_stationarity"] == value


@pytest.mark.turns
def test_a_sweep_in_an_agent_is_refused(tmp_path: Path) -> None:
    line, env = agent("x1", tmp_path, **VALUES)
    done = command("-m", *line[4:], *SMALL, "seed=0,1", cwd=tmp_path, **env)
    assert done.returncode == 2
    assert "leave -m out" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_online_in_an_agent_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", env := {"WANDB_RUN_ID": "x1"})
    go_online()
    assert agents_run() is None
    assert "WANDB_MODE" not in env, "an id alone is no agent"
    env["WANDB_SWEEP_ID"] = "s1"
    go_online()
    assert agents_run() == "x1"
    assert env["WANDB_MODE"] == "online"
    env["WANDB_MODE"] = "offline"
    go_online()
    assert env["WANDB_MODE"] == "offline"
    assert "oc.env:WANDB_MODE" in (conf_dir() / "logger" / "wandb.yaml").read_text(), "what the config takes it from"
