"""A network of a user's own under strong attacks: the numbers of runs, exact answers, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import run
from torch import nn

from robust_erm.attacks.apgd import APGD
from robust_erm.core.errors import ConfigError
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout
from robust_erm.evaluation import modules
from robust_erm.evaluation.as_module import as_module
from robust_erm.evaluation.distances import curve
from robust_erm.evaluation.known import known
from robust_erm.evaluation.modules import evaluate
from robust_erm.evaluation.options import attack_named
from robust_erm.evaluation.spent import Counted, of_each_point
from robust_erm.models.mlp import MLP
from robust_erm.store.config import Run

QUICK: dict[str, Any] = {"square": {"queries": 50}, "apgd": {"steps": 30, "restarts": 1}, "fab": {"steps": 10}}


def points(n: int, d: int, classes: int = 2, seed: int = 0) -> tuple[torch.Tensor, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=generator, dtype=torch.float64)
    return x, np.arange(n) % classes


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("classes", [1, 3])
def test_linear_nets_have_their_exact_robust_accuracy(p: float, classes: int) -> None:
    """Without a box the bound is ``min_k (<w_y - w_k, x> + b_y - b_k) - eps ||w_y - w_k||_*``, and attacks reach it."""
    torch.manual_seed(1)
    net = nn.Linear(12, classes).double()
    x, y = points(60, 12, max(classes, 2))
    w, b = net.weight.detach(), net.bias.detach()
    if classes == 1:
        sign = torch.as_tensor(2.0 * y - 1)
        slopes, shifts = (sign[:, None] * w)[:, None], (sign * b)[:, None]
    else:
        others = torch.tensor([[k for k in range(3) if k != own] for own in y])
        slopes, shifts = w[y][:, None] - w[others], b[y][:, None] - b[others]
    exact = ((slopes * x[:, None]).sum(-1) + shifts - 0.05 * Norm(p).dual.value(slopes)).amin(-1)
    found = evaluate(net, x, y, 0.05, p, **QUICK)
    (row,) = found.table.to_dict("records")
    share = float((exact > 0).double().mean())
    assert 0.02 < share < 0.98
    assert row["attacked"] == row["certified"] == pytest.approx(share)
    stands = exact.numpy() > 0
    np.testing.assert_allclose(found.certified[p, 0.05], exact.numpy(), atol=1e-9)
    beyond = found.margins[p, 0.05][stands] - exact.numpy()[stands]
    assert beyond.min() > -1e-9
    assert beyond.max() < (1e-2 if p == 1 and classes > 1 else 1e-9), "in l_1 a few steps end beside the best vertex"


def test_the_numbers_are_those_of_a_run(resolved: Callable[..., Run]) -> None:
    """One net, as a run's recipe is evaluated and as a module: the same certificates, attacks that agree."""
    torch.manual_seed(0)
    model = MLP(width=6, bias="all")
    params = model.init(10, 1, torch.Generator().manual_seed(3))
    x, y = points(80, 10)
    found = evaluate(as_module(model, params), x, y, [0.02, 0.05], domain=(0, 1), **QUICK)
    assert list(found.table.columns) == ["p", "eps", "points", "clean", "after_apgd", "after_fab", "after_square",
                                         "attacked", "certified"]  # fmt: skip
    f = model.apply(params, x)
    assert found.table["clean"].iloc[0] == float(((2 * torch.as_tensor(y) - 1) * f > 0).double().mean())
    assert (found.table["certified"] <= found.table["attacked"]).all()
    assert found.table["attacked"].is_monotonic_decreasing
    for key, low in found.certified.items():
        assert (low <= found.margins[key] + 1e-9).all()
    assert Layout.of(params).size == sum(q.numel() for q in as_module(model, params).parameters())


def test_distances_give_robust_accuracy_at_every_radius() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = points(50, 8, 3)
    found = evaluate(net, x, y, [0.02, 0.1], distance=True, fab={"steps": 30})
    assert found.distances is not None
    assert ((found.distances == 0) == (net(x).argmax(-1).numpy() != y)).all()
    np.testing.assert_allclose(curve(found.distances, [0.02, 0.1]), found.table["attacked"], atol=0.021)


def test_robust_accuracy_is_of_the_largest_radius_in_whatever_order() -> None:
    torch.manual_seed(0)
    net = nn.Linear(8, 1).double()
    x, y = points(50, 8, 2)
    one, other = (evaluate(net, x, y, radii, **QUICK).robust_accuracy for radii in ([0.1, 0.4], [0.4, 0.1]))
    assert one == other
    assert one < evaluate(net, x, y, 0.1, **QUICK).robust_accuracy


