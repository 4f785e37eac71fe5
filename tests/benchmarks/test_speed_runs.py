"""The benchmark runs from end to end at tiny sizes; what it measures is read, not asserted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.turns(60)
def test_schedules_give_a_row_for_each_optimizer(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    line = [sys.executable, str(HERE / "schedules.py"), "--only", "gd", "muon", "--quick"]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert [row.split(":")[0] for row in rows] == ["| gd", "| muon"]
    assert all(row.count("|") == 9 for row in rows)


@pytest.mark.turns(190)
def test_every_benchmark_gives_its_rows(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    line = [sys.executable, str(HERE / "speed.py"), "--quick", "--out", str(tmp_path / "table.md")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 2 + 5 + 1 + 2 + 7 + 8 + 1 + 1 + 1 + 1 + 1 + 1
    assert all(row.count("|") == 4 for row in table)
