"""``train --run <folder>``: the line that gives a stored run, and what changes of it do."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.errors import HydraException
from shell import command, folders

from robust_erm.core.errors import ConfigError
from robust_erm.data.arrays import Arrays
from robust_erm.data.mnist import MIRROR, MNIST
from robust_erm.store.config import Named, Run
from robust_erm.store.identity import as_data
from robust_erm.store.run_folder import RunFolder, folder_of
from robust_erm.store.trust import VARIABLE
from robust_erm.sweeps.lines import FLAG, folder_asked
from robust_erm.sweeps.overrides import as_typed, changed, line_of
from robust_erm.sweeps.stored import stored

LINEAR = ["data=gaussian", "data.d=16", "data.m=8", "model=linear", "attack=exact", "stop.steps=3"]
RECIPES = {
    "default": [],
    "linear": [*LINEAR, "optimizer=cd", "eps=0.25", "eps_unit=margin"],
    "experiment": ["experiment=tsilivis2024/linear", "data.d=32", "data.k_w=4", "seed=3"],
    "images": ["dtype=float32", "stop.steps=7", "data.classes=[3,8]", "data.sample=first", "stop.loss=null"],
    "net": ["optimizer=sd", "model.width=8", "model.bias=first", "eps=1e-5", "p=2", "eval_eps=0.3"],
    "own p": ["p=1.5", "attack=none", "optimizer=steepest", "optimizer.r=1.25", "stop.loss=null", "stop.log_loss=-800"],
    "margins": [
        *(
            "measure=[per_attack,kkt]",
            "measure.kkt.slack=0.1",
            "batch.size=16",
            "batch.drop_last=true",
            "stop.epochs=2",
        ),
        *("+attack@eval_attacks.strong=pgd_strong", "eval_attacks.strong.steps=3", "+attack@eval_attacks.none=none"),
        *(
            "model.widths=[8,4]",
            "objective=logistic",
            "optimizer/schedule=constant",
            "optimizer.schedule.lr=1e-5",
            "measure_every=5",
        ),
    ],
    "factors": [
        *(
            "optimizer=muon",
            "optimizer/accumulator=lion",
            "optimizer.accumulator.beta1=0.5",
            "optimizer.normalized=false",
        ),
        *("optimizer/geometry=layers", "optimizer.geometry.r=1.5", "optimizer.schedule.a=0.25"),
    ],
    "schedule": [
        "optimizer=sd",
        "optimizer.normalized=false",
        "optimizer/schedule=inverse_loss",
        "snapshots=true",
        "measure_per_decade=3",
    ],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_line_gives_the_run(resolved: Callable[..., Run], recipe: str) -> None:
    run = resolved(*RECIPES[recipe])
    line = line_of(run)
    assert resolved(*line).id == run.id
    assert not any(o.startswith(("output_dir", "trainer", "logger", "fresh", "data.folder")) for o in line)
    for left_out in line:
        with suppress(ConfigError, HydraException):  # an option of what is not there
            assert resolved(*(o for o in line if o != left_out)).id != run.id, "it is not needed"


def test_the_line_is_short(resolved: Callable[..., Run]) -> None:
    """The defaults are left out, and what follows another option with them (k_w and k_x follow d)."""
    assert line_of(resolved()) == []
    assert line_of(resolved(*LINEAR)) == [
        *("data=gaussian", "model=linear", "attack=exact", "data.d=16", "data.m=8", "stop.steps=3")
    ]


def test_a_group_brings_its_own_defaults_and_other_keys_stay(resolved: Callable[..., Run]) -> None:
    run = resolved(*LINEAR, "optimizer=cd", "optimizer/schedule=constant", "optimizer.schedule.lr=0.5", "eps=0.3")
    line = line_of(run)
    assert {"optimizer=cd", "optimizer/schedule=constant", "optimizer.schedule.lr=0.5"} <= set(line)
    assert resolved(*changed(line, ["optimizer=sd"])) == resolved(*LINEAR, "eps=0.3", "optimizer=sd")
    kept = resolved(*changed(line, ["optimizer/schedule=bounded_loss"]))
    assert kept == resolved(*LINEAR, "eps=0.3", "optimizer=cd", "optimizer/schedule=bounded_loss")
    assert resolved(*changed(line, ["eps=0.1", "data.d=24"])).data == resolved(*LINEAR, "data.d=24").data
    assert [o for o in changed(line, ["eps=0.1"]) if o.startswith("eps")] == ["eps=0.1"]


def test_measures_and_attacks_are_replaced_by_name(resolved: Callable[..., Run]) -> None:
    given = ["measure=[kkt]", "measure.kkt.slack=0.1", "+attack@eval_attacks.a=pgd", "eval_attacks.a.steps=3"]
    line = line_of(resolved(*LINEAR, *given))
    assert resolved(*changed(line, ["measure=[per_attack]"])).measure == resolved("measure=[per_attack]").measure
    other = resolved(*changed(line, ["+attack@eval_attacks.a=apgd"]))
    assert other.eval_attacks == resolved("+attack@eval_attacks.a=apgd").eval_attacks
    assert resolved(*changed(line, ["~eval_attacks.a", "~measure.kkt"])).id == resolved(*LINEAR).id


def test_a_component_of_ones_own_needs_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written out by its class; only where the user trusts its module."""
    (tmp_path / "parts.py").write_text(
        "from dataclasses import dataclass\nfrom robust_erm.optimizers.steepest import Steepest\n"
        "@dataclass(frozen=True)\nclass Twice(Steepest):\n    note: str = 'x y'\n"
    )
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "twice.yaml").write_text(
        "defaults: [{schedule: constant}, _self_]\n_target_: parts.Twice\nnote: a b\n"
    )
    rest = ["logger=none", "report=false", "trainer.progress=false"]
    first = command("--config-dir", "mine", "optimizer=twice", *LINEAR, *rest, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (folder,) = folders(tmp_path)
    untrusted = command(FLAG, f"outputs/{folder.name}", *rest, cwd=tmp_path)
    assert untrusted.returncode == 2
    assert "trust=parts" in untrusted.stderr
    again = command(FLAG, f"outputs/{folder.name}", "trust=parts", *rest, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "1 of 1 runs were there already" in again.stderr
    assert folders(tmp_path) == [folder]
    assert VARIABLE not in again.stderr


@pytest.fixture
def run_there(resolved: Callable[..., Run], tmp_path: Path) -> Path:
    """The folder of a run that has not been trained."""
    run = resolved(*LINEAR)
    folder_of(run).mkdir(parents=True)
    RunFolder(run).open()
    return folder_of(run)


def test_as_typed(tmp_path: Path) -> None:
    """Found on disk; elsewhere with its own bytes; changed, and as a sweep; by the line that it says."""
    rest = ["logger=none", "report=false", "trainer.progress=false"]
    assert command(*LINEAR, *rest, cwd=tmp_path).returncode == 0
    (folder,) = folders(tmp_path)
    found = command(FLAG, f"outputs/{folder.name}", *rest, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "1 of 1 runs were there already" in found.stderr
    assert folders(tmp_path) == [folder]

    there = command(f"{FLAG}=outputs/{folder.name}", "output_dir=there", *rest, cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    file = "metrics.parquet"
    assert (tmp_path / "there" / folder.name / file).read_bytes() == (folder / file).read_bytes()

    sweep = command("-m", FLAG, f"outputs/{folder.name}", "seed=0,1", "eps=0.1", *rest, cwd=tmp_path)
    assert sweep.returncode == 0, sweep.stderr
    assert len(folders(tmp_path)) == 3, "eps is another"
    said = re.search(r"^as: python -m robust_erm.train -m (.*)$", sweep.stderr, re.MULTILINE)
    assert said is not None
    again = command("-m", *said[1].split(), cwd=tmp_path)
    assert "2 of 2 runs were there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([FLAG], "takes the folder of one run"),
        ([FLAG, "outputs/nothing"], "has no config.yaml"),
        ([FLAG, "outputs", "eps=0.1"], "has no config.yaml"),
        ([FLAG, "eps=0.1"], "has no config.yaml"),
        ([FLAG, "a", FLAG, "b"], "takes the folder of one run"),
        ([FLAG, "there", "experiment=tsilivis2024/linear"], "has no effect beside --run"),
        ([FLAG, "there", "there", "eps=0.1"], "a pattern may match several"),
        ([FLAG, "there", "--nonsense"], "unrecognized arguments: --nonsense"),
        ([FLAG, "there", "epss=0.1"], "did you mean eps?"),
        ([FLAG, "there", "eps=-1"], "must be finite and 0 or more"),
    ],
)
def test_refusals_are_one_line(run_there: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    run_there.rename(tmp_path / "there")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if not one.startswith("as: ")]
    assert says in line
    assert not (tmp_path / "outputs" / "sweeps").exists()


def test_the_flag_is_found_anywhere() -> None:
    assert folder_asked(["-m", FLAG, "x", "seed=0,1"]) == ("x", ["-m", "seed=0,1"])
    assert folder_asked([f"{FLAG}=x=y", "a=1"]) == ("x=y", ["a=1"])
    assert folder_asked(["--runs", "a=1"]) == (None, ["--runs", "a=1"])


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = yaml.safe_load((folder / "config.yaml").read_text())
    edit(content)
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c.pop("eps_unit"), "it has no eps_unit"),
        (lambda c: c["data"].pop("m"), r"it has no data\.m|data\.m = \?\?\?"),
        (lambda c: (c["data"].pop("ties"), c.update(id="0123456789")), r"it has no data\.ties"),
        (lambda c: c["optimizer"].update(beta=1), r"optimizer\.beta = 1: unknown option"),
        (lambda c: c.update(wings=2), "wings = 2: unknown option"),
        (lambda c: c.update(seed=5), "is not what its id .* names: it was changed since"),
        (lambda c: c["data"].update(ties="${oc.env:HOME}"), "holds an interpolation"),
        (lambda c: c.update(data={"_target_": "os.system", "command": "touch RAN"}), "names the component 'os.system'"),
        (lambda c: c.update(eval_attacks={"a=1 b": {**c["attack"]}}), "is not what its id|is no name"),
    ],
)
def test_a_config_that_is_not_todays_is_refused_by_name(
    run_there: Path, edit: Callable[[dict[str, Any]], object], says: str
) -> None:
    edited(run_there, edit)
    with pytest.raises(ConfigError, match=says):
        stored(str(run_there), ())


