"""Every yaml in conf/ composes, resolves and runs two steps: found by themselves, none is listed here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from robust_erm.core.errors import ConfigError
from robust_erm.store import trust
from robust_erm.store.config import Run, resolve
from robust_erm.store.identity import as_data
from robust_erm.store.source import conf_dir
from robust_erm.sweeps import plan
from robust_erm.training import contracts
from robust_erm.training.pack import train_pack
from robust_erm.training.problem import build

INNER = ("optimizer/schedule", "optimizer/geometry", "optimizer/accumulator")
GROUPS = ("data", "model", "objective", "optimizer", *INNER, "attack", "trainer", "logger", "experiment")


def files() -> list[tuple[str, str]]:
    found = []
    for group in GROUPS:
        pattern = "*.yaml" if group == "optimizer" else "**/*.yaml"
        for path in sorted((conf_dir() / group).glob(pattern)):
            found.append((group, path.relative_to(conf_dir() / group).with_suffix("").as_posix()))
    return found


# what a yaml needs beside itself to be a run, and what keeps two steps small
NEEDS = {
    "attack/exact": ["model=linear"],
    "attack/apgd": ["attack.steps=3"],
    "attack/apgd_dlr": ["attack.steps=3", "data.classes=[0,1,2]", "objective=cross_entropy"],
    "attack/apgd_targeted": ["attack.steps=3", "data.classes=[0,1,2,3]", "objective=cross_entropy"],
    "attack/fab": ["attack.steps=3"],
    "attack/square": ["attack.queries=3"],
    "objective/cross_entropy": ["data.classes=[0,1,2,3,4,5,6,7,8,9]"],
    "optimizer/oracle": ["model=linear", "attack=exact", "data=gaussian", "data.d=30", "data.m=20", "eps=0.01"],
    "optimizer/schedule/growing": ["optimizer.normalized=true"],
    "optimizer/schedule/constant": ["optimizer.normalized=true"],
    "optimizer/schedule/short": ["optimizer.normalized=true"],
    "optimizer/schedule/smooth": ["model=deep_linear", "objective=logistic", "attack=exact", "p=2"],
    "data/arrays": ["data.file={folder}/own.csv"],
    "data/cifar10": ["data.folder={folder}/../cifar", "data.m=5", "model.width=4"],
    "data/clusters": ["data.d=30", "data.m=20"],
    "data/idx": ["data.folder={folder}", "data.classes=[2,7]", "data.m=5"],
    "data/sphere": ["data.d=30", "data.m=20"],
    "data/gaussian": ["data.d=30", "data.m=20", "data.m_test=50"],
    "data/mnist": ["data.m=5"],
    "model/cnn": ["model.hidden=16"],
    "model/diagonal": ["model.alpha=0.1"],
    "experiment/tsilivis2024/linear": ["data.d=60", "data.m=20"],
    "experiment/tsilivis2024/mnist": ["data.m=5", "model.width=8"],
}


def own(folder: Path) -> Path:
    """``folder``, with data of a user's own in it."""
    rows = [f"{k / 20},{(7 * k % 20) / 20},{k % 2}" for k in range(20)]
    (folder / "own.csv").write_text("\n".join(["a,b,label", *rows]))
    return folder


