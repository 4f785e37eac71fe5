"""Measures: each number by hand, and what a measure of one's own may do."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import make_runs, separable, train
from pyarrow import parquet
from shell import command

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.errors import ConfigError
from robust_erm.core.norms import Norm
from robust_erm.measures.alignment import Alignment
from robust_erm.measures.kkt import KKTResidual
from robust_erm.measures.nearest import Nearest
from robust_erm.measures.on_margin import OnMargin
from robust_erm.measures.per_attack import PerAttack
from robust_erm.measures.universal import Universal
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.optimizers.steepest import Steepest
from robust_erm.oracles.boundary import across, nearest
from robust_erm.oracles.kkt import in_span, kkt, pooled
from robust_erm.oracles.rays import flips
from robust_erm.results import snapshots
from robust_erm.schedules.relative import Relative
from robust_erm.store import fingerprint
from robust_erm.store.config import Batches, Run
from robust_erm.store.reading import read_config, run_of
from robust_erm.store.run_folder import folder_of
from robust_erm.training import contracts
from robust_erm.training.attacked import attacked, attacked_points, clean
from robust_erm.training.callbacks import Interrupted
from robust_erm.training.measure import KEPT, STANDARD, Evaluation, Row, measure
from robust_erm.training.order import order_of
from robust_erm.training.pack import train_pack
from robust_erm.training.runs import Runs

X, Y = separable(14, 5)
FLOW = Steepest(Relative())


def nets(steps: int = 60, attack: Any = None, **options: Any) -> Runs:
    model = options.pop("model", MLP(width=6, init_scale=1.0))
    given = {"model": model, "optimizer": FLOW, "attack": attack or PGD(2.0), "seeds": [0, 1, 2], **options}
    return train(make_runs(X, Y, [0.0, 0.05, 0.1], steps=steps, **given))


def taken(runs: Runs, one: Any, **attacks: Any) -> list[Row]:
    evaluation = Evaluation(runs.train, [None] * len(runs.eps), attacks, runs.eps, {"one": one})
    return measure(runs, evaluation, torch.arange(len(runs.eps)), "after")


def test_margins_and_losses_of_each_attack_alone() -> None:
    runs, weak = nets(), FGM(2.0)
    rows, alone = torch.arange(3), taken(nets(), PerAttack())
    both = taken(runs, PerAttack(), weak=weak)
    for name, attack in (("train", runs.recipe.attack), ("weak", weak), ("clean", NoAttack(2.0))):
        q = attacked(runs, attack, runs.train, runs.eps, rows)
        for k in range(3):
            expected, theta = float(q[k].min()), runs.theta[k]
            assert both[k][f"margin_under_{name}"] == pytest.approx(expected, rel=1e-12)
            assert both[k][f"margin_under_{name}_l2"] == pytest.approx(expected / float(theta.norm()) ** 2, rel=1e-12)
            loss = float(torch.logsumexp(-q[k], 0))  # exponential, summed
            assert both[k][f"log_loss_under_{name}"] == pytest.approx(loss, rel=1e-10)
    for k in range(3):
        assert {name: both[k][name] for name in alone[k]} == alone[k], "another attack moves nothing"
        assert both[k]["log_loss_under_train"] == pytest.approx(float(runs.log_losses(rows)[k]), rel=1e-10)


def test_points_on_the_margin_by_hand() -> None:
    runs = nets(400)
    q = clean(runs, runs.train, torch.arange(3)).numpy()
    for k, row in enumerate(taken(runs, OnMargin(slack=0.5))):
        near = q[k] <= 1.5 * q[k].min()
        assert row["on_margin_count"] == near.sum() >= 2
        assert row["on_margin_share"] == pytest.approx(near.mean())
        assert row["on_margin_spread"] == pytest.approx(q[k].max() / q[k].min())
    with pytest.raises(ConfigError, match="one of clean, worst, train"):
        taken(runs, OnMargin(attack="pdg"))
    assert all(math.isnan(v) for v in taken(nets(0), OnMargin())[0].values()), "no margin, nobody is on it"


def test_alignment_by_hand() -> None:
    runs = nets(30, model=MLP(depth=3, width=6, init_scale=1.0), attack=NoAttack(2.0))
    for k, row in enumerate(taken(runs, Alignment())):
        params = {n: p.clone().requires_grad_() for n, p in runs.recipe.layout.unflatten(runs.theta[k]).items()}
        loss = torch.logsumexp(-torch.as_tensor(Y) * runs.recipe.model.apply(params, torch.as_tensor(X)), 0)
        slopes = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        flat, slope = (torch.cat([v[n].detach().flatten() for n in params]) for v in (params, slopes))
        assert row["alignment_gradient"] == pytest.approx(float(torch.cosine_similarity(flat, -slope, 0)), rel=1e-9)
        numbers = {n: np.linalg.svd(p.detach().numpy()) for n, p in params.items()}
        for name, (_, s, _) in numbers.items():
            assert row[f"concentration_{name}"] == pytest.approx(s[0] / np.sqrt((s**2).sum()), rel=1e-9)
            one, other = params[name].detach().flatten(), -slopes[name].flatten()
            cosine = float(torch.cosine_similarity(one, other, 0))
            assert row[f"alignment_gradient_{name}"] == pytest.approx(cosine, rel=1e-9)
        expected = abs(numbers["W1"][0][:, 0] @ numbers["W2"][2][0])
        assert row["alignment_W1_W2"] == pytest.approx(expected, rel=1e-9)


def test_layers_of_a_deep_linear_net_align() -> None:
    """Ji & Telgarsky 2019, Thm 2.2: in the limit each has rank one and fits the next."""
    runs = nets(1500, model=DeepLinear(depth=3, width=6), attack=Exact(2.0))
    for row in taken(runs, Alignment()):
        assert min(row["concentration_W1"], row["concentration_W2"]) > 0.99
        assert min(row["alignment_W1_W2"], row["alignment_W2_W3"]) > 0.99


def test_residuals_are_those_of_the_oracle_at_the_attacked_points() -> None:
    runs = nets(400)
    x = attacked_points(runs, runs.recipe.attack, runs.train, runs.eps, torch.arange(3))
    far = (x - torch.as_tensor(X)).norm(dim=-1)
    assert torch.allclose(far, runs.eps.unsqueeze(-1).expand_as(far)), "PGD goes to the sphere; no attack at eps = 0"
    for k, row in enumerate(taken(runs, KKTResidual(attack="train", slack=0.2, kinks=0.01))):
        params = runs.recipe.layout.unflatten(runs.theta[k])
        found = kkt(runs.recipe.model, params, x[k], torch.as_tensor(Y), 0.2, 0.01)
        assert row["kkt_stationarity"] == found.stationarity
        assert row["kkt_complementarity"] == found.complementarity
        assert row["kkt_stationarity_kinks"] == found.stationarity_kinks <= found.stationarity
    assert all(math.isnan(v) for v in taken(nets(0), KKTResidual())[0].values()), "nothing is feasible"


def test_a_look_at_other_parameters_attacks_anew() -> None:
    runs, seen = nets(400), {}

    @dataclass(frozen=True)
    class Moved:
        def measure(self, look: Any) -> dict[str, Any]:
            other = look.at(look.theta + 0.01)
            seen[len(seen)] = other.attacked("train"), other.margins("train"), other.log_loss, other.gradient
            assert torch.equal(look.at(look.theta).attacked("train"), look.attacked("train"))
            return {}

    @dataclass(frozen=True)
    class MovedTogether:
        run_axis = True

        def measure(self, look: Any) -> dict[str, Any]:
            together.append(look.at(look.theta + 0.01).attacked("train"))
            return {}

    together: list[torch.Tensor] = []
    taken(runs, Moved())
    taken(runs, MovedTogether())
    runs.theta += 0.01
    rows = torch.arange(3)
    x = attacked_points(runs, runs.recipe.attack, runs.train, runs.eps, rows)
    q = attacked(runs, runs.recipe.attack, runs.train, runs.eps, rows)
    losses, gradients = runs.losses_and_gradients(rows)
    assert torch.equal(together[0], x)
    for k in range(3):
        for one, other in zip(seen[k], (x[k], q[k], losses[k], gradients[k]), strict=True):
            assert torch.equal(one, other)


def test_pooled_constraints_by_hand_and_of_the_runs_own_steps() -> None:
    """Gradient descent by autograd from theta; and what the run's own last steps pool is near."""
    steps, count = 400, 40
    options: dict[str, Any] = {"model": MLP(width=6, init_scale=1.0), "optimizer": FLOW, "attack": PGD(2.0)}
    runs = make_runs(X, Y, [0.0, 0.05, 0.1], steps=steps, seeds=[0, 1, 2], **options)
    runs.advance(steps - count)
    before = []
    for _ in range(count):
        runs.advance(1)
        x = attacked_points(runs, runs.recipe.attack, runs.train, runs.eps, torch.arange(3))
        before.append((runs.theta.clone(), x))
    y, layout, model = torch.as_tensor(Y), runs.recipe.layout, runs.recipe.model
    stride = float((before[-1][0] - before[-2][0]).norm() / before[-1][0].norm())
    alone, rows = (taken(runs, KKTResidual(attack="train", iterates=many, stride=stride)) for many in (1, count))
    assert all("kkt_stationarity_pooled" not in row for row in alone)
    at, after = runs.theta.clone(), []
    for _ in range(count):
        runs.theta = at
        x = attacked_points(runs, runs.recipe.attack, runs.train, runs.eps, torch.arange(3))
        after.append((at, x))
        moved = at.clone().requires_grad_()
        for k in range(3):
            torch.logsumexp(-y * model.apply(layout.unflatten(moved[k]), x[k]), 0).backward()
        slope = moved.grad
        assert slope is not None
        at = at - stride * at.norm(dim=1, keepdim=True) * slope / slope.norm(dim=1, keepdim=True)
    for k, row in enumerate(rows):
        found = [(layout.unflatten(theta[k]), x[k]) for theta, x in after]
        assert row["kkt_stationarity_pooled"] == pytest.approx(pooled(model, found[::-1], y), rel=1e-6)
        assert row["kkt_stationarity_pooled"] <= row["kkt_stationarity"] + 1e-9
        past = pooled(model, [(layout.unflatten(theta[k]), x[k]) for theta, x in before], y)
        assert row["kkt_stationarity_pooled"] == pytest.approx(past, rel=0.3)