def test_data_may_lie_elsewhere(resolved: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not here is replaced on the line; where MNIST lies is this machine's, not the folder's."""
    rng = np.random.default_rng(0)
    for name in ("old.npz", "new.npz"):
        np.savez(tmp_path / name, x=rng.standard_normal((20, 4)), y=np.arange(20) % 2)
    run = resolved("data=arrays", f"data.file={tmp_path}/old.npz", "model=linear", "attack=exact")
    folder_of(run).mkdir(parents=True)
    RunFolder(run).open()
    (tmp_path / "old.npz").unlink()
    line = line_of(stored(str(folder_of(run)), ()))
    changes = [f"data.file={tmp_path}/new.npz"]
    assert resolved(*changed(line, changes)).data.file == f"{tmp_path}/new.npz"
    with pytest.raises(ConfigError, match="is no file"):
        resolved(*line)

    monkeypatch.setenv("ROBUST_ERM_MNIST", str(tmp_path))
    edited(folder_of(run), lambda c: c.update(data={**as_data(MNIST(m=3)), "folder": "/nowhere", "url": "http://evil"}))
    edited(folder_of(run), lambda c: c.update(id=dataclasses.replace(Named(**options(run)), data=MNIST(m=3)).id))
    there = stored(str(folder_of(run)), ())
    assert (there.data.folder, there.data.url) == (None, MIRROR)
    assert line_of(there) == ["data=mnist", "model=linear", "attack=exact", "data.m=3"]


def options(run: Run) -> dict[str, Any]:
    return {f.name: getattr(run, f.name) for f in dataclasses.fields(run)}


@pytest.mark.turns
def test_names_and_texts_are_literals(resolved: Callable[..., Run], tmp_path: Path) -> None:
    """What a hostile config can say of itself stays a value, or is refused."""
    file = tmp_path / "a' b=$(touch RAN),[c]{d:e}#\\'.npz"
    np.savez(file, x=np.eye(6), y=np.array(["null", "2", "x"] * 2))
    run = resolved("data=digits")
    arrays = Arrays(file=str(file), classes=("null", "2", "x"), domain=(0.0, 1.0))
    run = dataclasses.replace(run, data=arrays, objective=resolved("objective=cross_entropy").objective)
    assert resolved(*line_of(run)) == dataclasses.replace(run, measure={})
    said = as_typed([], line_of(run))
    assert shlex.split(said)[3:] == line_of(run), "a shell takes it as it is"
    for name in ("a=1", "a.b", "a b", "\xe9", ""):
        with pytest.raises(ConfigError, match="is no name"):
            line_of(dataclasses.replace(run, eval_attacks={name: run.attack}))
    with pytest.raises(ConfigError, match="is no text"):
        line_of(Named(**{**options(run), "data": dataclasses.replace(arrays, labels="a\x1b[31m")}))
