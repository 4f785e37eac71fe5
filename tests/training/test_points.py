"""Steps that take the training points in pieces, where all at once need too much memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from recipes import in_the_form_of_a_device

from robust_erm.store.config import Run
from robust_erm.training import attacked, mapped, resources

CASES = {
    "a sum": ["model=mlp", "model.width=6", "model.init_scale=1"],
    "a mean": ["model=mlp", "model.width=6", "objective.reduction=mean"],
    "random start": ["model=mlp", "model.width=6", "attack.random_start=true"],
    "ten classes": ["model=linear", "attack=fgsm", "data.classes=[0,1,2,3,4,5,6,7,8,9]", "objective=cross_entropy"],
    "in closed form": ["model=linear", "attack=exact"],
    "convolutions": ["model=cnn", "model.channels=[2,3]", "model.hidden=4", "optimizer/schedule=constant"],
    "half of them clean": ["model=mlp", "model.width=6"],
}


@pytest.mark.parametrize("case", CASES)
def test_in_pieces_is_at_once(case: str, resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, plain = set[int](), mapped.Group.loss_and_grad

    def noted(group: mapped.Group, theta: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.add(group.batch.x.shape[-2])
        return plain(group, theta, noise)

    monkeypatch.setattr(mapped.Group, "loss_and_grad", noted)
    found = []
    for points in ("null", "5"):
        eps = [0.1, 0.0 if case == "half of them clean" else 0.1]
        line = [*CASES[case], "data.m=12", "stop.steps=9", "stop.loss=null", f"trainer.points={points}"]
        runs = [resolved(*line, f"seed={seed}", f"eps={eps[seed]}") for seed in (0, 1)]
        seen.clear()
        pack, _ = in_the_form_of_a_device(runs, "cpu")
        pack.advance(9)
        found.append((pack.theta, pack.log_losses(torch.arange(2))))
        assert seen == ({12} if points == "null" or case == "in closed form" else {5, 2})
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-12)


def test_it_changes_no_id_and_needs_less_memory(resolved: Callable[..., Run]) -> None:
    line = ("data=gaussian", "data.d=50", "data.m=20000", "model=mlp", "model.width=40")
    whole, pieces = (resolved(*line, f"trainer.points={points}") for points in ("null", "2000"))
    assert whole.id == pieces.id
    assert resources.of_run(pieces) < resources.of_run(whole) / 3


@pytest.mark.parametrize("attack", ["exact", "pgd"])
def test_the_gradient_of_all_points_is_one_whatever_a_batch(
    attack: str, resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a kink of the closed form the subgradient of least norm is that of the sum, not a sum of such."""
    monkeypatch.setattr(attacked, "CHUNK", 5)
    line = ["model=linear", f"attack={attack}", "optimizer/schedule=constant", "data.m=12", "eps=0.1"]
    found = []
    for size in ("null", "4"):
        pack, _ = in_the_form_of_a_device([resolved(*line, f"batch.size={size}")], "cpu")
        found.append(pack.losses_and_gradients(torch.arange(1)))  # at 0, where every weight is at its kink
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-12)