def test_columns_of_a_run_do_not_depend_on_its_pack() -> None:
    several = (PerAttack(), Alignment(), OnMargin(), KKTResidual(attack="train", iterates=3))
    together = [taken(nets(), one) for one in several]
    for k, eps in enumerate([0.0, 0.05, 0.1]):
        options = {"model": MLP(width=6, init_scale=1.0), "optimizer": FLOW, "attack": PGD(2.0)}
        alone = train(make_runs(X, Y, [eps], steps=60, seeds=[k], **options))
        for one, rows in zip(several, together, strict=True):
            assert repr(taken(alone, one)[0]) == repr(rows[k])


def test_the_gradient_of_a_large_set_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robust_erm.training.attacked.CHUNK", 4)
    for reduction in ("sum", "mean"):
        whole = nets(20, attack=NoAttack(2.0))
        objective = dataclasses.replace(whole.recipe.objective, reduction=reduction)
        whole.recipe = dataclasses.replace(whole.recipe, objective=objective)
        expected = whole.losses_and_gradients(torch.arange(3))
        whole.order = order_of(Batches(3), 14)
        pieces = whole.losses_and_gradients(torch.arange(3))
        for one, other in zip(expected, pieces, strict=True):
            assert torch.allclose(one, other, rtol=1e-10)


