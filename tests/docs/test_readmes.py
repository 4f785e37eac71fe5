"""Every example of every README is run, or says why not; every link leads somewhere.

Training lines are cut short (SHORT), evaluations are of FEW points or by WEAK attacks; everything else is run as it
stands, each README in a folder of its own. Plain lines of the commands are run in a fork (:mod:`forked`), the rest by
bash and Python.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from robust_erm.results import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for path in sorted(ROOT.rglob("README.md"))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    and path.parent.parent != ROOT / "outputs" / "gallery"  # made by a command, which has tests
]
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)\n```", re.DOTALL)
SHORT, FEW = "stop.steps=3", "points=10 square.queries=50"
WEAK = "re.evaluate(net, x, y, ", "re.evaluate(net, x, y, square={'queries': 50}, apgd={'steps': 10, 'restarts': 1}, "
PLAIN = re.compile(rf"^python -m robust_erm\.({'|'.join(forked.COMMANDS)}) ([^|;&<>$`*?~#]*(?:#.*)?)$")
ASIDE = {"make run": "tests/commands does", "make test": "is what runs this"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(path.read_text()))


def lines(text: str) -> str:
    """A block of shell as it is run: cut short, what has been run elsewhere left out."""
    joined = text.replace("\\\n", " ")
    kept = [line for line in joined.splitlines() if not line.strip().startswith(tuple(ASIDE))]
    train = re.compile(r"^(python -m robust_erm\.train (?!.*(?:--help|--cfg|dry_run)).*?)( +#.*)?$")
    evaluate = re.compile(r"^(python -m robust_erm\.evaluate (?!.*(?:--help|points=)).*?)( +#.*)?$")
    short = [evaluate.sub(rf"\1 {FEW}\2", train.sub(rf"\1 {SHORT}\2", line)) for line in kept]
    return "\n".join(short)


FIRST = ROOT / "README.md"  # the others take turns, those of many examples so many seconds
LONG = {"robust_erm": 180, "outputs": 155, "robust_erm/evaluation": 130, "launch": 70}


def turns(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.turns(LONG.get(path.parent.relative_to(ROOT).as_posix(), 30))


@pytest.mark.parametrize("path", [pytest.param(p, marks=() if p == FIRST else turns(p)) for p in PAGES], ids=name)
def test_the_examples_run(path: Path, tmp_path: Path) -> None:
    python = Path(sys.executable).parent
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(python)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    path_ = f"{python}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path_, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    for block in blocks(path):
        if block["why"] is not None or block["language"] not in ("sh", "python"):
            continue
        if "pytest" in block["text"] or "benchmarks" in block["text"]:
            continue  # this very suite
        text = lines(block["text"])
        plain = [PLAIN.match(line) for line in text.splitlines() if line.strip()]
        if block["language"] == "sh" and all(plain):
            for line in filter(None, plain):
                ran = forked.run(line[1], *shlex.split(line[2], comments=True), cwd=tmp_path, seconds=600)
                assert ran.status == 0, f"{line[0]}\n{ran.out}\n{ran.err}"
            continue
        command = ["bash", "-euo", "pipefail", "-c", text]
        if block["language"] == "python":
            command = [sys.executable, "-c", block["text"].replace(*WEAK)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block['text']}\n{done.stdout}\n{done.stderr}"


@pytest.mark.turns(100)
def test_the_tables_are_what_the_commands_print(tmp_path: Path) -> None:
    """The front page's table of the sweep, and the evaluation's, in full; other processors move a last digit."""
    for line in ("train -m optimizer=gd,sd eps=0,0.1,0.2", "evaluate"):
        command = [sys.executable, "-m", *f"robust_erm.{line}".split()]
        if line == "evaluate":
            command += map(str, (tmp_path / "outputs").glob("*-eps0.1-*"))
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    frame = load(tmp_path / "outputs").set_index(["optimizer", "eps"])

    def close(shown: str, value: float, most: float) -> None:
        assert float(re.sub("[*,% ]", "", shown)) == pytest.approx(value, abs=most), shown

    front = re.findall(r"^\| (gd|sd) \| (\S+) *\|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(front) == 4
    for optimizer, eps, rest in front:
        run, cells = frame.loc[(optimizer, float(eps))], rest.split("|")
        close(cells[0], run["step"], 0.02 * run["step"])
        for cell, column in zip(cells[1:4], ("train_robust_acc", "test_clean_acc", "test_robust_acc"), strict=True):
            close(cell, 100 * run[column], 0.7)
        for cell, column in zip(cells[4:], ("margin_robust_l2", "margin_robust_linf"), strict=True):
            close(cell, run[column], 0.05 * run[column] + 0.0005)
    page = (ROOT / "robust_erm" / "evaluation" / "README.md").read_text()
    shown = re.findall(r"^(gd|sd) +│ (\S+) │ 1 +│(.*)│ +0$", page, re.MULTILINE)
    assert len(shown) == 2
    for optimizer, eps, rest in shown:
        run = frame.loc[(optimizer, float(eps))]
        for cell, column in zip(rest.split("│"), ("clean", "after_train", "certified", "attacked"), strict=True):
            close(cell, 100 * run[f"evaluated.auto.test_{column}"], 0.7)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_what_is_not_run_says_why(path: Path) -> None:
    for block in blocks(path):
        assert block["why"] is None or len(block["why"]) > 10
        assert block["language"] in ("sh", "python", ""), "is it an example? then it is run"


@pytest.mark.parametrize("path", [*PAGES, *sorted((ROOT / "outputs" / "gallery").glob("*/README.md"))], ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor:
            said = (there / "README.md" if there.is_dir() else there).read_text()
            titles = re.findall(r"^#+ (.*)$", said, re.MULTILINE)
            headings = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in headings or f'<a id="{anchor}"></a>' in said, target


def test_every_picture_has_a_caption() -> None:
    """In the pages that people write: the line below a picture says what is to be seen."""
    for path in PAGES:
        for picture in re.finditer(r"^!\[[^\]]*\]\([^)]*\)\n\n(.*)", path.read_text(), re.M):
            assert picture[1].startswith("*"), f"{name(path)}: {picture[0]}"


def test_the_front_page_has_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100
