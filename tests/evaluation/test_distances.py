"""The least perturbation of each point, attacked and certified, against closed forms and brute force."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_runs

from robust_erm import evaluate
from robust_erm.attacks.fab import FAB
from robust_erm.attacks.pgd import PGD
from robust_erm.core.norms import Norm
from robust_erm.evaluation import packs
from robust_erm.evaluation.distances import Distances, certified, curve, distances, quantile
from robust_erm.evaluation.options import Options, parsed
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.oracles.boundary import across, lengths, nearest
from robust_erm.oracles.rays import flips
from robust_erm.reports.tables import load
from robust_erm.store.config import Run
from robust_erm.store.run_folder import folder_of
from robust_erm.training.pack import train_pack
from robust_erm.training.points import Points
from robust_erm.training.step import Recipe

FEW = ("fab.steps=5", "parts=test")
PS = (1.0, 2.0, math.inf)
Box = tuple[float, float] | None


def recipe_of(model: Any, d: int, p: float, outputs: int = 1) -> tuple[Recipe, torch.Tensor]:
    """A recipe, and its parameters at the start."""
    y = [1.0, -1.0] if outputs == 1 else [0.0, 1.0]
    runs = make_runs(np.ones((2, d)), y, [0.1], model=model, attack=PGD(p), outputs=outputs)
    return runs.recipe, runs.theta[0]


def both(recipe: Recipe, theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor, box: Box = None) -> Distances:
    """Both distances, by a short search."""
    row = torch.tensor([0])
    points = Points(x.unsqueeze(0), y.unsqueeze(0), row)
    (found,) = distances(recipe, theta.unsqueeze(0), points, points, row, FAB(recipe.attack.p, 20), box, True)
    return found


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("p", PS)
def test_a_linear_model_has_one_distance(p: float) -> None:
    """|<w, x>| / ||w||_*, from above and from below, and 0 where the label is wrong."""
    recipe, _ = recipe_of(Linear(), 6, p)
    x, w = drawn(300, 6), drawn(6, seed=1)  # two chunks
    y = torch.sign(x @ w)
    y[:9] *= -1
    found = both(recipe, w, x, y)
    expected = ((y * (x @ w)).clamp_min(0) / Norm(p).dual.value(w)).numpy()
    assert found.attacked == pytest.approx(expected, rel=1e-9)
    assert found.certified == pytest.approx(expected, rel=1e-9)
    assert (found.attacked[:9] == 0).all()
    assert found.attacked[9:].min() > 0


@pytest.mark.parametrize("p", PS)
def test_a_linear_model_of_several_classes_has_one_distance(p: float) -> None:
    """The least over rivals of <w_y - w_k, x> / ||w_y - w_k||_*."""
    recipe, _ = recipe_of(Linear(), 6, p, outputs=4)
    x, w = drawn(80, 6), drawn(4, 6, seed=1)
    y = (x @ w.T).argmax(1)
    y[:5] = (y[:5] + 1) % 4
    found = both(recipe, w.flatten(), x, y.double())
    expected = np.full(80, math.inf)
    strongest = 0
    for i in range(80):
        ways = [w[y[i]] - w[k] for k in range(4) if k != y[i]]
        own = [(float(way @ x[i]), float(Norm(p).dual.value(way))) for way in ways]
        expected[i] = min(max(0.0, margin) / size for margin, size in own)
        strongest += expected[i] == max(0.0, min(own)[0]) / min(own)[1]
    assert strongest < 80, "one target would not do"
    assert found.attacked == pytest.approx(expected, rel=1e-9)
    assert found.certified == pytest.approx(expected, rel=1e-9)
    assert (found.attacked[:5] == 0).all()


def test_equal_classes_leave_nothing() -> None:
    recipe, _ = recipe_of(Linear(), 3, 2.0, outputs=3)
    found = both(recipe, torch.ones(9).double(), drawn(4, 3), torch.tensor([0.0, 1.0, 2.0, 0.0]).double())
    assert found.certified is not None
    assert (found.attacked == 0).all()
    assert (found.certified == 0).all()


@pytest.mark.parametrize("seed", [0, 3])
def test_a_net_in_the_plane_against_all_directions(seed: int) -> None:
    """Every direction is followed exactly: nothing is nearer than the nearest, nothing within what is certified."""
    model = MLP(width=8, bias="first")
    recipe, _ = recipe_of(model, 2, 2.0)
    params = {k: v.double() for k, v in model.init(2, 1, torch.Generator().manual_seed(seed)).items()}
    x = drawn(40, 2, seed=seed)
    y = model.apply(params, x).sign()
    y[:3] *= -1
    found = both(recipe, recipe.layout.flatten(params), x, y)
    least = np.full(40, math.inf)
    for angle in torch.linspace(0, 2 * math.pi, 1801, dtype=torch.float64)[:-1]:
        least = np.minimum(least, flips(model, params, x, y, torch.stack([angle.cos(), angle.sin()])).first)
    assert (found.attacked[:3] == 0).all()
    ratio = found.attacked[3:] / least[3:]
    assert ratio.min() > 0.999
    assert np.median(ratio) < 1.001
    assert found.certified is not None
    assert (found.certified <= found.attacked).all()
    assert (found.certified <= least * (1 + 1e-9))[3:].all()
    assert np.median(found.certified[3:] / least[3:]) > 0.8, "and not far from it"


@pytest.mark.parametrize(("p", "box"), [(1.0, None), (2.0, None), (2.0, (-1.0, 1.0)), (math.inf, (-1.0, 1.0))])
def test_a_net_of_several_classes_is_certified_below_what_is_attacked(p: float, box: Box) -> None:
    model = MLP(width=10, bias="all")
    recipe, _ = recipe_of(model, 5, p, outputs=3)
    params = {k: v.double() for k, v in model.init(5, 3, torch.Generator().manual_seed(0)).items()}
    x = drawn(20, 5).clamp(-1, 1)
    y = model.apply(params, x).argmax(1).double()
    step = nearest(lambda z: model.apply(params, z), x, y, p, 20, across(x, y, x, y, Norm(p)), box=box)
    some, high = step.isfinite().all(1), lengths(Norm(p), step)
    assert bool(some.any())
    moved = model.apply(params, x + (1 + 1e-9) * step)[some]
    assert bool((moved.argmax(1) != y[some]).all()), "attained"
    assert bool(((x + step)[some].abs() <= 1 + 1e-12).all()) == (box is not None)
    low = certified(recipe, recipe.layout.flatten(params), x, y, high, box)
    assert bool((low <= high).all())
    assert bool((low > 0).all())
    assert float((low / high)[some].median()) > 0.2, "and not far from it"


def test_the_box_makes_distances_longer_or_infinite() -> None:
    """A linear model in the box: the least eps by a grid; none where the box holds one label only."""
    recipe, _ = recipe_of(Linear(), 3, math.inf)
    w = torch.tensor([3.0, -1.0, -0.5]).double()
    x = torch.rand(30, 3, generator=torch.Generator().manual_seed(0)).double()
    y = torch.sign(x @ w)
    found = both(recipe, w, x, y, (0.0, 1.0))
    grid = torch.linspace(0, 1, 20001).double().view(-1, 1, 1)
    low, high = (x - grid).clamp_min(0), (x + grid).clamp_max(1)
    slope = y.unsqueeze(1) * w
    broken = torch.minimum(slope * low, slope * high).sum(-1) <= 1e-12
    least = grid.flatten()[broken.to(torch.int8).argmax(0)].numpy()
    assert found.attacked == pytest.approx(least, abs=6e-5)
    assert found.certified == pytest.approx(found.attacked, rel=1e-5)
    free = both(recipe, w, x, y)
    assert (free.attacked <= found.attacked * (1 + 1e-9)).all()
    assert (free.attacked < 0.9 * found.attacked).any()
    one = both(recipe, w.abs(), x.clamp_min(0.2), torch.ones(30).double(), (0.2, 1.0))
    assert one.certified is not None
    assert np.isinf(one.attacked).all()
    assert np.isinf(one.certified).all()
    assert one.numbers("test")["test_distance_median"] is None, "JSON knows no infinity"


def test_a_net_of_one_label_is_certified_as_far_as_is_looked() -> None:
    recipe, _ = recipe_of(MLP(width=2, bias="all"), 2, 2.0)
    params = {"W1": torch.eye(2), "b1": torch.zeros(2), "W2": torch.ones(1, 2), "b2": torch.ones(1)}
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).double()
    found = both(recipe, recipe.layout.flatten({k: v.double() for k, v in params.items()}), x, torch.ones(2).double())
    assert np.isinf(found.attacked).all()
    assert found.certified == pytest.approx([100, 500])


@pytest.mark.parametrize("box", [None, (-9.0, 9.0)])
def test_more_certified_than_attacked_is_a_fault(box: Box) -> None:
    recipe, _ = recipe_of(Linear(), 4, 2.0)
    x, w = drawn(5, 4), drawn(4, seed=1)
    y, exact = torch.sign(x @ w), (x @ w).abs() / w.norm()
    assert certified(recipe, w, x, y, exact, box).numpy() == pytest.approx(exact.numpy(), rel=1e-5)
    exact[3] *= 0.99
    with pytest.raises(ArithmeticError, match="within its certified distance"):
        certified(recipe, w, x, y, exact, box)


def test_parameters_that_are_no_numbers_have_no_label() -> None:
    recipe, _ = recipe_of(Linear(), 3, 2.0)
    found = both(recipe, torch.full((3,), math.nan).double(), drawn(4, 3), torch.ones(4).double())
    assert (found.attacked == 0).all()


def test_curves_and_percentiles() -> None:
    values = np.array([0.0, 0.2, 0.2, math.inf])
    assert list(curve(values, [0, 0.1, 0.2, 5])) == [0.75, 0.75, 0.25, 0.25]
    assert quantile(values, 0.5) == pytest.approx(0.2)
    assert quantile(values, 0.95) is None
    assert quantile(values, 0.0) == 0
    found = Distances(values, values / 2).numbers("train")
    assert found["train_certified_distance_median"] == pytest.approx(0.1)
    assert set(Distances(values, None).arrays("train")) == {"train_distance"}


def test_names_of_earlier_evaluations_stay() -> None:
    """Six digits that were given before there was such an option."""
    for line, name in {
        "attack=none": "none-eps0.1",
        "attack=square square.queries=5 checks=false": "square-eps0.1-eb778b",
        "points=30 certify=false parts=test": "auto-eps0.1-1d46d6",
        "attack=none measure=kkt": "none-eps0.1-157ce5",
        "exact=5 distance=false": "auto-eps0.1-de2643",
    }.items():
        assert parsed(["there", *line.split()])[1].name(0.1) == name
    other = parsed(["there", "distance=true"])[1]
    assert other.name(0.1) != Options().name(0.1)
    assert other.what["distance"] is True


@pytest.fixture
def trained(resolved: Callable[..., Run]) -> Callable[..., list[Run]]:
    """trained(overrides) -> two runs that have ended."""

    def of(*overrides: str) -> list[Run]:
        runs = [resolved(*overrides, f"seed={seed}") for seed in range(2)]
        train_pack(runs)
        return runs

    return of


def kept(run: Run) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What evaluations left: numbers and arrays of each."""
    paths = sorted(folder_of(run).glob("evaluations/*.json"))
    return [(json.loads(p.read_text()), dict(np.load(p.with_suffix(".npz")))) for p in paths]


