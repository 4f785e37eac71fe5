"""Classes by their dotted paths: what is said where one cannot be had, and from where console commands find them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from robust_erm.models.mlp import MLP
from robust_erm.store.imports import imported


def test_a_class_is_found() -> None:
    assert imported("robust_erm.models.mlp.MLP") is MLP


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        ("x = 1", "mine_none.X", r"there is no module mine_none, neither in .* nor installed"),
        ("class Mine: ...", "mine_a.Mien", r"^mine_a has no Mien \(did you mean Mine\?\)$"),
        (
            "y = 1\nimport no_such_library",
            "mine_b.X",
            r"^ModuleNotFoundError: .*_library.* \(mine_b.py, line 2\)$",
        ),
        ("y = 1\n\ny.z", "mine_c.X", r"^AttributeError: .* \(mine_c.py, line 3\)$"),
        ("def f(:", "mine_d.X", r"^SyntaxError: .* \(mine_d.py, line 1\)$"),
        ("", "X", "must be a class by its dotted path"),
        ("", "a..b", "must be a class by its dotted path"),
    ],
)
def test_why_a_class_cannot_be_had(
    text: str, target: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"mine_{target[5:6] or 'x'}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=says) as caught:
        imported(target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", ["evaluation.folders", "evaluation.file", "results", "page", "workspace", "gallery"])
def test_who_trains_nothing_does_not_wait_for_what_trains(module: str) -> None:
    """Lightning and torch's compiler take longer to import than all else together."""
    asked = f"import sys, robust_erm.{module}; print(*({{'lightning', 'torch._dynamo'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


CONSOLE = [str(Path(sys.executable).with_name("robust-erm-train"))]


@pytest.mark.turns
@pytest.mark.parametrize("command", [CONSOLE, [sys.executable, "-m", "robust_erm.train"]], ids=["console", "-m"])
def test_components_of_the_working_directory(command: list[str], tmp_path: Path) -> None:
    """Console commands find them too, and their workers."""
    (tmp_path / "parts.py").write_text(
        "from dataclasses import dataclass\n"
        "from robust_erm.models.linear import Linear\n\n"
        "@dataclass(frozen=True)\nclass Mine(Linear):\n    extra: float = 1.0\n"
    )
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "mine.yaml").write_text("_target_: parts.Mine\n")
    options = ["data=gaussian", "data.d=4", "data.m=3", "attack=exact", "stop.steps=3", "logger=none"]
    line = [*command, "-m", "--config-dir", "mine", "model=mine", "seed=0,1", "hydra.launcher.workers=2", *options]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs").glob("gaussian-mine-*"))) == 2
