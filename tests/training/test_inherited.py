"""A component of one's own that inherits from ours and computes something else is not trained as ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from conftest import make_runs, train
from torch import Tensor

from robust_erm.attacks.exact import Exact
from robust_erm.attacks.none import NoAttack
from robust_erm.attacks.pgd import PGD
from robust_erm.core.fields import unchanged
from robust_erm.core.params import Params
from robust_erm.evaluation.certificates import certifiable
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.objectives import Objective
from robust_erm.optimizers.steepest import Steepest
from robust_erm.oracles.kkt import kkt
from robust_erm.schedules.bounded_loss import BoundedLoss


class Slower(Steepest):
    def update(self, *args: Any, **kwargs: Any) -> Any:
        direction, scale, state = super().update(*args, **kwargs)
        return 0.5 * direction, scale, state


class Weaker(Exact):
    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        return super().perturb(victim, 0.5 * eps, noise)

    @property
    def closed_form(self) -> bool:
        return False


class Backwards(PGD):
    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        return 2 * victim.x - super().perturb(victim, eps, noise)


class Moved(NoAttack):
    def perturb(self, victim: Any, eps: Tensor, noise: Tensor) -> Tensor:
        return victim.x + 0.1


class Tempered(Objective):
    def of_scores(self, s: Tensor) -> Tensor:
        return super().of_scores(0.5 * s)

    shares = None  # type: ignore[assignment]


class Halved(Linear):
    def weight(self, params: Params) -> Tensor:
        return 0.5 * super().weight(params)

    def apply(self, params: Params, x: Tensor) -> Tensor:
        return 0.5 * super().apply(params, x)

    stack = None  # type: ignore[assignment]


class Doubled(Diagonal):
    def weight(self, params: Params) -> Tensor:
        return 2 * super().weight(params)


class Leaky(MLP):
    def apply(self, params: Params, x: Tensor) -> Tensor:
        h = torch.nn.functional.leaky_relu(x @ params["W1"].mT, 0.5)
        return (h @ params["W2"].mT).squeeze(-1)

    stack = None  # type: ignore[assignment]


STEP = BoundedLoss()
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "optimizer": ({"optimizer": Slower(STEP)}, {"optimizer": Steepest(STEP)}),
    "optimizer of a net": (
        {"optimizer": Slower(STEP), "model": MLP(width=4), "attack": PGD()},
        {"optimizer": Steepest(STEP)},
    ),
    "exact attack": ({"attack": Weaker()}, {"attack": Exact()}),
    "pgd": ({"attack": Backwards(), "model": MLP(width=4)}, {"attack": PGD()}),
    "no attack": ({"attack": Moved()}, {"attack": NoAttack()}),
    "no attack on a net": ({"attack": Moved(), "model": MLP(width=4)}, {"attack": NoAttack()}),
    "objective": ({"objective": Tempered()}, {"objective": Objective()}),
    "objective of a net": (
        {"objective": Tempered(), "model": MLP(width=4), "attack": PGD()},
        {"objective": Objective()},
    ),
    "linear": ({"model": Halved(init_scale=0.1)}, {"model": Linear(init_scale=0.1)}),
    "diagonal": ({"model": Doubled()}, {"model": Diagonal()}),
    "net": ({"model": Leaky(width=4), "attack": PGD()}, {"model": MLP(width=4)}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_trained_as_it_says(case: str) -> None:
    """The faster forms give what the mapped one gives, and that is not what the base class gives."""
    own, base = CASES[case]
    g = torch.Generator().manual_seed(3)
    x, y = torch.rand(8, 5, generator=g).double(), torch.tensor([1.0, -1] * 4).double()

    def trained(compiled: bool, **components: Any) -> Tensor:
        runs = make_runs(x, y, [0.1, 0.05], steps=30, **components)
        runs.compiled = compiled
        runs.__post_init__()
        return train(runs).theta

    found, mapped = trained(True, **own), trained(False, **own)
    assert torch.allclose(found, mapped, rtol=1e-8, atol=1e-12)
    ours = trained(True, **{**own, **base})
    assert not torch.allclose(found, ours, rtol=1e-3), "the case tells them apart"


def test_what_knows_formulas_of_a_class_asks_what_is_inherited() -> None:
    @dataclass(frozen=True)
    class Started(MLP):
        """Another start, the same net."""

        more: float = 1.0

        def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
            return {name: self.more * p for name, p in super().init(d, outputs, generator).items()}

    assert unchanged(MLP(), MLP)
    assert unchanged(Started(), MLP, "init")
    assert not unchanged(Started(), MLP)
    assert not unchanged(Leaky(), MLP, "init")
    assert not unchanged(Linear(), MLP)
    runs = [
        make_runs(torch.eye(3), torch.ones(3), [0.1], model=m(width=4), attack=PGD()) for m in (MLP, Started, Leaky)
    ]
    assert [certifiable(run.recipe) for run in runs] == [True, True, False], "no certificate of another net"
    others = [MLP(activation=kind) for kind in ("leaky", "identity", "power")] + [MLP(widths=(4, 4)), MLP(depth=3)]
    for model in [*others, MLP(activation="leaky", slope=0.0), MLP(activation="power", power=1.0)]:
        assert not certifiable(make_runs(torch.eye(3), torch.ones(3), [0.1], model=model, attack=PGD()).recipe)
    for model in (MLP(widths=(4,), depth=3), MLP(trained="first")):
        assert certifiable(make_runs(torch.eye(3), torch.ones(3), [0.1], model=model, attack=PGD()).recipe)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([1.0, -1, 1, -1, 1, -1], dtype=torch.float64)
    params = Leaky(width=4).init(3, 1, torch.Generator().manual_seed(0))
    assert kkt(Leaky(width=4), params, x, y).stationarity != kkt(MLP(width=4), params, x, y).stationarity
