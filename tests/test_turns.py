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
        assert f"{12 - len(found)} tests were left to the turns of other commits" in said
        runs.append(set(found) - {"test_always"})
        assert len([name for name in found if name.startswith("test_many")]) in (
            10 // turns.TURNS,
            10 // turns.TURNS + 1,
        )
    assert sum(map(len, runs)) == len(set.union(*runs)) == 11
    assert len(collected(tmp_path, "all")[0]) == 12
