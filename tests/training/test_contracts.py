"""Components that break their contracts are refused before anything is trained, in one line that says how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import command, folders
from torch import Tensor

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.pgd import PGD
from robust_erm.core.errors import ConfigError
from robust_erm.core.margins import margin
from robust_erm.data.dataset import Dataset
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective, scores
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant
from robust_erm.store.config import Run
from robust_erm.training import contracts
from robust_erm.training.problem import draw


@dataclass(frozen=True)
class Net(MLP):
    """A net with a chosen fault."""

    fault: str = ""

    @property
    def degree(self) -> int | None:
        return {"degree": 3, "fraction": 2.5}.get(self.fault, super().degree)  # type: ignore[return-value]

    def init(self, d: int, outputs: int, generator: torch.Generator) -> dict[str, Tensor]:
        params = super().init(d, outputs, generator)
        if self.fault == "global":
            params = {name: torch.randn(p.shape) for name, p in params.items()}
        if self.fault == "whole":
            params = {name: p.round().long() for name, p in params.items()}
        return {} if self.fault == "empty" else params

    def apply(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        f = super().apply(params, x)
        if self.fault == "raises":
            raise KeyError("W3")
        if self.fault == "item" and f.sum().item() == 7:  # which cannot be mapped, whatever it finds
            return -f
        return {
            "column": lambda: f.unsqueeze(-1),
            "row": lambda: f.unsqueeze(0),
            "scalar": lambda: f.sum(),
            "nan": lambda: f / 0 * 0,
            "float32": lambda: f.float(),
            "batch": lambda: f - f.mean(),
            "numpy": lambda: f.detach().numpy(),
        }.get(self.fault, lambda: f)()


@dataclass(frozen=True)
class Slanted(Linear):
    """A weight that is not that of ``apply``."""

    def weight(self, params: dict[str, Tensor]) -> Tensor:
        return 2 * params["w"]


@dataclass(frozen=True)
class Descent(Steepest):
    """An optimizer with a chosen fault."""

    fault: str = ""

    def update(self, grad: Tensor, log_loss: Tensor, state: Any, layout: Any) -> Any:
        direction, scale, state = super().update(grad, log_loss, state, layout)
        return {
            "half": (direction[:1], scale, state),
            "scale": (direction, grad, state),
            "nan": (direction * torch.nan, scale, state),
            "memory": (direction, scale, {"velocity": grad}),
        }.get(self.fault, (direction, scale, state))


@dataclass(frozen=True)
class Steps(Constant):
    """A step size for each parameter."""

    def log_step(self, t: Tensor, point: Any, eps: Tensor, bound: Tensor, state: Any) -> Tensor:
        return point.grad


@dataclass(frozen=True)
class Reach(PGD):
    """An attack with a chosen fault."""

    fault: str = ""

    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        moved = super().perturb(victim, eps, noise)
        return {
            "far": lambda: victim.x + 2 * eps * (moved - victim.x).sign(),
            "outside": lambda: victim.x - eps,
            "short": lambda: moved[:, :2],
            "nan": lambda: moved * torch.nan,
        }.get(self.fault, lambda: moved)()


class Leaky(MLP):
    """A net whose layers are not those that it inherits."""

    def apply(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        return (torch.nn.functional.leaky_relu(x @ params["W1"].mT) @ params["W2"].mT).squeeze(-1)


class Tempered(Objective):
    """A loss whose derivative is not the one that it inherits."""

    def of_scores(self, s: Tensor) -> Tensor:
        return super().of_scores(0.5 * s)


class Masked(Exact):
    """An attack that says it is the worst case of the whole ball, and is that of the first inputs."""

    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        return torch.cat([super().perturb(victim, eps, noise)[:, :2], victim.x[:, 2:]], 1)


class OfOurs(Exact):
    """The same as it is."""

    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        return super().perturb(victim, eps, noise)


class Untold(Tempered):
    """A loss that says nothing of its derivative."""

    shares = None  # type: ignore[assignment]


class Together(PGD):
    """An attack that says it looks at each point alone, and does not."""

    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        moved = super().perturb(victim, eps, noise)
        return victim.x + (moved - victim.x).mean(0)


class OneRadius(PGD):
    """An attack that says it takes a radius for each point, and does not."""

    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        return super().perturb(victim, eps if eps.ndim == 0 else 0.5 * eps, noise)


@dataclass(frozen=True)
class Mine:
    """A data set with a chosen fault."""

    fault: str = ""
    classes: int = 2

    @property
    def dimension(self) -> int:
        return 4

    @property
    def n_classes(self) -> int:
        return self.classes

    def check(self) -> None:
        if self.fault == "check":
            raise FileNotFoundError("mine.npz")

    def draw(self, seed: int) -> Dataset:
        rng = np.random.default_rng(seed)
        x, y = rng.random((30, 4)), rng.choice([-1.0, 1.0], 30)
        if self.classes > 2:
            y = rng.integers(self.classes, size=30).astype(float)
        test = (x[:5], y[:5])
        changed: dict[str, Any] = {
            "zeros": (x, (y + 1) / 2),
            "classes": (x, y + 1),
            "one": (x, np.ones(30)),
            "lengths": (x, y[:-1]),
            "column": (x, y[:, None]),
            "wide": (rng.random((30, 5)), y),
            "nan": (np.where(x > 0.9, np.nan, x), y),
            "domain": (255 * x, y),
            "text": (x.astype(str), y),
            "none": (x[:0], y[:0]),
        }
        if self.fault == "file":
            raise FileNotFoundError(2, "No such file or directory", "mine.npz")
        if self.fault == "test":
            test = (np.where(x[:5] > 0.5, np.inf, x[:5]), y[:5])
        if self.fault == "untested":
            test = (x[:0], y[:0])
        return Dataset(*changed.get(self.fault, (x, y)), lambda: test, domain=(0.0, 1.0))


def net(fault: str) -> dict[str, Any]:
    return {"model": Net(width=5, init_scale=1.0, fault=fault)}


class Whole(Steepest):
    """Looks at all runs together."""

    run_axis = True

    def update(self, grad: Tensor, log_loss: Tensor, state: Any, layout: Any) -> Any:
        return grad / grad.norm(), log_loss, state


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "column": (net("column"), "apply, for 3 points and 1 logit, gives shape (3, 1), must give (3,)"),
    "row": (net("row"), "gives shape (1, 3), must give (3,)"),
    "scalar": (net("scalar"), "gives shape (), must give (3,)"),
    "nan": (net("nan"), "gives numbers that are not finite"),
    "float32": (net("float32"), "gives torch.float32, must give torch.float64"),
    "numpy": (net("numpy"), "gives ndarray, must give a tensor"),
    "batch": (net("batch"), "gives a point other outputs beside other points"),
    "raises": (net("raises"), "apply raises KeyError: 'W3'"),
    "item": (net("item"), "torch.func.vmap"),
    "degree": (net("degree"), "model.degree = 3: is not the degree of test_contracts.Net"),
    "fraction": (net("fraction"), "model.degree = 2.5: must be a whole number, or None"),
    "global": (net("global"), "init gives another W1 for the same generator"),
    "whole": (net("whole"), "init gives W1 in torch.int64, must give floating point"),
    "empty": (net("empty"), "init gives no tensors by name"),
    "weight": ({"model": Slanted()}, "weight is not that of apply"),
    "layers": ({"model": Leaky(width=5)}, "stack is not the model of apply: they differ by"),
    "shares": ({"objective": Tempered()}, "shares is not the derivative of log_loss"),
    "together": (
        {"attack": Together(box=False)},
        "samplewise, but perturb moves a point otherwise beside others",
    ),
    "radius": ({"attack": OneRadius()}, "samplewise, but perturb gives other points for eps (n, 1) than for eps ()"),
    "masked": ({"attack": Masked(), "model": Linear()}, "closed_form, but perturb is not the worst case"),
    "masked, evaluated": (
        {"eval_attacks": {"mine": Masked()}, "model": Linear()},
        "eval_attacks.mine = test_contracts",
    ),
    "axis": (
        {"optimizer": Whole(Constant(0.1))},
        "update with a run axis (run_axis = True) differs from that of each run alone",
    ),
    "half": ({"optimizer": Descent(Constant(0.1), fault="half")}, "gives shape (1,), must give (45,)"),
    "scale": ({"optimizer": Descent(Constant(0.1), fault="scale")}, "update a log_scale that gives shape (45,)"),
    "direction": ({"optimizer": Descent(Constant(0.1), fault="nan")}, "gives numbers that are not finite"),
    "memory": ({"optimizer": Descent(Constant(0.1), fault="memory")}, "update gives another state than init"),
    "steps": ({"optimizer": Steepest(Steps(0.1))}, "log_step gives shape (45,), must give ()"),
    "far": ({"attack": Reach(fault="far")}, "perturb leaves the l_inf ball, by 1 of its radius"),
    "outside": ({"attack": Reach(fault="outside")}, "perturb leaves the data's domain"),
    "short": ({"attack": Reach(fault="short")}, "gives shape (3, 2), must give (3, 8)"),
    "eval": ({"eval_attacks": {"mine": Reach(fault="nan")}}, "eval_attacks.mine = test_contracts.Reach"),
    "zeros": ({"data": Mine("zeros")}, "gives labels 0, 1 in y_train, must give -1 and +1 for 2 classes"),
    "classes": ({"data": Mine("classes", 3)}, "gives labels 1, 2, 3 in y_train, must give 0 to 2 for 3 classes"),
    "one": ({"data": Mine("one")}, "all 30 training points have the label 1; 2 classes need points of each"),
    "lengths": ({"data": Mine("lengths")}, "gives y_train of shape (29,) for 30 points, must give (30,)"),
    "columns": ({"data": Mine("column")}, "gives y_train of shape (30, 1) for 30 points"),
    "wide": ({"data": Mine("wide")}, "gives x_train of shape (30, 5), must give (n, 4)"),
    "nans": ({"data": Mine("nan")}, "numbers in x_train that are not finite"),
    "domain": ({"data": Mine("domain")}, "must stay in its domain [0.0, 1.0]"),
    "text": ({"data": Mine("text")}, "must give real numbers"),
    "none": ({"data": Mine("none")}, "gives no points in x_train"),
    "file": ({"data": Mine("file")}, "draw raises FileNotFoundError: [Errno 2] No such file or directory: 'mine.npz'"),
    "test": ({"data": Mine("test")}, "numbers in x_test that are not finite"),
    "untested": ({"data": Mine("untested")}, "gives no points in x_test, must give one at least"),
}


def check(run: Run) -> None:
    contracts.check(run)
    contracts.check_data(run.data, run.seed)


@pytest.mark.parametrize("name", CASES)
def test_what_breaks_its_contract_is_refused(name: str, resolved: Callable[..., Run]) -> None:
    changes, message = CASES[name]
    classes = getattr(changes.get("data"), "classes", 2)
    extra = ["objective=cross_entropy", "data.classes=[0,1,2]"] if classes > 2 else []
    run = resolved("data=digits", "model.width=5", *extra)
    if "optimizer" in changes or "attack" in changes or "eval_attacks" in changes:
        run = resolved("data=gaussian", "data.d=8", "data.m=4", "model.width=5")
    run = dataclasses.replace(run, **changes)
    with pytest.raises(ConfigError) as caught:
        check(run)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_keeps_its_contract_is_not(resolved: Callable[..., Run]) -> None:
    run = resolved("data=digits", "model.width=5", "optimizer=sd")
    own = {"model": Linear(), "attack": OfOurs()}, {"objective": Untold()}
    for changes in (
        *own,
        {"data": Mine()},
        net(""),
        {"attack": Reach()},
        {"optimizer": Descent(Constant(0.1))},
    ):
        changed = dataclasses.replace(run, **changes)
        check(changed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("depth", [1, 3, 20])
def test_deep_and_small_nets_keep_theirs(depth: int, dtype: str, resolved: Callable[..., Run]) -> None:
    for model in (f"model=mlp model.init_scale=0.01 model.depth={depth}", f"model=deep_linear model.depth={depth}"):
        contracts.check(resolved(*model.split(), f"dtype={dtype}"))


def test_missing_members_are_named(resolved: Callable[..., Run]) -> None:
    @dataclass(frozen=True)
    class Bare:
        pass

    run = resolved()
    for key, says in (
        ("model", "has no degree, init, apply"),
        ("optimizer", "has no schedule"),
        ("attack", "has no p"),
    ):
        with pytest.raises(ConfigError, match=says):
            dataclasses.replace(run, **{key: Bare()})


def test_outputs_of_one_column_never_reach_a_margin() -> None:
    """Where no contract was asked for, too."""
    f, y = torch.zeros(3, 1), torch.ones(3)
    for function in (margin, scores):
        with pytest.raises(ValueError, match=r"outputs of shape \(3, 1\) for labels of shape \(3,\)"):
            function(f, y)


def test_every_draw_is_looked_at(resolved: Callable[..., Run]) -> None:
    """Not the first alone: what goes wrong for one seed ends that run."""
    with pytest.raises(ConfigError, match="must give -1 and"):
        draw(Mine("zeros"), 7)


def test_from_the_command_line(tmp_path: Path) -> None:
    """A model with one column, as most torch nets have: nothing is trained, one line, status 2."""
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from robust_erm.models.mlp import MLP\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Column(MLP):\n"
        "    def apply(self, params, x):\n"
        "        return super().apply(params, x).unsqueeze(-1)\n"
    )
    for mode in ([], ["-m"]):
        done = command(*mode, "model._target_=mine.Column", "stop.steps=2", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("robust_erm: model = mine.Column: apply, for 3 points and 1 logit, gives shape")
        assert "Traceback" not in done.stderr
    assert not folders(tmp_path)


def test_it_is_done_once(resolved: Callable[..., Run]) -> None:
    """The second look at the same components computes nothing."""
    run = resolved("data=digits", "model.width=7")
    contracts.check(run)
    before = contracts._model.cache_info().misses
    for seed in range(100):
        contracts.check(dataclasses.replace(run, seed=seed))
    assert contracts._model.cache_info().misses == before