def test_a_union_is_judged_point_by_point() -> None:
    """Towards class 1 all coordinates pull a little (l_inf wins), towards class 2 a single one does (l_2 wins)."""
    net = nn.Linear(12, 3, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.stack([torch.zeros(12), torch.full((12,), -0.1), -torch.eye(12)[0]]))
    x = torch.zeros(60, 12, dtype=torch.float64)
    x[:, 0], x[:, 1] = 0.07 * torch.rand(60) + 0.05, torch.rand(60) + 0.3
    radii, norms = [0.05, 0.1, 0.08], [math.inf, 2, 1]
    found = evaluate(net, x, np.zeros(60), radii, norms, **QUICK)
    slopes = -net.weight.detach()[1:]
    left = [(x @ slopes.T - eps * Norm(p).dual.value(slopes)).amin(-1) > 0 for p, eps in zip(norms, radii, strict=True)]
    union = found.table.iloc[-1]
    assert len(found.table) == 4
    assert union["attacked"] == union["certified"] == found.robust_accuracy
    assert union["attacked"] == pytest.approx(float(torch.stack(left).all(0).double().mean()))
    assert union["attacked"] < found.table["attacked"].iloc[:3].min(), "each threat breaks some that the others do not"


def test_shapes_precision_and_labels() -> None:
    """Images as the module takes them, in its own precision; (n, 1) and (n,) alike; 0 and 1, -1 and +1 alike."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 1))
    x, y = points(20, 16)
    images = x.reshape(-1, 1, 4, 4).numpy()
    found = evaluate(body, images, y, 0.02, domain=(0, 1), **QUICK)
    flat = evaluate(lambda z: body(z)[:, 0], images.astype(np.float32), 2 * y - 1, 0.02, domain=(0, 1), **QUICK)
    assert found.robust_accuracy == flat.robust_accuracy
    assert "certified" not in found.table, "its layers are not known"
    assert next(body.parameters()).grad is None


def test_what_attacks_spend_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a net that counts the points that it is asked about; those of gradients in it."""
    torch.manual_seed(0)
    inner, seen = nn.Linear(5, 1).double(), [0]

    def net(x: torch.Tensor) -> torch.Tensor:
        seen[0] += len(x)
        return inner(x).squeeze(-1)

    x, y = points(30, 5)
    monkeypatch.setattr(modules, "doubts_about", lambda *_: [])
    found = evaluate(net, x, y, 0.01, attacks=["apgd"], apgd={"steps": 7, "restarts": 1})
    start = int((inner(x).squeeze(-1).detach().numpy() * (2 * y - 1) > 0).sum())
    spent = found.spent.iloc[0]
    asked = spent["queries"] + spent["gradients"]
    # the rest: a look at 8 points, the clean margins of 30, those of what came out of the attack
    assert seen[0] == 8 + 30 + start + asked
    assert spent["gradients"] >= 7 * start


