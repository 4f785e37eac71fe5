"""Fully connected models: the form of matrix products beside the mapped one, which is the reference."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
import yaml
from conftest import make_runs
from torch import Tensor

from robust_erm.attacks.apgd import APGD
from robust_erm.attacks.attack import Victim
from robust_erm.attacks.exact import Exact
from robust_erm.attacks.fab import FAB
from robust_erm.attacks.fgm import FGM
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.attacks.square import Square
from robust_erm.core.errors import ConfigError
from robust_erm.core.stack import Stack
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective, score_slopes, scores
from robust_erm.store.source import conf_dir
from robust_erm.store.typed import component
from robust_erm.training import resources, stacked
from robust_erm.training.attacked import attacked, attacked_points, clean
from robust_erm.training.mapped import Group

MODELS: dict[str, Any] = {
    "linear": Linear(init_scale=0.3),
    "deep_linear": DeepLinear(depth=3, width=5),
    "deep_linear of one": DeepLinear(depth=1),
    "mlp": MLP(width=7),
    "mlp, first bias": MLP(width=7, bias="first"),
    "mlp, all biases, deep": MLP(depth=4, width=6, bias="all"),
    "mlp, narrow": MLP(depth=3, width=1),
    "mlp, widths": MLP(widths=(7, 3), bias="all"),
    "mlp, leaky": MLP(depth=3, width=6, bias="first", activation="leaky", slope=0.3),
    "mlp, identity": MLP(width=6, bias="all", activation="identity"),
    "mlp, power": MLP(width=7, bias="all", activation="power"),
    "mlp, square": MLP(width=7, bias="first", activation="power", power=2.0),
    "mlp, any power": MLP(width=7, activation="power", power=1.3),
    "mlp, first layer": MLP(width=7, bias="first", trained="first"),
    "mlp, first layer, power": MLP(width=6, trained="first", activation="power", power=2.5),
}
ATTACKS = [NoAttack(), FGM(math.inf), FGM(3.0), PGD(random_start=True, restarts=2), APGD(steps=12), FAB(steps=8)]
ATTACKS += [
    PGD(p=2.0, box=False),
    PGD(p=1.0),
    APGD(p=1.0, steps=12, box=False),
    Square(queries=20),
    FAB(p=2.0, steps=8),
]
FEW = {"steps": 10, "restarts": 2, "queries": 20}  # of attacks from yamls at most


def from_yamls() -> list[Any]:
    """Every search of conf/attack for every threat that it knows, but those of ATTACKS."""
    found = []
    for path in sorted((conf_dir() / "attack").glob("*.yaml")):
        given = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "p"}
        given |= {key: min(most, given[key]) for key, most in FEW.items() if key in given}
        for p in (1.0, 2.0, 3.0, math.inf):
            try:
                attack = component({**given, "p": p}, f"attack.{path.stem}")
            except ConfigError:
                continue  # it says that it does not know this threat
            found += [attack] if not attack.closed_form and attack not in [*ATTACKS, *found] else []
    return found


OTHERS = from_yamls()
ALL = [*ATTACKS, *(pytest.param(one, marks=pytest.mark.turns(0.3)) for one in OTHERS)]
LOGITS = [1, 2, 4]


def logits(model: str) -> list[int]:
    """A fixed second layer is for one logit."""
    return LOGITS[:1] if "first layer" in model else LOGITS


OBJECTIVES = [Objective("exponential", "sum"), Objective("logistic", "mean"), Objective("cross_entropy", "mean")]


def packed(model: Any, attack: Any, outputs: int, objective: Objective, dtype: torch.dtype = torch.float64) -> Any:
    """Three runs on two sets of nine points in five dimensions, inputs in [0, 1]."""
    g = torch.Generator().manual_seed(1)
    x = torch.rand(3, 9, 5, generator=g, dtype=torch.float64)
    y = torch.randint(0, max(outputs, 2), (3, 9), generator=g).double()
    y = 2 * y - 1 if outputs == 1 else y
    options: dict[str, Any] = {"outputs": outputs, "seeds": [0, 1, 2], "domain": (0.0, 1.0), "dtype": dtype}
    return make_runs(x, y, [0.05, 0.2, 0.1], model=model, attack=attack, objective=objective, **options)


def both(runs: Any) -> list[tuple[Tensor, Tensor]]:
    """Losses and gradients by the mapped form, and by this one."""
    rows = torch.arange(3)
    noise = runs.noise(runs.recipe.attack, rows.tolist(), 9, runs.generators_of("attack"))
    groups = [Group(slice(None), runs._batch(rows), runs.recipe, stacked=form) for form in (False, True)]
    return [group.loss_and_grad(runs.theta, noise) for group in groups]


def test_every_attack_and_threat_is_held() -> None:
    """Each class with each of l_1, l_2, l_inf, where it says that it knows them."""
    held = {(type(attack).__name__, attack.p) for attack in [*ATTACKS, *OTHERS]}
    names = ("FGM", "PGD", "APGD", "FAB")
    assert {(name, p) for name in names for p in (1.0, 2.0, math.inf)} <= held
    assert {("Square", math.inf), ("PGDPublished", math.inf)} <= held  # which know no other
    assert {(one.loss, one.targets > 0) for one in OTHERS if isinstance(one, APGD)} >= {("dlr", False), ("dlr", True)}


def flat(model: str, attack: Any) -> bool:
    """Whether a point may have a slope that is rounding, of which a step of l_2 makes a direction.

    DLR is a ratio of logits: where one hidden unit of a net without biases is on, it is the same for all x near.
    """
    return model in ("mlp", "mlp, narrow", "mlp, square") and getattr(attack, "loss", "") == "dlr" and attack.p == 2


def fits(attack: Any, outputs: int) -> bool:
    """Whether it can attack a model of so many logits."""
    try:
        attack.check_fits(outputs)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("attack", ALL, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_both_forms_agree(model: str, attack: Any) -> None:
    """For every number of logits and objective, losses and gradients, and margins and points under the attack."""
    for outputs in (k for k in logits(model) if fits(attack, k) and not flat(model, attack)):
        for objective in OBJECTIVES if outputs == 1 else OBJECTIVES[2:]:
            runs = packed(MODELS[model], attack, outputs, objective)
            assert stacked.fits(runs.recipe, attack)
            (loss, grad), (other_loss, other_grad) = both(runs)
            assert torch.allclose(loss, other_loss, rtol=1e-12, atol=1e-12)
            assert torch.allclose(grad, other_grad, rtol=1e-9, atol=1e-11 * float(grad.abs().max()))
            found = []
            for compiled in (False, True):
                runs.compiled, runs.net = compiled, None
                points, rows = runs.train, torch.arange(3)
                moved = attacked_points(runs, attack, points, runs.eps, rows)
                found.append((clean(runs, points, rows), attacked(runs, attack, points, runs.eps, rows), moved))
            for a, b in zip(*found, strict=True):
                assert torch.allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
@pytest.mark.parametrize("model", ["linear", "deep_linear", "deep_linear of one"])
def test_the_exact_attack_agrees(model: str, p: float) -> None:
    for outputs in LOGITS:
        for objective in OBJECTIVES if outputs == 1 else OBJECTIVES[2:]:
            (loss, grad), (other_loss, other_grad) = both(packed(MODELS[model], Exact(p), outputs, objective))
            assert torch.allclose(loss, other_loss, rtol=1e-12, atol=1e-12)
            assert torch.allclose(grad, other_grad, rtol=1e-9, atol=1e-11 * float(grad.abs().max()))
            runs, found = packed(MODELS[model], Exact(p), outputs, objective), []
            for runs.compiled in (False, True):
                found.append(attacked_points(runs, Exact(p), runs.train, runs.eps, torch.arange(3)))
            assert torch.allclose(*found, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("attack", [Exact(), Exact(2.0), *ALL], ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_a_run_does_not_notice_its_pack(model: str, attack: Any) -> None:
    """The bits of a run alone are those in a pack, in both precisions."""
    if attack.closed_form and model.startswith("mlp"):
        return
    for outputs, dtype in itertools.product((1, max(logits(model))), (torch.float64, torch.float32)):
        if not fits(attack, outputs):
            continue
        runs = packed(MODELS[model], attack, outputs, OBJECTIVES[2], dtype)
        noise = runs.noise(attack, [0, 1, 2], 9, runs.generators_of("attack"))
        whole = Group(slice(None), runs._batch(torch.arange(3)), runs.recipe, True).loss_and_grad(runs.theta, noise)
        for i in range(3):
            alone = runs._batch(torch.tensor([i]))
            found = Group(slice(None), alone, runs.recipe, True).loss_and_grad(runs.theta[i : i + 1], noise[i : i + 1])
            assert torch.equal(found[0][0], whole[0][i])
            assert torch.equal(found[1][0], whole[1][i])


def test_derivatives_of_losses() -> None:
    """Against autograd, from scores of -800 to 800; beside them, that of the scores themselves."""
    s = torch.cat([torch.linspace(-800, 800, 41), torch.linspace(-20, 20, 81)]).double()
    for objective in OBJECTIVES:
        for row in (s, s[:1], s.flip(0)[:7]):
            grad, value = torch.func.grad_and_value(objective.of_scores)(row)
            found, share = objective.shares(row.unsqueeze(0))
            assert torch.allclose(found[0], value, rtol=1e-14)
            assert torch.allclose(share[0], grad, rtol=1e-11, atol=1e-300)
    f, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0.0, 1, 2, 3, 0, 1], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda f: scores(f, y), f)
    found, slopes = score_slopes(f, y)
    assert torch.allclose(found, scores(f, y))
    assert torch.allclose(slopes, torch.stack([jacobian[i, i] for i in range(6)]))


@dataclasses.dataclass(frozen=True)
class Shift:
    """An attack of one's own: it sees one run at a time."""

    p: float = math.inf
    closed_form: bool = False

    def check_fits(self, outputs: int) -> None:
        """Any."""

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return torch.empty(0, n, d, dtype=torch.float64)

    def perturb(self, victim: Victim, eps: Tensor, noise: Tensor) -> Tensor:
        """All points move together."""
        return victim.x - eps * victim.margin_gradient(victim.x).mean(0).sign()