@pytest.mark.parametrize(("group", "name"), files(), ids=["/".join(file) for file in files()])
def test_every_yaml_runs_two_steps(
    group: str, name: str, composed: Callable[..., DictConfig], idx: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUST_ERM_MNIST", str(idx))
    needs = [line.format(folder=own(idx)) for line in NEEDS.get(f"{group}/{name}", [])]
    needs += ["optimizer=descent"] if group in INNER[1:] else []
    overrides = [f"{group}={name}", "stop.steps=2", *needs]
    config = composed(*(o for o in overrides if not (group == "logger" and o.startswith("logger="))))
    run = resolve(config)
    summary = train_pack([run])[0]
    assert summary["step"] == 2 or summary["status"] == "converged"
    assert 0 <= summary["test_robust_acc"] <= summary["test_clean_acc"] <= 1


@pytest.mark.parametrize("name", [name for group, name in files() if group in ("data", "experiment")])
def test_every_data_set_can_be_planned(
    name: str, resolved: Callable[..., Run], idx: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is in conf: memory is estimated before anything is drawn."""
    monkeypatch.setenv("ROBUST_ERM_MNIST", str(idx))
    group = "experiment" if "/" in name else "data"
    own(idx)
    few = {
        "arrays": [f"data.file={idx}/own.csv"],
        "cifar10": ["data.m=5", f"data.folder={cifar}"],
        "idx": [f"data.folder={idx}", "data.classes=[2,7]"],
    }.get(name, ["data.m=5"] if "mnist" in name else [])
    runs = [resolved(f"{group}={name}", f"seed={seed}", *few) for seed in range(3)]
    assert sorted(i for pack in plan.packs(runs, None, 1) for i in pack.members) == [0, 1, 2]


def test_every_component_may_stand_in_a_stored_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not this process has built it."""
    monkeypatch.setattr(trust, "BUILT", set())
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    targets = set()
    for group, name in [*files(), *(("measure", path.stem) for path in (conf_dir() / "measure").glob("*.yaml"))]:
        content = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), resolve=False)
        assert isinstance(content, dict)
        if target := content.get("_target_"):
            trust.require_trusted({"_target_": target}, Path(name))
            targets.add(target)
    assert {"robust_erm.accumulators.momentum.Velocity", "robust_erm.geometries.layers.Layers"} < targets


def test_every_component_says_its_degree(resolved: Callable[..., Run]) -> None:
    expected = {"linear": 1, "diagonal": 2, "deep_linear": 3, "linear_conv": 2, "mlp": 2, "cnn": None}
    found = {n: resolved(f"model={n}").model.degree for g, n in files() if g == "model"}
    assert found == expected


def test_identity_ignores_how_a_number_is_written(resolved: Callable[..., Run]) -> None:
    assert resolved("eps=0").id == resolved("eps=0.0").id
    assert resolved("p=inf").id == resolved().id
    assert resolved("seed=1").id != resolved("seed=0").id
    assert resolved("optimizer.schedule.lr=0.2").id != resolved().id


def test_identity_ignores_where_and_how(resolved: Callable[..., Run], tmp_path: Path) -> None:
    base = resolved().id
    for same in ("trainer.inner_steps=7", f"output_dir={tmp_path}", "logger.project=x", "fresh=true"):
        assert resolved(same).id == base


def test_identity_ignores_where_mnist_lies(resolved: Callable[..., Run], idx: Path) -> None:
    data = as_data(resolved("data=mnist", "data.m=1", f"data.folder={idx}"), "identity")["data"]
    assert "folder" not in data
    assert data["m"] == 1


def test_the_stored_config_is_the_whole_config(resolved: Callable[..., Run]) -> None:
    stored = as_data(resolved("optimizer=sd"))
    assert stored["optimizer"]["r"] == float("inf")
    assert stored["optimizer"]["schedule"]["lr"] == 2e-4
    assert stored["trainer"]["inner_steps"] == 5000


