"""A folder made by hand to attack whoever opens it does nothing, under any command (SECURITY.md)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import Done, run
from results import LINE, QUIET, pretended_slurm
from results import copied as copied
from results import results as results

from robust_erm.store.files import Damaged
from robust_erm.store.trust import require_trusted

COMMAND = "touch RAN"
ESCAPE, MARKUP = "\x1b]0;owned\x07\x1b[31m", "[bold]a[/bold] [/nothing] [link=file:///etc/passwd]b[/link]"


class Payload:
    """Runs a shell line when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PICKLE_RAN",)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address, and what has been asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def changed(path: Path, *keys: str, to: Any) -> None:
    """Set one value in a YAML or JSON file."""
    content = yaml.safe_load(path.read_text())
    node = content
    for key in keys[:-1]:
        node = node[int(key) if isinstance(node, list) else key]
    node[keys[-1]] = to
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))


ATTACKS: dict[str, Callable[[Path, str], object]] = {
    "a module of the folder": lambda run, _: changed(run / "config.yaml", "data", to={"_target_": "evil.Data"}),
    "a module below it": lambda run, _: changed(run / "config.yaml", "model", to={"_target_": "outputs.evil.Model"}),
    "a command": lambda run, _: changed(
        run / "config.yaml", "data", to={"_target_": "os.system", "command": "touch RAN"}
    ),
    "a name that ours has imported": lambda run, _: changed(
        run / "config.yaml", "data", to={"_target_": "robust_erm.data.mnist.os.system", "command": COMMAND}
    ),
    "a schedule": lambda run, _: changed(run / "config.yaml", "optimizer", "schedule", to={"_target_": "evil.Data"}),
    "an attack beside": lambda run, _: changed(
        run / "config.yaml", "eval_attacks", to={"x": {"_target_": "evil.Data"}}
    ),
    "the environment, to a server": lambda run, url: changed(
        run / "config.yaml",
        "data",
        to={"_target_": "robust_erm.data.mnist.MNIST", "url": f"{url}/${{oc.env:SECRET}}", "cache": "x"},
    ),
    "a server": lambda run, url: changed(
        run / "config.yaml", "data", to={"_target_": "robust_erm.data.mnist.MNIST", "url": url, "cache": "x"}
    ),
    "an interpolation": lambda run, _: changed(run / "config.yaml", "data", "ties", to="${oc.env:SECRET}"),
    "a YAML tag": lambda run, _: (run / "config.yaml").write_text("!!python/object/apply:os.system ['touch RAN']"),
    "a pickle as checkpoint": lambda run, _: (run / "checkpoint.pt").write_bytes(pickle.dumps(Payload())),
    "a pickle as margins": lambda run, _: next(run.glob("evaluations/*.npz")).write_bytes(pickle.dumps(Payload())),
    "escapes": lambda run, _: (
        changed(run / "summary.json", "status", to="converged"),
        changed(run / "summary.json", "git", to=f"x{ESCAPE}"),
        changed(run / "config.yaml", "data", "ties", to=f"x{ESCAPE}{MARKUP}"),
        changed(run / "config.yaml", "names", "data", to=f"{ESCAPE}{MARKUP}"),
    ),
    "a status": lambda run, _: changed(run / "summary.json", "status", to=f"{ESCAPE}{MARKUP}"),
    "a log that is a link": lambda run, _: (
        (run / "run.log").unlink(),
        (run / "run.log").symlink_to(run.parents[1] / "victim"),
        (run / "summary.json").unlink(),
        (run / "checkpoint.pt").unlink(),
    ),
    "a summary that is a link": lambda run, _: (
        (run / "summary.json").unlink(),
        (run / "summary.json").symlink_to(run.parents[1] / "victim"),
    ),
    "html": lambda run, _: changed(run / "config.yaml", "data", "ties", to="</script><img src=x onerror=alert(1)>"),
}


def prepared(root: Path) -> dict[str, str]:
    """Modules in the way of an import, a file that a link points to, and the environment of the commands."""
    for place in (root, root / "outputs"):
        (place / "evil.py").write_text("open('RAN', 'w').close()\nData = Model = dict\n")
    (root / "victim").write_text("untouched\n")
    return pretended_slurm(root / "bin") | {"SECRET": "secret-value", "PYTHONPATH": str(root), "WANDB_MODE": "offline"}


def require_nothing_happened(root: Path, done: Done, asked: list[str]) -> None:
    assert not done.crashed, done.err
    assert done.status is not None
    assert "\x1b" not in done.out + done.err
    assert "secret-value" not in done.out + done.err
    assert not list(root.rglob("*RAN")), "somebody's code ran"
    assert not asked, "a stored address was asked"
    assert (root / "victim").read_text() == "untouched\n"


