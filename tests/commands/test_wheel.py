"""The wheel holds all that the checkout has: configs, launcher plugin, console commands."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, a folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.turns(50)
def test_the_main_line_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = "import robust_erm.store.source as s; print(s.conf_dir())"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(installed / "robust_erm" / "conf")
    line = [sys.executable, "-m", "robust_erm.train", "-m", "optimizer=gd,sd", "eps=0,0.2", "stop.steps=1"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/*/summary.json"))) == 4
    line = [sys.executable, "-m", "robust_erm.page"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "page.html: 4 runs" in done.stdout


def test_console_commands(installed: Path) -> None:
    text = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "robust-erm-train = robust_erm.train:main" in text
    assert "robust-erm-results = robust_erm.results:command" in text
    assert "robust-erm-page = robust_erm.page:command" in text
    assert "robust-erm-workspace = robust_erm.workspace:command" in text
    from robust_erm import page, results
    from robust_erm.train import main

    assert callable(main)
    assert callable(results.command)
    assert callable(page.command)