SMOOTH = "model=deep_linear objective=logistic attack=exact p=2 optimizer/schedule=smooth"
BAD = {
    "eps=-0.1": "eps = -0.1: must be finite and 0 or more",
    "eps=nan": "eps = nan: must be finite",
    "eps=inf": "eps = inf: must be finite",
    "eps=abc": "eps = abc: has the wrong type",
    "eval_eps=-1": "eval_eps = -1.0: must be finite",
    "p=0.5": "attack.p = 0.5: PGD knows p = 1, 2 and inf",
    "p=0.5 attack=fgsm": "p = 0.5: the threat needs a norm",
    "seed=-1": "seed = -1: must be 0 or more",
    "seed=1.5": "seed = 1.5: has the wrong type",
    "attack=fgsm p=2": "attack.p = inf: is another threat than p = 2",
    "+attack@eval_attacks.l2=pgd eval_attacks.l2.p=2": "eval_attacks.l2.p = 2.0: is another threat than p = inf",
    "+attack@eval_attacks.train=pgd": "is what the training attack is called; choose another name",
    "optimizer=momentum optimizer/schedule=inverse_loss": "its step grows like 1 / loss",
    "optimizer/schedule=power optimizer.schedule.a=1.1": "optimizer.schedule.a = 1.1: must be in [0, 1]",
    "optimizer/schedule=inverse_loss optimizer.schedule.lowest_fall=0": "schedule.lowest_fall = 0.0: must be positive",
    f"{SMOOTH} optimizer.schedule.least=0": "optimizer.schedule.least = 0.0: must be above 0",
    f"{SMOOTH} model=mlp attack=pgd": "needs two classes and model=deep_linear",
    f"{SMOOTH} model=linear": "needs two classes and model=deep_linear",
    f"{SMOOTH} model=diagonal": "needs two classes and model=deep_linear",
    f"{SMOOTH} objective=exponential": "needs objective=logistic, a mean",
    f"{SMOOTH} objective.reduction=sum": "needs objective=logistic, a mean",
    f"{SMOOTH} p=inf": "needs attack=exact at p=2",
    f"{SMOOTH} attack=none": "(eps=0 for standard training)",
    f"{SMOOTH} optimizer=cd": "optimizer/schedule = smooth: is the step of lyu2022's Lemma 2, which needs optimizer=gd",
    f"{SMOOTH} optimizer.normalized=true": "needs optimizer=gd, not normalized",
    f"{SMOOTH} optimizer=adam": "needs optimizer=gd, not normalized",
    "eval_attacks=pgd": "eval_attacks = pgd: is a group of options; write +attack@eval_attacks.pgd=pgd",
    "stop=5": "stop = 5: is a group of options; write stop.<option>=<value>",
    "optimizer.schedule=constant": "optimizer.schedule = constant: is a component; write optimizer/schedule=<name>",
    "eps_unit=margins": "did you mean margin?",
    "dtype=float16": "dtype = float16: must be one of float64, float32",
    "stop.steps=-1": "stop.steps = -1: must be 0 or more",
    "stop.loss=0": "stop.loss = 0.0: must be positive",
    "optimizer=steepest optimizer.r=0.9": "optimizer.r = 0.9: steepest descent needs a norm: 1 <= r <= inf",
    "optimizer=muon optimizer.geometry=lp": "optimizer.geometry = lp: is a component; write optimizer/geometry=<name>",
    "optimizer=shampoo optimizer.accumulator=none": "optimizer.accumulator = none: is a component; write optimizer/acc",
    "optimizer=muon optimizer.geometry._target_=robust_erm.attacks.pgd.PGD ~optimizer.geometry.r": "unknown option",
    "optimizer=muon optimizer.geometry.r=0.5": "optimizer.geometry.r = 0.5: needs a norm's exponent, 1 to inf",
    "optimizer=muon optimizer.geometry.across=nan": "optimizer.geometry.across = nan: needs a norm's exponent",
    "optimizer=muon_ns optimizer.geometry.r=2": "geometry.polar = newton_schulz: is a way to the polar factor",
    "optimizer=muon optimizer.geometry.kind=trace": "optimizer.geometry.kind = trace: must be one of schatten, entries",
    "optimizer=muon optimizer.accumulator.beta=1": "optimizer.accumulator.beta = 1.0: must be in [0, 1)",
    "optimizer=lion optimizer.accumulator.beta2=-0.1": "optimizer.accumulator.beta2 = -0.1: must be in [0, 1)",
    "optimizer=mirror optimizer/schedule=relative": "bounds the change of theta, of which optimizer=mirror3 moves a",
    "optimizer=mirror optimizer.r=1": "optimizer.r = 1.0: must be above 1 and finite: the potential is strictly convex",
    "optimizer=signum optimizer/schedule=inverse_loss": "its step grows like 1 / loss, but optimizer=signum here",
    "optimizer.schedule.lr=0": "optimizer.schedule.lr = 0.0: must be positive",
    "optimizer=oracle": "optimizer = oracle: knows the limit for model=linear and two classes only; this is model=mlp",
    "optimizer=oracle model=linear": "optimizer = oracle: knows the limit under attack=exact and attack=none only",
    "optimizer=oracle model=linear attack=exact optimizer.r=0.5": "optimizer.r = 0.5: needs a norm: 1 <= r <= inf",
    "data=gaussian data.k_w=600": "data.k_w = 600: must be between 1 and d = 512",
    "data=gaussian data.k_x=600": "data.k_x = 600: must be between 1 and d = 512",
    "data.m=400": "data.m = 400: must be below 356",
    "data.classes=[2,11]": "data.classes = [2, 11]: must be two or more different digits",
    "attack=exact": "attack = exact: needs a model linear in its input, model=mlp is not; use attack=pgd",
    "+attack@eval_attacks.best=exact": "eval_attacks.best = exact: needs a model linear in its input",
    "attack=apgd_dlr": "attack.loss = dlr: with targets = 0 needs 3 logits or more, there is 1: use loss=margin",
    "attack=square p=2": "attack.p = 2.0: Square knows p = inf",
    "p=3": "attack.p = 3.0: PGD knows p = 1, 2 and inf",
    "data.classes=[0,1,2]": "objective.loss = exponential: is a two-class loss, the data has 3 classes",
    "optimizer=sd optimizer/schedule=log_constant": "its step grows like 1 / loss",
    "optimizer=adam optimizer/schedule=bounded_loss": "its step grows like 1 / loss",
    "+optimizer.rr=2": "optimizer.rr = 2: unknown option: has schedule, r, normalized; did you mean r?",
    "+epsilon=1": "epsilon = 1: unknown option",
    "model=cnn data=gaussian": "model.channels = (32, 64): model=cnn needs square images",
    "model=mlp model.bias=some": "model.bias = some: must be one of none, first, all",
    "model.widths=[]": "model.widths = []: must have 1 to 999 hidden widths, as in [1024,64]",
    "model.widths=[0]": "model.widths = 0: must be 1 or more",
    "model.widths=[8,x]": "model.widths = [8, 'x']: has the wrong type",
    "model.widths=8": "model.widths = 8: has the wrong type",
    "model.widths=[1000000000,1000000000]": "model = init: needs parameters of 476.8 GiB",
    "model.activation=tanh": "model.activation = tanh: must be one of relu, leaky, identity, power",
    "model.activation=power model.depth=3": "model.activation = power: needs one hidden layer",
    "model.activation=power model.power=0.5": "model.power = 0.5: must be between 1 (relu) and 100",
    "model.layer_scales=[1]": "model.layer_scales = [1.0]: must have as many factors as there are trained layers, 2",
    "model.layer_scales=[1,-1]": "model.layer_scales = -1.0: must be positive",
    "model.trained=first model.depth=3": "model.trained = first: needs one hidden layer",
    "model.trained=first data.classes=[0,1,2] objective=cross_entropy": "model.trained = first: has a fixed second",
    "model.trained=first attack=exact": "attack = exact: needs a model linear in its input",
    "data=mnist data.folder=/nowhere": "data.folder = /nowhere: is not a folder",
    "trainer.device=cuda:99": "trainer.device = cuda:99: this machine has",
    "trainer.device=tpu": "trainer.device = tpu: must be auto, cpu, cuda",
    "model._target_=robust_erm.models.mlp.MPL": "model._target_ = robust_erm.models.mlp.MPL: cannot be imported",
    "returns=accuracy": "returns = accuracy: must be a final metric, such as test_robust_acc",
    "logger.mode=offlin": "logger.mode = offlin: must be one of",
}


