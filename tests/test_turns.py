"""Over all turns every test is run, and each run says what it leaves to others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import turns

ROOT = Path(__file__).resolve().parents[1]
SOME = """
import pytest
@pytest.mark.turns
@pytest.mark.parametrize("k", range(10))
def test_many(k): pass
@pytest.mark.turns
def test_one(): pass
@pytest.mark.turns
@pytest.mark.parametrize("k", [pytest.param(k, marks=pytest.mark.turns(60)) for k in range(2)])
def test_long(k): pass
def test_always(): pass
"""


def collected(folder: Path, text: str) -> tuple[list[str], str]:
    line = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "turns", "--turn", text]
    line += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), str(folder)]
    done = subprocess.run(line, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"::(\S+) PASSED", done.stdout), done.stdout


def test_each_turn_is_another_and_all_are_everything(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SOME)
    texts: dict[int, str] = {}
    for k in range(100):
        texts.setdefault(turns.crc32(str(k).encode()) % turns.TURNS, str(k))
    assert len(texts) == turns.TURNS
    runs = []
    for text in texts.values():
        found, said = collected(tmp_path, text)
        assert "test_always" in found
        assert f"{14 - len(found)} tests were left to the turns of other commits" in said
        runs.append(sorted(set(found) - {"test_always"}))
    assert sum(map(len, runs)) == len(set().union(*runs)) == 13
    assert [run for run in runs if "test_long[0]" in run] == [["test_long[0]"]]  # as long as three of the others
    assert sorted(map(len, runs)) == [1, 1, 2, 3, 3, 3]
    assert len(collected(tmp_path, "all")[0]) == 14