@dataclasses.dataclass(frozen=True)
class Tied:
    """A model of one's own, fully connected: W = diag(u) in both layers, or a parameter that nothing uses."""

    tied: bool
    degree = 2

    @property
    def stack(self) -> Stack:
        """Its layers."""
        return Stack((("u", None), ("u" if self.tied else "v", None)), MLP(width=4).stack.activation)

    def init(self, d: int, outputs: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Normal."""
        shapes = {"u": (d, d)} if self.tied else {"u": (d, d), "v": (d, d), "w": (3,)}
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    def apply(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """As of its stack, all of whose outputs are classes."""
        return (x @ params["u"].mT).relu() @ params["u" if self.tied else "v"].mT


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_that_stand_twice_or_nowhere_are_left_to_autograd(tied: bool) -> None:
    runs = packed(Tied(tied), ATTACKS[0], 5, OBJECTIVES[2])
    assert not stacked.fits(runs.recipe, runs.recipe.attack)
    (loss, grad), (other_loss, other_grad) = both(runs)
    assert torch.equal(loss, other_loss)
    assert torch.equal(grad, other_grad)


def test_components_of_ones_own_are_mapped() -> None:
    """Unless they say what this form needs to know."""
    runs = packed(MLP(width=4), Shift(), 1, OBJECTIVES[1])
    assert not stacked.fits(runs.recipe, Shift())
    assert all(map(torch.equal, *both(runs)))
    assert isinstance(MLP(width=4).stack, Stack)


@pytest.mark.parametrize("model", MODELS)
def test_numbers_that_a_point_makes(model: str) -> None:
    """As counted where tensors are made: for a second point, since what weights alone make is no point's."""
    for outputs in logits(model):
        params = MODELS[model].init(5, outputs, torch.Generator())
        counts = []
        for n in (1, 2):
            x = torch.zeros(n, 5, dtype=torch.float64)
            with resources._Counted([*params.values(), x]) as counted:
                MODELS[model].apply(params, x)
            counts.append(counted.count)
        assert MODELS[model].stack.numbers(params) == counts[1] - counts[0]