def check(config: DictConfig) -> None:
    run = resolve(config)
    run.trainer.check()
    contracts.check(run)


@pytest.mark.parametrize("overrides", BAD)
def test_bad_input_is_refused_in_one_line(overrides: str, composed: Callable[..., DictConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides.split()))
    assert BAD[overrides] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "outputs").exists()


def test_options_that_came_later_leave_ids_as_they_were(resolved: Callable[..., Run]) -> None:
    """At their default; elsewhere they are part of what a run is, and of what a pack shares or does not."""
    known = "optimizer/schedule=log_constant"  # what was gradient descent's own
    assert resolved("data=gaussian", "model=linear", "attack=exact", known).id == "ca648de05f"
    assert resolved("data=digits", "model=mlp", known).id == "6be450c609"
    assert resolved("data=digits", "model.bias=first", "model.depth=3", "model.width=10", known).id == "bdadd52456"
    ids = {resolved(f"stop.log_loss={value}").id for value in ("null", "-1000", "-2000.5")}
    assert len(ids) == 3
    back_off = "optimizer/schedule=inverse_loss"
    without = [f"optimizer.schedule.{key}=null" for key in ("lowest_fall", "change")]
    assert resolved(back_off, *without).id == "ac93cc7238"
    assert resolved(back_off).id != "ac93cc7238"
    assert resolved("stop.log_loss=-1000").stop.target == -1000
    assert resolved("stop.loss=null").stop.target == -math.inf
    assert resolved("stop.loss=1e-3").stop.target == pytest.approx(math.log(1e-3))