@pytest.mark.turns
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_trained_again_runs_nothing(
    copied: Callable[[], Path], server: tuple[str, list[str]], attack: str
) -> None:
    """A run's own folder has been changed; its line is typed again."""
    root, (url, asked) = copied(), server
    env = prepared(root)
    ATTACKS[attack](next(root.glob("outputs/*-s0-*")), url)
    require_nothing_happened(
        root, run("train", "-m", "seed=0,1", *LINE, *QUIET, "report=false", cwd=root, env=env), asked
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_foreign_run_trained_elsewhere_runs_nothing(
    copied: Callable[[], Path], server: tuple[str, list[str]], attack: str
) -> None:
    """Its config becomes a line of literals, or is refused in one."""
    root, (url, asked) = copied(), server
    env = prepared(root)
    folder = next(root.glob("outputs/*-s0-*"))
    before = (folder / "config.yaml").read_text()
    ATTACKS[attack](folder, url)
    changes = ["output_dir=elsewhere", "logger=none", "report=false", *QUIET[:1]]
    done = run("train", "--run", str(folder.relative_to(root)), *changes, cwd=root, env=env)
    require_nothing_happened(root, done, asked)
    if (folder / "config.yaml").read_text() != before:
        assert done.status == 2
        assert len(done.err.splitlines()) == 1
        assert not (root / "elsewhere").exists()
    else:
        assert [place.name for place in (root / "elsewhere").iterdir()] == [folder.name]


@pytest.mark.turns
def test_opening_foreign_folders_runs_nothing(copied: Callable[[], Path], server: tuple[str, list[str]]) -> None:
    """One tree with all of them, under every command that opens results; what is whole in it is shown."""
    root, (url, asked) = copied(), server
    env = prepared(root)
    whole = next(root.glob("outputs/*-s0-*"))
    for k, attack in enumerate(ATTACKS):
        shutil.copytree(whole, folder := root / "outputs" / f"foreign-{k}")
        ATTACKS[attack](folder, url)
    (sweep,) = [p.parent.parent.relative_to(root) for p in root.glob("outputs/sweeps/*/slurm/sweep.json")]
    lines = [
        *("results outputs", "page outputs", "results outputs --csv x.csv --parquet x.parquet", "gallery gallery"),
        "evaluate outputs attack=apgd apgd.steps=5 points=10 fresh=true stale=keep",
        *(f"slurm {verb} {sweep}" for verb in ("status", "collect", "watch", "resume", "cancel")),
    ]
    for line in lines:
        done = run(*line.split(), cwd=root, env=env)
        require_nothing_happened(root, done, asked)
        if line.startswith("results"):
            assert whole.name in done.out
    for page in root.glob("**/*.html"):
        assert "<img src=x" not in page.read_text()


def test_a_foreign_submission_is_shown_and_asked_for(copied: Callable[[], Path]) -> None:
    """Shell lines of a stored submission, and pickles beside it."""
    root = copied()
    (place,) = root.glob("outputs/sweeps/*/slurm/1")
    changed(place / "submission.json", "settings", "setup", to=["touch SETUP_RAN"])
    (place / "12_0_submitted.pkl").write_bytes(pickle.dumps(Payload()))
    env = pretended_slurm(root / "bin")
    sweep = str(place.parents[1].relative_to(root))
    done = run("slurm", "resume", sweep, cwd=root, env=env)
    assert done.status == 2
    assert "touch SETUP_RAN" in done.out + done.err
    assert "--yes" in done.out + done.err
    assert len(list(place.parent.glob("[0-9]*"))) == 1, "nothing was submitted"
    done = run("slurm", "resume", sweep, "--yes", cwd=root, env=env)
    assert done.status == 0, done.err
    assert not list(root.rglob("*_RAN"))


def test_files_of_another_user_are_not_submitted(copied: Callable[[], Path]) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    root = copied()
    (place,) = root.glob("outputs/sweeps/*/slurm/1")
    os.chown(place / "task-0.json", 12345, 12345)
    done = run(
        "slurm", "resume", str(place.parents[1].relative_to(root)), "--yes", cwd=root, env=pretended_slurm(root / "bin")
    )
    assert done.status == 2
    assert "another user" in done.err


def test_components_of_ones_own_are_built_where_trusted(copied: Callable[[], Path]) -> None:
    """By the name of their module; what is not named stays refused."""
    root = copied()
    (root / "mine.py").write_text(
        "from robust_erm.data.gaussian import Gaussian\n\n\nclass Own(Gaussian):\n    '''Mine.'''\n"
    )
    (folder,) = root.glob("outputs/*-s0-*")
    changed(folder / "config.yaml", "data", "_target_", to="mine.Own")
    line = [str(folder.relative_to(root)), "attack=apgd", "apgd.steps=5", "points=10", "fresh=true", "stale=keep"]
    env = {"PYTHONPATH": str(root)}
    assert "trust=mine" in run("evaluate", *line, cwd=root).err
    assert "trust=mine" in run("evaluate", *line, "trust=min", cwd=root).err
    import_it = run("evaluate", *line, "trust=mine", cwd=root, env=env)
    assert "names the component" not in import_it.err


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "robust_erm", "robust_erm.data", "robust_erm.data.mnist.os.system", "robust_erm.train.main"),
        *(
            "robust_erm.data.mnist.MNIST.draw",
            "robust_erm_data.evil.Data",
            "robust_erm.data..evil.X",
            "robust_erm.data.é.X",
        ),
        *("robust_ermx.data.mnist.MNIST", "", " robust_erm.data.mnist.MNIST", "robust_erm.data.mnist.MNIST\n", 3, None),
    ],
)
def test_what_is_not_ours_is_refused_by_its_text(target: Any, tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        require_trusted({"data": [{"_target_": target}]}, tmp_path)
    require_trusted({"data": {"_target_": "robust_erm.data.mnist.MNIST"}}, tmp_path)