@pytest.mark.parametrize("name", ["fgm", "pgd", "pgd_strong", "apgd", "apgd_dlr", "apgd_targeted", "fab", "square"])
def test_what_a_run_s_attacks_spend_is_what_a_net_is_asked(name: str) -> None:
    """Counted once on a small linear net, and here on a nonlinear one of other size: equal for each point."""
    torch.manual_seed(0)
    options = {"square": {"queries": 30}, "fab": {"steps": 7}, "apgd": {"steps": 9, "restarts": 2}}
    attack = attack_named(name, math.inf, options)
    net = nn.Sequential(nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    x, y = points(12, 9, 4)
    victim = Counted(net, x, torch.as_tensor(y), (0.0, 1.0), None)
    with torch.no_grad():
        attack.perturb(victim, torch.tensor(0.05, dtype=x.dtype), attack.draw(12, 9, torch.Generator().manual_seed(1)))
    each = of_each_point(attack, 4)
    assert (victim.spent.queries, victim.spent.gradients) == (12 * each.queries, 12 * each.gradients)
    assert each.queries + each.gradients > 0


def test_arrays_of_radii_and_coarse_nets() -> None:
    """numpy's numbers are numbers; a net in bfloat16, and one that rounds to float32 inside, are judged."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    x, y = points(30, 4)
    found = evaluate(net, x, y, np.array([0.01, 0.02]), np.float64(np.inf), **QUICK)
    assert list(found.table["eps"]) == [0.01, 0.02]
    inside = evaluate(lambda z: net(z.float()), x, y, [0.01, 0.02], attacks="apgd", **QUICK)
    assert list(inside.table["clean"]) == list(found.table["clean"])
    coarse = evaluate(nn.Linear(4, 1).bfloat16(), x, y, 0.05, attacks="apgd", certify=False)
    assert 0 <= coarse.robust_accuracy <= 1


def test_hooks_take_the_certificate_away() -> None:
    """A hook may compute anything: the layers alone say nothing of the net. Nor does a forward set by hand."""
    torch.manual_seed(0)
    x, y = points(30, 4)
    hooked, negated, patched = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(3))
    hooked.register_forward_pre_hook(lambda _, given: (3 * given[0],))
    negated[2].register_forward_hook(lambda _, given, out: -out)
    patched[2].forward = lambda z: torch.stack([z.sum(-1), -z.sum(-1)], -1)  # type: ignore[method-assign]
    for net in (hooked, negated, patched):
        assert known(net, 4) is None
        found = evaluate(net, x, y, 0.1, **QUICK)
        assert "certified" not in found.table


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(-1) + torch.randn(len(x))


def norm(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0)).sum(-1)


@pytest.mark.parametrize(
    ("net", "change", "says"),
    [
        (
            lambda x: x.sum(-1)[:, None].expand(-1, 2)[:, :, None],
            {},
            r"gives \(8, 2, 1\) for 8 points, must give \(n,\)",
        ),
        (lambda x: x.sum(-1).repeat(2), {}, r"gives \(16,\) for 8 points"),
        (lambda x: x.log().sum(-1) - math.inf, {}, "gives outputs that are not finite"),
        (Noisy(), {}, "its outputs: change from one call to the next .*module.eval"),
        (norm, {}, "its outputs: of a point change with the others of its batch"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), {}, "fails on a single point .*module.eval"),
        (lambda x: x.sum(-1).detach().round() + 0 * x.sum(-1), {}, "its gradients: are 0 at every point"),
        (lambda x: torch.from_numpy(x.detach().numpy().sum(-1)), {}, "cannot be differentiated|fails"),
        (nn.Linear(5, 1), {}, "fails on points of shape"),
        (nn.Linear(4, 1), {"y": np.zeros(7)}, r"y = shape \(7,\): must be \(12,\)"),
        (nn.Linear(4, 1), {"y": np.arange(12)}, "must be -1 and \\+1, or 0 and 1"),
        (nn.Linear(4, 3), {"y": np.arange(12) % 4}, "must be 0 to 2, for 3 logits"),
        (nn.Linear(4, 3), {"y": np.array(["a"] * 12)}, "must be numbers"),
        (nn.Linear(4, 1), {"x": np.full((12, 4), np.nan)}, "hold numbers that are not finite"),
        (nn.Linear(4, 1), {"x": np.ones(12)}, r"x = shape \(12,\): must be \(n, d\)"),
        (nn.Linear(4, 1), {"eps": -0.1}, "eps = -0.1: must be positive"),
        (nn.Linear(4, 1), {"p": 3.0}, "p = 3.0: must be inf, 2 or 1"),
        (nn.Linear(4, 1), {"p": "inf"}, "p = 'inf': must be a number, or several"),
        (nn.Linear(4, 1), {"eps": "0.1"}, "eps = '0.1': must be a number, or several"),
        (nn.Linear(4, 1), {"eps": []}, "must be a number, or several"),
        (nn.Linear(4, 1), {"domain": "01"}, "domain = '01': must be a number, or several"),
        (nn.Linear(4, 1), {"domain": (9, -9)}, "must be two numbers, the lower first"),
        (nn.Linear(4, 1), {"seed": "a"}, "seed = a: must be a whole number"),
        (nn.Linear(4, 1), {"p": [1.0, 2.0]}, "must be one radius for each of the 2 norms"),
        (nn.Linear(4, 1), {"domain": (0.0, 0.5)}, "does not hold all points"),
        (nn.Linear(4, 1), {"attacks": ["apdg"]}, "attacks = apdg: must be one of"),
        (nn.Linear(4, 1), {"attacks": ["exact"]}, "is exact for linear models alone"),
        (nn.Linear(4, 1), {"apgd": 5}, "must be options of an attack"),
        (nn.Linear(4, 1), {"apgd": {"stepz": 5}}, "stepz"),
    ],
)
def test_refusals(net: Any, change: dict[str, Any], says: str) -> None:
    torch.manual_seed(0)
    x, y = points(12, 4)
    given = {"x": x.float(), "y": y, "eps": 0.1, **change}
    with pytest.raises(ConfigError, match=says):
        evaluate(net, given.pop("x"), given.pop("y"), given.pop("eps"), given.pop("p", math.inf), **given)


def test_labels_the_other_way_round_are_said() -> None:
    """Of one logit, whose sign is a convention; right on all points it is said of none."""
    x, _ = points(12, 4)
    w = torch.ones(4, dtype=torch.float64)
    labels = (torch.as_tensor(x) @ w).sign()
    for net, said in ((lambda z: z @ w, False), (lambda z: -z @ w, True)):
        found = evaluate(net, x, labels, 0.1, **QUICK)
        assert any("right on 0 % of the clean points" in line for line in found.warnings) == said


def test_gradients_that_vanish_are_said() -> None:
    """Half of the points lie where the net is flat: gradients see nothing there, and a line says so."""
    x, y = points(40, 4)
    x[::2] -= 5
    found = evaluate(lambda z: z.relu().sum(-1) - 1.0, x, y, 0.1, **QUICK)
    assert any("gradients are 0 at 50 % of the points" in line for line in found.warnings)


def test_an_attack_that_leaves_the_ball_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(APGD, "perturb", lambda self, victim, eps, noise: victim.x + 2 * eps)
    x, y = points(12, 4)
    with pytest.raises(ArithmeticError, match=r"apgd has left the ball of radius 0.1"):
        evaluate(nn.Linear(4, 1), x, y, 0.1, attacks=["apgd"])


def test_layers_that_are_known() -> None:
    one, two = nn.Linear(4, 3), nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1), nn.Flatten(0))
    assert known(one, 4) is not None
    assert known(two, 4) is not None
    for other in (
        nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)),
        nn.Sequential(two, nn.Linear(1, 1)),
        one.forward,
    ):
        assert known(other, 4) is None
    assert known(one, 5) is None

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x) + x.sum()

    assert known(Scaled(4, 3), 4) is None, "what inherits may compute something else"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_on_data_of_the_command_line(tmp_path: Path) -> None:
    """TorchScript and an exported program give one table; what holds no network is refused in a line."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    batch = {"input": {0: torch.export.Dim("n", min=1)}}
    torch.export.save(torch.export.export(net, (torch.rand(5, 64),), dynamic_shapes=batch), str(tmp_path / "net.pt2"))
    torch.save(net, tmp_path / "pickle.pt")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "empty.pt2").write_bytes(b"")
    line = ["data=digits", "data.m=20", "eps=0.02", "parts=test", "points=40", "square.queries=20", "apgd.steps=10"]
    said = [run("evaluate", name, *line, cwd=tmp_path) for name in ("net.pt", "net.pt2")]
    assert [one.status for one in said] == [0, 0], said[0].err + said[1].err
    tables = [one.out.split("\n", 1)[1] for one in said]
    assert tables[0] == tables[1]
    assert "after_square attacked" in tables[0]
    for bad, says in (
        (["pickle.pt", *line], "is no TorchScript"),
        (["weights.pth", *line], "weights alone are no network"),
        (["empty.pt2", *line], "is no exported program"),
        (["none.pt", *line], "there is nothing there"),
        (["net.pt", "net.pt2", *line], "must be one network at a time"),
        (["net.pt", "eps=0.1"], "data = null: must say on which points"),
        (["net.pt", *line, "exact=5"], "exact = 5.0: is an option for runs"),
        (["net.pt", *line, "measure=kkt"], "is an option for runs"),
        (["net.pt", "data=digits", "eps=0"], "must be positive: clean accuracy is shown anyway"),
        (["net.pt", "data=digits"], "eps = null: must be given"),
        (["net.pt", "outputs", *line], "folder = outputs: is no network"),
        (["net.pt", *line, "shape=[1,8]"], "must be whole numbers with product 64"),
        (["net.pt", "data=gaussian", "data.d=5", "data.m=4", "eps=0.1"], "fails on points of shape"),
        (["net.pt", "data=digits,gaussian", "eps=0.1"], "must be one data set"),
        (["net.pt", "data=nothing", "eps=0.1"], "nothing"),
    ):
        one = run("evaluate", *bad, cwd=tmp_path)
        assert (one.status, one.crashed) == (2, False), f"{bad}\n{one.out}{one.err}"
        assert says in one.err
        assert len(one.err.strip().splitlines()) == 1, one.err


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_shapes_of_images_from_the_command_line(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    classes = "data.classes=[0,1,2,3,4,5,6,7,8,9]"
    line = ["data=digits", classes, "eps=0.01", "p=2", "parts=test", "points=20", "attack=apgd", "apgd.steps=5"]
    said = run("evaluate", "net.pt", *line, "shape=[1,8,8]", cwd=tmp_path)
    assert said.status == 0, said.err