def test_optimizers_that_were_there_before_their_factors_have_their_ids(resolved: Callable[..., Run]) -> None:
    """Stored runs of many hours have these."""
    line = ("data=digits", "data.m=10", "model=mlp", "model.width=6", "eps=0.05", "stop.steps=25", "stop.loss=null")
    found = {
        "optimizer=gd": "f2b5219c00",
        "optimizer=sd": "e576a507d4",
        "optimizer=cd": "99b9e883c8",
        "optimizer=steepest optimizer/schedule=constant optimizer.r=3": "76efa2d07f",
        "optimizer=spectral": "e86abb80cf",
        "optimizer=adam": "2159e73e7d",
        "optimizer=momentum optimizer.schedule.lr=1e-3": "2a0f7bee1a",
    }
    assert {options: resolved(*line, *options.split()).id for options in found} == found


NETS = ["widths=[8]", "activation=leaky", "slope=0.1", "power=2", "trained=first"]


def test_a_pack_shares_a_net_but_not_its_start(resolved: Callable[..., Run]) -> None:
    """Runs of other laws and scales are trained together, as each is alone; those of another net are not."""
    small = ["data=digits", "data.m=10", "model.width=6", "stop.steps=4", "eps=0.05"]
    starts = ["init_law=uniform", "init_law=gaussian", "layer_scales=[1,0.1]", "layer_scales=[3,3]", "init_scale=0.1"]
    runs = [resolved(*small, f"model.{start}") for start in starts]
    assert len({run.id for run in runs}) == 5
    assert len({plan.pack_key(run) for run in [*runs, *(resolved(*small, f"model.{net}") for net in NETS)]}) == 6
    pack, *_ = build(runs, torch.device("cpu"))
    for k, run in enumerate(runs):
        alone, *_ = build([run], torch.device("cpu"))
        assert torch.equal(pack.theta[k], alone.theta[0])
    assert len({float(theta.norm()) for theta in pack.theta}) == 5


@pytest.mark.parametrize("net", [*NETS[:2], "activation=identity", "activation=power", NETS[4], "widths=[4,3]"])
def test_every_net_trains(net: str, resolved: Callable[..., Run]) -> None:
    """With the options of a user, from the command line to a smaller loss, under an attack."""
    steps = ["optimizer/schedule=relative", "stop.steps=30"]
    run = resolved("data=digits", "data.m=10", "model.init_scale=1", f"model.{net}", "eps=0.02", *steps)
    contracts.check(run)
    start = train_pack([dataclasses.replace(run, stop=dataclasses.replace(run.stop, steps=0))])[0]
    summary = train_pack([run])[0]
    assert summary["status"] != "diverged"
    assert summary["log_loss"] < start["log_loss"] - 0.01