@dataclass(frozen=True)
class Mine:
    """A measure with a chosen fault."""

    fault: str = ""
    when: str = "along"

    def measure(self, look: Any) -> Any:
        x, y = look.points()
        assert x.ndim == 2
        assert look.theta.ndim == 1
        value = float((y * look.model.apply(look.params, x)).median())
        faulty: dict[str, Any] = {
            "name": {"my number": value},
            "text": {"my_number": "many"},
            "vector": {"my_number": look.theta},
            "other": {"margin_clean": value},
            "taken": {"seed": 9.0, "step": value},
            "list": [value],
        }
        if self.fault == "raises":
            raise KeyError("W9")
        return faulty.get(self.fault, {"my_number": value})


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("name", "must name each by a word"),
        ("text", "measure raises ValueError"),
        ("vector", "measure raises"),
        ("other", "gives margin_clean, as another measure does"),
        ("taken", "gives seed, step, which a summary or config has; choose another name"),
        ("list", "measure raises AttributeError"),
        ("raises", "measure raises KeyError: 'W9'"),
    ],
)
def test_what_a_measure_may_not_do_is_refused_before_training(
    fault: str, says: str, resolved: Callable[..., Run]
) -> None:
    run = dataclasses.replace(resolved(), measure={"mine": Mine(fault)})
    with pytest.raises(ConfigError, match=r"measure\.mine = test_measures\.Mine") as caught:
        contracts.check(run)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("model.depth=3 measure=universal", "one hidden layer"),
        ("model=linear attack=exact measure=universal", "one hidden layer"),
        ("model.activation=leaky measure=universal", "one hidden layer"),
        ("model.bias=all measure=kkt", "not homogeneous"),
        ("model.depth=3 measure=kkt measure.kkt.kinks=0.01", "one hidden layer"),
        ("model.trained=first measure=kkt measure.kkt.kinks=0.01", "both layers trained"),
        ("model.activation=power measure=kkt measure.kkt.span=true", "by matrix products alone"),
        ("measure=kkt measure.kkt.iterates=0", "1 or more"),
        ("measure=kkt measure.kkt.iterates=2 measure.kkt.stride=1", "below 1"),
        ("data.classes=[0,1,2] objective=cross_entropy measure=nearest", "for one logit"),
    ],
)
def test_what_a_measure_cannot_be_taken_of_is_refused_before_training(
    line: str, says: str, resolved: Callable[..., Run], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        resolved(*line.split())
    plain = [part for part in line.split() if not part.startswith("measure")]
    measures = [part for part in line.split() if part.startswith("measure")]
    done = command(*plain, "logger=none", "report=false", "stop.steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    asked = [part.removeprefix("measure.") if "." in part else part for part in measures]
    done = command("outputs", *asked, "attack=none", "checks=false", cwd=tmp_path, module="robust_erm.evaluate")
    assert done.returncode == 2
    assert says in done.stderr


def test_what_would_hold_too_much_is_refused_before_training(resolved: Callable[..., Run]) -> None:
    line = ("data=gaussian", "data.d=2000", "data.m=1000", "model.width=100", "measure=kkt")
    for more in ("own=true", "iterates=2"):
        with pytest.raises(ConfigError, match="GiB at once"):
            contracts.check(resolved(*line, f"measure.kkt.{more}"))


def test_no_measurement_is_called_what_a_summary_calls_otherwise(resolved: Callable[..., Run]) -> None:
    """All that a summary has beside measurements, so that whoever adds to it adds the name here."""
    run = resolved("stop.steps=1", "model.width=2")
    (summary,) = train_pack([run])
    measured = set(parquet.read_table(folder_of(run) / "metrics.parquet").column_names) - {"step"}
    assert summary.keys() - measured <= KEPT
    assert not measured & KEPT


def test_two_measures_of_one_name_and_unknown_names_are_refused(resolved: Callable[..., Run]) -> None:
    run = dataclasses.replace(resolved(), measure={"mine": Mine(), "late": Mine(when="end")})
    with pytest.raises(ConfigError, match="two of them give my_number"):
        contracts.check(run)
    run = dataclasses.replace(resolved(), measure={"mine": Mine()}, returns="my_numbr")
    with pytest.raises(ConfigError, match="did you mean my_number"):
        contracts.check(run)
    contracts.check(dataclasses.replace(run, returns="my_number"))
    with pytest.raises(ConfigError, match="has no measure"):
        dataclasses.replace(resolved(), measure={"mine": Linear()})


def test_along_training_and_at_its_end(resolved: Callable[..., Run]) -> None:
    """Columns of metrics.parquet, or numbers of summary.json alone; and a part of what the run is called."""
    line = ("stop.steps=20", "model.width=8", "eps=0.1")
    plain, run = resolved(*line), resolved(*line, "measure=[alignment,kkt]")
    assert plain.id != run.id
    assert plain.id == resolved(*line, "measure=[]").id
    summary = train_pack([run])[0]
    kept = json.loads((folder_of(run) / "summary.json").read_text())
    assert {"alignment_gradient", "kkt_stationarity"} <= kept.keys()
    columns = parquet.read_table(folder_of(run) / "metrics.parquet").column_names
    assert "alignment_gradient" in columns
    assert "kkt_stationarity" not in columns
    assert isinstance(summary, dict)
    own = dataclasses.replace(run, measure={"mine": Mine(when="end")})
    assert train_pack([own])[0]["measured"] == ["my_number"]


def test_a_run_depends_on_what_its_measures_ask(resolved: Callable[..., Run]) -> None:
    found = [fingerprint.of_run(resolved(*line)) for line in ((), ("measure=kkt",), ("measure=universal",))]
    assert ["robust_erm.oracles.kkt" in one for one in found] == [False, True, False]
    assert ["robust_erm.oracles.rays" in one for one in found] == [False, False, True]


PARTS = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Longest:
    """The longest row of the first layer."""

    def measure(self, look):
        return {"longest": look.params["W1"].norm(dim=1).max()}
'''


def test_a_measure_of_ones_own_in_training_and_of_trained_runs(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "mine" / "measure").mkdir(parents=True)
    (tmp_path / "mine" / "measure" / "longest.yaml").write_text("# @package measure.longest\n_target_: parts.Longest\n")
    line = ["--config-dir", "mine", "logger=none", "stop.steps=5", "report=false"]
    done = command(*line, "measure=longest", "returns=longest", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (kept,) = (json.loads(p.read_text()) for p in tmp_path.glob("outputs/*/summary.json"))
    done = command(
        *("outputs", "measure=parts.Longest,on_margin", "on_margin.attack=train", "attack=none"),
        *("trust=parts", "checks=false"),
        cwd=tmp_path,
        module="robust_erm.evaluate",
    )
    assert done.returncode == 0, done.stderr
    assert "longest" in done.stdout
    (found,) = (json.loads(p.read_text()) for p in tmp_path.glob("outputs/*/evaluations/*.json"))
    assert found["measured_longest"] == kept["longest"]
    for wrong, says in (("kktt", "did you mean kkt"), ("parts.Nothing", "cannot be imported")):
        done = command("outputs", f"measure={wrong}", "trust=parts", cwd=tmp_path, module="robust_erm.evaluate")
        assert done.returncode == 2
        assert says in done.stderr


README = Path(__file__).resolve().parents[2] / "robust_erm" / "README.md"


@pytest.mark.turns(20)
def test_a_measure_inside_the_package_is_the_same_file(tmp_path: Path) -> None:
    """The README's example, in a copy of the package; outside of it another test has run it."""
    for name in ("robust_erm", "conf"):
        shutil.copytree(README.parents[1] / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    section = README.read_text().partition("## Your own measurement")[2]
    outside, inside = re.findall(r"```sh\n(.*?)\n```", section, re.DOTALL)[:2]
    text = outside[: outside.index("python -m")] + inside.replace("train ", "train logger=none stop.steps=2 ")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the README's python is this one
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": path}
    line = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (kept,) = (json.loads(p.read_text()) for p in tmp_path.glob("outputs/*/summary.json"))
    assert 0 < kept["active_share"] < 1
    assert "kkt_stationarity" in kept


def test_standard_measures_have_yamls_and_take_the_numbers_that_are_always_taken(
    resolved: Callable[..., Run], tmp_path: Path
) -> None:
    """Asked for by name along training they change nothing; of trained runs they are measured again."""
    line = ("stop.epochs=3", "data.m=20", "batch.size=6", "model.width=5", "eps=0.1", "optimizer/schedule=constant")
    plain, asked = (resolved(*line, more) for more in ("measure=[]", f"measure=[{','.join(STANDARD)}]"))
    rows = []
    for run in (plain, asked):
        train_pack([run])
        rows.append(parquet.read_table(folder_of(run) / "metrics.parquet"))
    assert rows[0].equals(rows[1])
    assert rows[0]["epoch"].to_pylist()[-1] == 3
    whole = resolved("stop.steps=4", "model.width=5", "measure=epoch")
    assert train_pack([whole])[0]["epoch"] == 4
    done = command(
        *(str(folder_of(plain)), f"measure={','.join(STANDARD)}", "attack=none", "checks=false"),
        cwd=tmp_path,
        module="robust_erm.evaluate",
    )
    assert done.returncode == 0, done.stderr
    (again,) = (json.loads(p.read_text()) for p in folder_of(plain).glob("evaluations/*.json"))
    kept = json.loads((folder_of(plain) / "summary.json").read_text())
    names = [name for name in kept if f"measured_{name}" in again]
    assert {"epoch", "log_loss", "train_robust_acc", "margin_robust_l2", "norm_layer_W1"} <= {*names}
    for name in names:
        assert again[f"measured_{name}"] == pytest.approx(kept[name], rel=1e-12), name


def test_snapshots_are_the_parameters_at_each_measurement(resolved: Callable[..., Run]) -> None:
    line = ("model.width=5", "eps=0.1", "optimizer=sd", "measure_every=7", "trainer.inner_steps=3")
    run = resolved(*line, "stop.steps=40", "snapshots=true")
    count = iter(range(9))
    with pytest.raises(Interrupted):
        train_pack([run], stop=lambda: next(count, None) is None)
    train_pack([run])
    steps, params = snapshots(folder_of(run))
    assert {7, 14, 21, 28, 35, 40} <= set(steps)
    for step in (7, 40):
        shorter = resolved(*line, f"stop.steps={step}", "stop.loss=null")
        train_pack([shorter])
        theta = torch.load(folder_of(shorter) / "checkpoint.pt", weights_only=True)["run"]["theta"]
        kept = torch.cat([p.flatten() for p in params[steps.index(step)].values()])
        assert torch.equal(kept, theta)
    with pytest.raises(ConfigError, match="snapshots=true"):
        snapshots(folder_of(shorter))
    with pytest.raises(ConfigError, match="256 at most"):
        contracts.check(resolved("snapshots=true", "model.width=20000", "stop.steps=100000"))


def test_what_was_trained_before_an_option_was_there_can_still_be_read(resolved: Callable[..., Run]) -> None:
    """Fields that were added later have no place in older configs; at their default, none in the id either."""

    later = {f.name for f in dataclasses.fields(Run) if f.metadata.get("later")}
    run = resolved("stop.steps=3")
    train_pack([run])
    path = folder_of(run) / "config.yaml"
    content = {k: v for k, v in yaml.safe_load(path.read_text()).items() if k not in later}
    assert {"batch", "measure", "snapshots"} <= later
    content["stop"] = {k: v for k, v in content["stop"].items() if k in ("steps", "loss")}
    path.write_text(yaml.safe_dump(content))
    assert read_config(folder_of(run))["id"] == run.id == run_of(folder_of(run)).id


def test_on_orthogonal_points_the_universal_direction_is_the_max_margin_separators(
    resolved: Callable[..., Run],
) -> None:
    """vardi2022 Thm 4.1 and Sec. 5.1, from a small start to a loss of 1e-30, where the limit is known.

    All points are on the margin; one vector of length sqrt(d / m) flips all of them, as it does for the linear
    max-margin classifier, and one of twice that brings all to -1; and the net is near a KKT point, which only shows
    where slopes at kinks are free, for nearly half of all pre-activations are at theirs.
    """
    data = ("data=sphere", "data.d=60", "data.m=20", "data.kind=orthogonal", "data.labels=balanced", "data.m_test=1")
    net = ("model.width=100", "model.bias=first", "model.init_scale=0.01", "attack=none", "eps=0", "p=2")
    line = (*data, *net, "optimizer/schedule=relative", "stop.loss=1e-30", "stop.steps=2000", "measure.kkt.kinks=0.01")
    found = train_pack([resolved(*line, "measure=[universal,kkt,on_margin]")])[0]
    assert isinstance(found, dict)
    assert found["status"] == "converged"
    assert found["on_margin_share"] == 1
    assert found["on_margin_spread"] < 1.001
    assert found["universal_distance"] == pytest.approx(math.sqrt(3), rel=0.01)
    assert found["universal_distance_minus"] == pytest.approx(2 * math.sqrt(3), rel=0.06)
    assert found["universal_share"] == found["universal_crossings"] == 1
    assert found["kkt_stationarity_kinks"] < 0.05 < 0.15 < found["kkt_stationarity"]
    assert 0.4 < found["kkt_kink_share"] < 0.5


def test_the_gap_in_the_optimizers_own_norm_closes(resolved: Callable[..., Run]) -> None:
    """Of nets trained in several norms it falls along training; the columns of a margin say which norm it is."""
    line = ("data=sphere", "data.d=20", "data.m=6", "data.m_test=1", "model.width=8", "attack=none", "eps=0", "p=2")
    kkt = ("measure=kkt", "measure.kkt.own=true")
    steps = ("optimizer/schedule=relative", "stop.loss=null")
    for optimizer, norm in (("spectral", "spectral"), ("steepest", "l1_5"), ("gd", "l2")):
        ends = [(*line, *kkt, *steps, f"optimizer={optimizer}", f"stop.steps={n}") for n in (30, 1000)]
        early, late = (train_pack([resolved(*end)])[0] for end in ends)
        assert isinstance(early, dict)
        assert isinstance(late, dict)
        assert 0 <= late["kkt_gap_own"] < 0.1 < 0.5 < early["kkt_gap_own"]
        assert late[f"margin_clean_{norm}"] > early[f"margin_clean_{norm}"]
        assert late[f"margin_clean_{norm}"] == pytest.approx(late["margin_clean"] / late[f"norm_{norm}"] ** 2)


def test_an_optimizer_that_says_no_norm_has_no_gap_in_it() -> None:
    run = SimpleNamespace(model=MLP(width=2), optimizer=object(), outputs=1)
    KKTResidual().check_fits(run)
    with pytest.raises(ConfigError, match="own = true: needs an optimizer that says its norm"):
        KKTResidual(own=True).check_fits(run)


@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_nearest_points_against_all_directions(seed: int) -> None:
    """In two dimensions every direction can be tried, each of them exactly."""
    g = torch.Generator().manual_seed(seed)
    model = MLP(width=12, bias="first")
    params = {name: p.double() for name, p in model.init(2, 1, g).items()}
    x = torch.randn(60, 2, generator=g, dtype=torch.float64)
    y = model.apply(params, x).sign()
    step = nearest(lambda at: model.apply(params, at), x, y, 2.0, steps=50, starts=across(x, y, x, y, Norm(2)))
    least = np.full(60, math.inf)
    for angle in torch.linspace(0, 2 * math.pi, 1801, dtype=torch.float64)[:-1]:
        least = np.minimum(least, flips(model, params, x, y, torch.stack([angle.cos(), angle.sin()])).first)
    ratio = step.norm(dim=1).numpy() / least
    assert ratio.min() > 0.999, "nothing is nearer than the nearest"
    assert np.median(ratio) < 1.001
    assert ratio.mean() < 1.03
    assert model.apply(params, x + step).abs().max() < 1e-9, "on the boundary"


def test_nearest_points_of_a_linear_model_are_its_margins() -> None:
    """|<w, x>| / ||w||_{p*}; points of the other label by sorting; 0 where a label is wrong, inf without a boundary."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(40, 6, generator=g, dtype=torch.float64), torch.randn(6, generator=g, dtype=torch.float64)
    y = torch.sign(x @ w)
    for p, dual in ((2.0, 2.0), (math.inf, 1.0), (1.0, math.inf)):
        starts = across(x, y, x, y, Norm(p))
        for k, start in enumerate(starts):
            for i in range(40):
                others = torch.linalg.vector_norm(x[y != y[i]] - x[i], ord=p, dim=1).sort().values
                assert float(torch.linalg.vector_norm(start[i] - x[i], ord=p)) == pytest.approx(float(others[k]))
        step = nearest(lambda at: at @ w, x, y, p, steps=20, starts=starts)
        expected = (x @ w).abs() / torch.linalg.vector_norm(w, ord=dual)
        assert torch.linalg.vector_norm(step, ord=p, dim=1) == pytest.approx(expected, rel=1e-6)
    assert float(nearest(lambda at: at @ w, x, -y, 2.0).abs().max()) == 0
    assert bool(nearest(lambda at: at @ w * 0 + 1, x[y > 0], y[y > 0], 2.0).isinf().all())
    assert across(x[y > 0], y[y > 0], x[y > 0], y[y > 0], Norm(2)) == []


def test_nearest_and_universal_of_points_on_the_attacked_margin() -> None:
    """Both take as I what is on the margin after the attack that they are asked for."""
    runs = nets(400, model=MLP(width=8, init_scale=1.0, bias="first"))
    x, y = torch.as_tensor(X), torch.as_tensor(Y)
    q = {name: look(runs) for name, look in (("clean", _clean_margins), ("train", _attacked_margins))}
    seen = 0
    for attack, margins in q.items():
        found = taken(runs, Universal(attack=attack)), taken(runs, Nearest(attack=attack, points=14))
        for k, (along, close) in enumerate(zip(*found, strict=True)):
            on, params = margins[k] <= 1.1 * margins[k].min(), runs.recipe.layout.unflatten(runs.theta[k])
            z = (y[on, None] * x[on]).sum(0)
            own = flips(runs.recipe.model, params, x[on], y[on], -y[on, None] * z / z.norm())
            assert along["universal_distance"] == own.common
            apply = functools.partial(runs.recipe.model.apply, params)
            step = nearest(apply, x[on], y[on], 2.0, 50, across(x[on], y[on], x, y, Norm(2)))
            assert close["nearest_median"] == pytest.approx(float(step.norm(dim=1).median()), rel=1e-9)
            assert close["nearest_least"] <= along["universal_first_median"] * (1 + 1e-9)
            cosines = torch.cosine_similarity(step, -y[on, None] * z, dim=1)
            assert close["nearest_cosine"] == pytest.approx(float(cosines.mean()), rel=1e-9)
            seen += int(not torch.equal(on, q["clean"][k] <= 1.1 * q["clean"][k].min()))
    assert seen, "the attack moves who is on the margin"
    assert all(math.isnan(v) for v in taken(nets(0), Nearest())[0].values())


def _clean_margins(runs: Runs) -> torch.Tensor:
    return clean(runs, runs.train, torch.arange(3))


def _attacked_margins(runs: Runs) -> torch.Tensor:
    return attacked(runs, runs.recipe.attack, runs.train, runs.eps, torch.arange(3))


def flowed(x: np.ndarray, y: np.ndarray, width: int = 6, init_scale: float = 1.0) -> Runs:
    """300 steps along the flow, of one run without attack."""
    options = {"model": MLP(width=width, init_scale=init_scale, bias="first"), "attack": NoAttack(2.0)}
    return train(make_runs(x, y, [0.0], steps=300, seeds=[0], optimizer=FLOW, **options))


def test_the_residual_of_each_parameter() -> None:
    """frei2023 eqs. (3), (4): ``w_j = sum_i lam_i y_i v_j s_ij x_i``, ``b_j`` the same with 1 in place of x_i."""
    x, y = separable(12, 9)
    runs = flowed(x, y, init_scale=0.1)
    (row,) = taken(runs, KKTResidual(blocks=True))
    there = runs.recipe.layout.unflatten(runs.theta[0])
    lam = kkt(runs.recipe.model, there, torch.as_tensor(x), torch.as_tensor(y)).lam
    params = {name: value.numpy() for name, value in there.items()}
    w, b, v = params["W1"], params["b1"], params["W2"][0]
    z = x @ w.T + b
    back = (z > 0) * v * (lam * y)[:, None]
    pulled = {"W1": back.T @ x, "b1": back.sum(0), "W2": ((lam * y) @ np.maximum(z, 0))[None]}
    assert list(pulled) == list(params)
    total = 0.0
    for name, value in params.items():
        rest = np.linalg.norm(value - pulled[name])
        assert row[f"kkt_stationarity_{name}"] == pytest.approx(rest / np.linalg.norm(value))
        assert row[f"kkt_stationarity_{name}"] > 1e-4
        total += rest**2
    assert math.sqrt(total) / float(runs.theta[0].norm()) == pytest.approx(row["kkt_stationarity"])
    runs.theta[0] = -runs.theta[0]
    (row,) = taken(runs, KKTResidual(blocks=True))
    assert all(math.isnan(value) for value in row.values()), "not feasible"
    assert len(row) == 5


def test_the_residual_in_the_span_of_the_points() -> None:
    """What no gradient moves is orthogonal to the rest, so the squares of both parts add up to the whole residual."""
    x, y = separable(4, 9)
    runs = flowed(x, y)
    (row,) = taken(runs, KKTResidual(span=True))
    params = runs.recipe.layout.unflatten(runs.theta[0])
    inside, off = in_span(runs.recipe.model, params, torch.as_tensor(x))
    assert runs.recipe.model.apply(inside, torch.as_tensor(x)).numpy() == pytest.approx(
        runs.recipe.model.apply(params, torch.as_tensor(x)).numpy(), rel=1e-9
    )
    left = (params["W1"] - inside["W1"]).numpy()
    assert np.abs(left @ x.T).max() < 1e-12
    theta = float(runs.theta[0].norm())
    assert row["kkt_off_span"] == off == pytest.approx(np.linalg.norm(left) / theta)
    assert 0.05 < off < 0.9
    both = off**2 + row["kkt_stationarity_span"] ** 2 * (1 - off**2)
    assert both == pytest.approx(row["kkt_stationarity"] ** 2, rel=1e-6)
    whole = flowed(*separable(8, 5), width=30)
    (row,) = taken(whole, KKTResidual(span=True))
    assert row["kkt_off_span"] < 1e-12, "8 points span five dimensions"
    assert row["kkt_stationarity_span"] == pytest.approx(row["kkt_stationarity"], rel=1e-9)