def test_the_command_from_end_to_end(
    trained: Callable[..., list[Run]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a run, whatever the radii; columns of both tables; curves beside what is certified at one radius."""
    runs = trained("model.width=8", "stop.steps=60", "eps=0.1")
    folder, asked = str(folder_of(runs[0]).parent), []
    real = packs.distances
    monkeypatch.setattr(packs, "distances", lambda *given: asked.append(len(given[4])) or real(*given))
    line = [folder, "attack=none", "checks=false", "points=10", "fab.steps=5", "eps=0.05,0.1"]
    assert evaluate.main([*line, "distance=true"]) == 0
    assert sum(asked) == 4, "two runs, two parts"
    shown = capsys.readouterr().out
    assert "median l_p distance" in shown
    frame = load(folder)
    for run in runs:
        for numbers, arrays in kept(run):
            high, low = arrays["test_distance"], arrays["test_certified_distance"]
            assert len(high) == len(low) == len(arrays["test_index"]) == 10
            assert (low <= high).all()
            assert numbers["test_distance_median"] == pytest.approx(np.median(high))
            assert numbers["test_distance_least"] == high.min()
            assert numbers["train_certified_distance_5"] <= numbers["train_certified_distance_95"]
            column = frame[f"evaluated.{numbers['name']}.test_distance_median"]
            assert numbers["test_distance_median"] in list(column)
            assert curve(low, numbers["eps"]) == pytest.approx(numbers["test_certified"], abs=1e-9)
            assert curve(high, 0) == numbers["test_clean"]
            assert curve(high, numbers["eps"]) <= numbers["test_attacked"]
            assert 0.2 < numbers["test_attacked"] < 1
    assert evaluate.main(line) == 0
    assert "distance" not in capsys.readouterr().out, "where it is not asked for"


def test_curves_of_a_linear_model_are_its_robust_accuracies(trained: Callable[..., list[Run]]) -> None:
    run, _ = trained("model=linear", "attack=exact", "stop.steps=100", "eps=0.1")
    line = [str(folder_of(run)), "attack=none", "checks=false", "distance=true", *FEW]
    assert evaluate.main([*line, "eps=0.05,0.2"]) == 0
    found = kept(run)
    assert len({numbers["test_attacked"] for numbers, _ in found}) == 2
    for numbers, arrays in found:
        assert curve(arrays["test_distance"], numbers["eps"]) == numbers["test_attacked"]
        assert curve(arrays["test_certified_distance"], numbers["eps"]) == numbers["test_attacked"]
        assert numbers["box"] is None


def test_a_model_without_certificates_is_attacked_only(
    trained: Callable[..., list[Run]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained("model=cnn", "model.channels=[2,2]", "model.hidden=8", "stop.steps=10", "eps=0.1")
    line = [str(folder_of(run)), "attack=none", "checks=false", "distance=true", "points=10", *FEW]
    assert evaluate.main(line) == 0
    ((numbers, arrays),) = kept(run)
    assert len(arrays["test_distance"]) == 10
    assert "test_distance_median" in numbers
    assert not any("certified" in key for key in (*numbers, *arrays))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("distance=3", "distance = 3: must be true or false"),
        ("distance=true", "distance = true: is searched in l_1, l_2 and l_inf: not for p = 1.5 of"),
        ("distance=true fab.targets=0", "distance = true: is searched"),
    ],
)
def test_refusals(line: str, says: str, trained: Callable[..., list[Run]], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = trained("model=linear", "attack=exact", "p=1.5", "eps=0.1", "stop.steps=2")
    assert evaluate.main([str(folder_of(run)), "attack=none", *line.split()]) == 2
    assert says in capsys.readouterr().err
    assert not Path(folder_of(run) / "evaluations").exists()
