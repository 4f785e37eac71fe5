"""The commands as a user types them."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pandas as pd
import pytest
from omegaconf import DictConfig
from shell import ROOT, command, folders

from robust_erm import results
from robust_erm.store.config import Run, resolve
from robust_erm.store.run_folder import RunFolder, folder_of
from robust_erm.sweeps.check import check_all
from robust_erm.sweeps.run import run_one, run_sweep
from robust_erm.training.pack import train_pack
from robust_erm.training.problem import exact_margin

SWEEP = ["-m", "optimizer=gd,sd", "eps=0,0.2"]


def test_the_main_line(tmp_path: Path) -> None:
    """From a folder that is not the checkout; two steps each."""
    done = command(*SWEEP, "stop.steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(folders(tmp_path)) == 4
    for name in ("config.yaml", "metrics.parquet", "summary.json", "checkpoint.pt", "run.log", "wandb"):
        assert all((folder / name).exists() for folder in folders(tmp_path)), name
    figure = next(tmp_path.glob("outputs/sweeps/*/curves.png"))
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert str(figure.relative_to(tmp_path)) in done.stdout
    for folder in folders(tmp_path):
        assert f"outputs/{folder.name}" in done.stdout
    assert len(list(tmp_path.glob("outputs/*/wandb/offline-run-*/*.wandb"))) == 4

    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/*/*") if p.is_file() and "sweeps" not in str(p)}
    again = command(*SWEEP, "stop.steps=2", cwd=tmp_path)
    assert again.returncode == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before, "what has ended is not trained again"

    table = command("outputs", "--where", "optimizer=sd", "--csv", "t.csv", cwd=tmp_path, module="robust_erm.results")
    assert table.returncode == 0, table.stderr
    assert len(pd.read_csv(tmp_path / "t.csv")) == 2


def test_bad_points_stop_a_sweep_before_it_starts(tmp_path: Path) -> None:
    done = command("-m", "eps=0,-1", "data.m=10,500", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "robust_erm: eps = -1.0: must be finite and 0 or more" in done.stderr
    assert "data.m = 500: must be below 356" in done.stderr
    assert "3 of 4 points are not valid; nothing was trained" in done.stderr
    assert not list(tmp_path.glob("outputs/*/*"))


def test_hydras_own_refusals(tmp_path: Path) -> None:
    for overrides, message in (
        (["optimizer=gdd"], "optimizer = gdd: must be one of adam, cd, decayed, descent, gd"),
        (["optimiser=gd"], "optimiser: unknown option (did you mean optimizer?)"),
        (["sed=1"], "sed: unknown option (did you mean seed?)"),
        (["optimizer.lr=1"], "optimizer.lr: unknown option"),
        (["experiment=tsilivis2024/linaer"], "must be one of linear, mnist (did you mean linear?)"),
        (["experiment=foo"], "experiment = foo: must be one of tsilivis2024/linear, tsilivis2024/mnist"),
        (["trainer=null"], "trainer"),
        (["eps="], "eps"),
        (["eps=[0"], "eps"),
    ):
        for mode in ([], ["-m"]):
            done = forked.run("train", *mode, *overrides, cwd=tmp_path)
            assert done.status == 2, overrides
            assert message in done.err
            assert done.err.startswith("robust_erm: ")
            assert done.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_help_teaches(tmp_path: Path) -> None:
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for text in (
        "optimizer: adam, cd, decayed, descent, gd",
        "python -m robust_erm.train -m optimizer=gd,sd",
        "init_scale: 0.01",
    ):
        assert text in done.stdout
    assert command("--cfg", "job", cwd=tmp_path).stdout.startswith("data:")


def test_killed_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    """kill -9 in the middle, then the same line: the bytes of an uninterrupted run."""
    overrides = ["eps=0.2", "stop.steps=400", "stop.loss=null", "logger=none", "trainer.checkpoint_seconds=0"]
    overrides += ["trainer.inner_steps=5", "trainer.threads=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "robust_erm.train", *overrides]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    process = subprocess.Popen(line, cwd=tmp_path / "a", env=environment, **quiet)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("a/outputs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("a/outputs/*/summary.json")), "killed too late to show anything"
    assert command(*overrides, cwd=tmp_path / "a").returncode == 0
    assert command(*overrides, cwd=tmp_path / "b").returncode == 0
    a, b = folders(tmp_path / "a")[0], folders(tmp_path / "b")[0]
    assert "resumed at step" in (a / "run.log").read_text()
    for name in ("metrics.parquet", "checkpoint.pt"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.turns(40)
def test_ctrl_c_keeps_what_was_reached(tmp_path: Path) -> None:
    """One line, status 130, no traceback; then the same line goes on."""
    overrides = ["stop.steps=5000", "stop.loss=null", "logger=none", "trainer.inner_steps=5", "trainer.threads=1"]
    overrides += ["trainer.checkpoint_seconds=0.1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "robust_erm.train", *overrides]
    process = subprocess.Popen(line, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same line goes on from there" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("outputs/*/summary.json"))
    assert command(*overrides, cwd=tmp_path).returncode == 0
    assert "resumed at step" in next(tmp_path.glob("outputs/*/run.log")).read_text()


# ---- in this process ------------------------------------------------------------------------------


def test_eps_in_units_of_the_margin(resolved: Callable[..., Run]) -> None:
    run = resolved(
        *("data=gaussian", "data.d=40", "data.m=10", "model=linear", "attack=exact"),
        *("eps=0.25", "eps_unit=margin", "stop.steps=3"),
    )
    summary = train_pack([run])[0]
    assert summary["eps"] == pytest.approx(0.25 * exact_margin(run.data, 0, float("inf")))
    assert summary["test_accuracy"] == "exact, closed form"


def test_sampled_accuracy_says_its_size(resolved: Callable[..., Run]) -> None:
    assert train_pack([resolved("stop.steps=2")])[0]["test_accuracy"] == "sampled, 316 points"


def test_closed_form_accuracy_agrees_with_its_own_sample(resolved: Callable[..., Run]) -> None:
    """Trained linear model: the exact test accuracies against sampled ones, clean and robust."""
    import numpy as np
    import torch

    overrides = ("data=gaussian", "data.d=40", "data.m=30", "data.m_test=100000", "model=linear", "attack=exact")
    run = resolved(*overrides, "eps=0.05", "stop.steps=50")
    summary = train_pack([run])[0]
    w = torch.load(folder_of(run) / "checkpoint.pt", weights_only=True)["run"]["theta"].numpy()
    drawn = run.data.draw(run.seed)
    margins = drawn.y_test * (drawn.x_test @ w)
    assert summary["test_clean_acc"] == pytest.approx(np.mean(margins > 0), abs=0.005)
    assert summary["test_robust_acc"] == pytest.approx(np.mean(margins > 0.05 * np.abs(w).sum()), abs=0.005)


def test_standard_training_has_the_same_robust_accuracy_on_train_and_test(resolved: Callable[..., Run]) -> None:
    """attack=none on a linear model: the closed form stands on both sides of the gap."""
    overrides = ("data=gaussian", "data.d=64", "data.m=32", "model=linear", "attack=none", "eps=0.3")
    summary = train_pack([resolved(*overrides, "stop.steps=200")])[0]
    assert summary["train_clean_acc"] == 1
    assert summary["train_robust_acc"] == summary["train_robust_acc_exact"] < 0.5
    assert summary["gap_robust"] < 0.5


def test_not_separable_is_warned_of(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", heard.append)
    monkeypatch.setattr(logging.getLogger("robust_erm"), "handlers", [handler])
    train_pack([resolved("model=linear", "attack=exact", "eps=0.5", "stop.steps=2")])
    said = [record for record in heard if "is not below the training set's exact l_inf margin" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING"]


def bad(capsys: pytest.CaptureFixture[str], config: DictConfig) -> str:
    with pytest.raises(SystemExit) as caught:
        check_all([config], [""])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_folder_or_checkpoint_of_another_config(
    composed: Callable[..., DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = [f"run_dir={tmp_path}/run", "stop.steps=2"]
    run_one(composed(*mine))
    assert "belongs to another config" in bad(capsys, composed(*mine, "seed=1"))
    other = resolve(composed(f"run_dir={tmp_path}/other", "stop.steps=2", "seed=1"))
    train_pack([other])
    (tmp_path / "run" / "checkpoint.pt").write_bytes((tmp_path / "other" / "checkpoint.pt").read_bytes())
    (tmp_path / "run" / "summary.json").unlink()
    assert "checkpoint.pt: belongs to another config" in bad(capsys, composed(*mine))
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    assert "is damaged; train again with fresh=true" in bad(capsys, composed(*mine))
    assert run_one(composed(*mine, "fresh=true"))["step"] == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "holds other files" in bad(capsys, composed(f"run_dir={tmp_path}/full"))
    assert "is not a folder" in bad(capsys, composed(f"run_dir={tmp_path}/full/notes.txt/x"))
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_one_failure_takes_no_other_run_along(
    composed: Callable[..., DictConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened = RunFolder.open

    def fail(self: RunFolder) -> None:
        if self.run.seed == 1:
            raise OSError("the file server is away")
        opened(self)

    monkeypatch.setattr(RunFolder, "open", fail)
    configs = [composed(f"seed={seed}", "stop.steps=2") for seed in range(3)]
    outcome = run_sweep(configs, [[f"seed={seed}"] for seed in range(3)], tmp_path / "sweep", workers=0)
    assert [isinstance(result, dict) for _, result in outcome] == [True, False, True]
    assert "the file server is away" in capsys.readouterr().out
    monkeypatch.setattr(RunFolder, "open", opened)  # and what it left does not stand in the way of the next try
    again = run_sweep(configs, [[f"seed={seed}"] for seed in range(3)], tmp_path / "sweep", workers=0)
    assert all(isinstance(result, dict) for _, result in again)


def test_wandb_failure_stops_nothing(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def broken(**_: Any) -> None:
        raise RuntimeError("no W&B today")

    monkeypatch.setattr(wandb, "init", broken)
    run = resolved("logger=wandb", "stop.steps=2")
    assert train_pack([run])[0]["step"] == 2
    assert "no W&B today" in (folder_of(run) / "run.log").read_text()


def test_wandb_gets_every_measurement(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the SDK: one run for each run, its config, every row at its step, the final summary."""
    import wandb

    seen: list[Any] = []

    class Fake:
        def __init__(self, **settings: Any) -> None:
            self.settings, self.rows, self.summary, self.code = settings, {}, {}, None
            seen.append(self)

        def log(self, row: dict[str, float], step: int, commit: bool) -> None:
            self.rows[step] = row

        def finish(self, exit_code: int) -> None:
            self.code = exit_code

    monkeypatch.setattr(wandb, "init", Fake)
    runs = [resolved("logger=wandb", "stop.steps=20", f"eps={eps}", "logger.tags=[mine]") for eps in (0, 0.2)]
    summaries = train_pack(runs)
    assert [fake.settings["id"] for fake in seen] == [run.name for run in runs]
    for run, fake, summary in zip(runs, seen, summaries, strict=True):
        metrics = pd.read_parquet(folder_of(run) / "metrics.parquet")
        assert list(fake.rows) == metrics["step"].tolist()
        assert fake.rows[20]["test_robust_acc"] == summary["test_robust_acc"] == fake.summary["final/test_robust_acc"]
        assert fake.settings["config"]["eps"] == run.eps
        assert {"mine", "gd", "mlp", "digits"} <= set(fake.settings["tags"])
        assert fake.settings["group"] == "digits-mlp"
        assert fake.summary["status"] == "max_steps"
        assert fake.code == 0


def test_results_table(resolved: Callable[..., Run], tmp_path: Path) -> None:
    for overrides in (("optimizer=gd", "eps=0"), ("optimizer=sd", "eps=0.2"), ("optimizer=sd", "eps=0.1")):
        train_pack([resolved("stop.steps=2", *overrides)])
    frame = results.load(tmp_path / "outputs")
    assert len(frame) == 3
    assert set(frame["optimizer"]) == {"gd", "sd"}
    assert len(results.where(frame, ["optimizer=sd", "eps=0.2"])) == 1
    assert len(results.where(frame, ["optimizer.normalized=True"])) == 2
    curves = results.read_curves(frame)
    assert {"step", "test_robust_acc", "optimizer.r", "eps"} <= set(curves.columns)
    summary = json.loads(next(tmp_path.glob("outputs/*/summary.json")).read_text())
    assert {"status", "seconds", "device", "versions", "git", "pack_size"} <= set(summary)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "paths = nowhere: there is no such folder"),
        (["."], "no run has ended there yet"),
    ],
)
def test_results_refusals(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.chdir(tmp_path)
    assert results.main(arguments) == 2
    assert message in capsys.readouterr().err
