"""Rows of which some entries are marked."""

from __future__ import annotations

import torch

from robust_erm.core.marked import replaced, taken


def test_what_is_marked_is_replaced_and_nothing_else() -> None:
    """Also where rows have none, or all; in the order of the entries."""
    values, other = torch.arange(12.0).view(3, 4), -torch.arange(12.0).view(3, 4)
    marks = torch.tensor([[False, True, False, True], [False] * 4, [True] * 4])
    asked = []

    def better(order: torch.Tensor) -> torch.Tensor:
        asked.append(order)
        return taken(other, order)

    assert torch.equal(replaced(values, marks, better), torch.where(marks, other, values))
    assert asked[0].shape == (3, 4)
    assert asked[0][0, :2].tolist() == [1, 3]
    few = replaced(values[:2], marks[:2], lambda order: asked.append(order) or taken(other[:2], order))
    assert asked[1].shape == (2, 2), "no more than the row with the most has"
    assert torch.equal(few, torch.where(marks[:2], other[:2], values[:2]))


def test_nothing_is_computed_where_nothing_is_marked() -> None:
    for values in (torch.ones(2, 3), torch.ones(0), torch.ones(2, 0)):
        assert replaced(values, torch.zeros_like(values) > 0, lambda order: 1 / 0) is values  # type: ignore[return-value]


def test_axes_beyond_the_points_come_along() -> None:
    z, order = torch.rand(2, 5, 3, 4), torch.tensor([[4, 0], [1, 1]])
    assert torch.equal(taken(z, order), torch.stack([z[0, [4, 0]], z[1, [1, 1]]]))
