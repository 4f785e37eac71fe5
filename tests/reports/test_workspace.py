"""The W&B workspace: its spec against the package's schema and against what runs really send."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from robust_erm import workspace
from robust_erm.core.errors import ConfigError
from robust_erm.reports import workspace as views

pytest.importorskip("wandb_workspaces")


def test_spec_is_written_and_every_key_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert workspace.main(["--entity", "me", "--out", str(tmp_path / "spec.json")]) == 0
    assert "all of which runs send" in capsys.readouterr().out
    section = json.loads((tmp_path / "spec.json").read_text())["section"]
    assert [key["name"] for key in section["runSets"][0]["grouping"]] == [
        "optimizer.value.name",
        "eps.value",
        "data.value.m",
    ]
    names = [part["name"] for part in section["panelBankConfig"]["sections"]]
    assert names == ["robust accuracy", "margins", "generalization gap", "status"]
    keys = set(views.keys_of(section))
    expected = {("history", "test_robust_acc"), ("history", "margin_robust_linf"), ("config", "data.m")}
    assert expected | {("config", "eps"), ("summary", "final/gap_robust"), ("summary", "status")} <= keys


def test_a_key_that_no_run_sends_is_refused() -> None:
    """Each kind of key, where each is named: the axes, the lines, the grouping, the columns."""
    spec = views.spec_of(views.build("me", "mine"))
    known = set(views.keys_of(spec))
    views.check(spec, known)
    assert {kind for kind, _ in known} == {"history", "config", "summary"}
    for key in known:
        with pytest.raises(ConfigError, match="no run sends it"):
            views.check(spec, known - {key})


def test_saving_needs_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    monkeypatch.setattr(wandb, "login", lambda prompt: prompt)
    monkeypatch.setattr(workspace, "check", lambda *_: None)
    monkeypatch.setattr(workspace, "sent", set)
    assert workspace.main(["--save", "--out", str(tmp_path / "spec.json")]) == 2
    assert "not logged in: run `wandb login`" in capsys.readouterr().err


def test_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert workspace.main(["--out", str(tmp_path / "spec.json")]) == 2
    assert "pip install 'robust-erm[workspace]'" in capsys.readouterr().err
