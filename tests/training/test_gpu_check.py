"""The script for a GPU: its parts at tiny sizes on a CPU, and what it says of a part that fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_check
import gpu_parts
import pytest
from recipes import recipes

SCRIPT = Path(gpu_check.__file__)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.turns(110)
def test_on_a_cpu_a_run_alone_has_the_bits_of_a_pack(tmp_path: Path) -> None:
    """Of every recipe; and twice, and resumed half-way."""
    done = run("--device", "cpu", "--only", "bits", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    of_bits = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["what"] for row in of_bits] == list(recipes())
    assert all(row["ok"] and row["halves"] == 0 for row in of_bits)
    assert "PASS  bits" in done.stdout
    page = (tmp_path / "gpu.md").read_text()
    assert "PASS  bits" in page
    assert all(f"| {row['what']} |" in page for row in of_bits)


def test_a_part_without_end_and_one_that_dies_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = []
    gpu_check.taken("correct", "cpu", True, 0.2, found, tmp_path / "gpu.json")
    gpu_check.taken("correct", "no_such_device", True, 60, found, tmp_path / "gpu.json")
    assert [row["ok"] for row in found] == [False, False]
    assert found[0]["says"] == "took longer than 0 s"
    assert "no_such_device" in found[1]["says"]
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
    assert gpu_check.summary(found)[0].startswith("FAIL  correct")


def test_sizes_of_papers_are_lines(tmp_path: Path) -> None:
    for line, _ in gpu_parts.SIZES.values():
        (run_,) = gpu_parts.composed(line, str(tmp_path), 1)
        assert run_.steps == 1_000_000


def test_without_a_gpu_it_says_so() -> None:
    done = run("--only", "nonsense", "--device", "cpu")
    assert done.returncode == 2
    assert "must be of environment, correct" in done.stderr
