"""Adam's moments in one compiled pass, against the accumulator's own formula."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from robust_erm.accumulators.moments import Moments
from robust_erm.core.fields import substituted
from robust_erm.core.params import Layout
from robust_erm.geometries.lp import Lp
from robust_erm.optimizers.adam import Adam
from robust_erm.optimizers.descent import Descent
from robust_erm.optimizers.steepest import Steepest
from robust_erm.schedules.constant import Constant
from robust_erm.training import kernels
from robust_erm.training.kernels import compiled_moments
from robust_erm.training.kernels.moments import Moments as Compiled
from robust_erm.training.kernels.moments import warm_up

R, P, LAYOUT = 5, 37, Layout((("theta", (37,)),))
# rises, falls faster than the memory, and beyond what exp knows
LOSSES = [0.3, -1.0, -0.9, -4.0, -30.0, 2.0, -60.0, -61.0, -900.0, 800.0, -1000.0, -1001.0]
CALM = 8  # of them
BETAS = [(0.9, 0.999), (0.0, 0.0), (0.9, 0.0), (0.0, 0.9), (0.99, 0.9)]


def start(accumulator: Moments, grad: torch.Tensor) -> dict[str, torch.Tensor]:
    first = accumulator.init(grad[0], LAYOUT)
    return {name: torch.stack([a] * len(grad)) for name, a in first.items()}


def walk(
    update: Any, accumulator: Moments, dtype: torch.dtype, rows: Any = slice(None), last: int = CALM
) -> list[torch.Tensor]:
    """All that ``update`` gives, and the state that it leaves, on the way of some runs."""
    g = torch.Generator().manual_seed(0)
    grads = [torch.randn(R, P, generator=g, dtype=torch.float64).to(dtype)[rows] for _ in LOSSES]
    if dtype == torch.float32:  # sums that do not cancel, whose rounding is that of their terms
        grads = [grad.abs() for grad in grads]
    found, state = [], start(accumulator, grads[0])
    for t, (grad, loss) in enumerate(zip(grads, LOSSES[:last], strict=False)):
        grad[:, t % P] = 0.0  # entries without a slope, at the first step without any before
        losses = torch.linspace(loss, loss - 0.2, R, dtype=dtype)[rows].clone()
        given, scale, state = update(accumulator, grad, losses, state, LAYOUT)
        assert given.isfinite().all()
        found += [given, scale, state["m"], state["v"], state["unit"], state["count"]]
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("epsilon", [1e-8, 0.0])
@pytest.mark.parametrize("betas", BETAS, ids=str)
def test_it_is_the_formula(betas: tuple[float, float], epsilon: float, dtype: torch.dtype) -> None:
    accumulator = Moments(*betas, epsilon)
    # where m remembers what v has forgotten, a fall by e^-1800 is beyond float32
    last = len(LOSSES) if betas[0] <= betas[1] else CALM
    ours, theirs = (walk(update, accumulator, dtype, last=last) for update in (Compiled.update, Moments.update))
    rtol = 1e-9 if dtype == torch.float64 else 2e-4  # exponents of some 30 are rounded to float32 there, here never
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_run_does_not_notice_its_pack(dtype: torch.dtype) -> None:
    """Nor that others have other decays."""
    betas = torch.tensor([0.9, 0.5, 0.0, 0.9, 0.99], dtype=dtype)
    mixed = substituted(Moments(), {"beta1": betas, "beta2": betas.flip(0)})
    together = walk(Compiled.update, mixed, dtype)
    for i, (beta1, beta2) in enumerate(zip([0.9, 0.5, 0.0, 0.9, 0.99], [0.99, 0.9, 0.0, 0.5, 0.9], strict=True)):
        alone = walk(Compiled.update, Moments(beta1, beta2), dtype, slice(i, i + 1))
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a[0], b[i])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_with_its_run(bad: float) -> None:
    grad, loss = torch.ones(2, P, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for broken in (grad, loss):
        calm, _, _ = Compiled.update(Moments(), grad, loss, start(Moments(), grad), LAYOUT)
        before, broken[0] = broken[0].clone(), bad
        given, _, state = Compiled.update(Moments(), grad, loss, start(Moments(), grad), LAYOUT)
        _, _, theirs = Moments.update(Moments(), grad, loss, start(Moments(), grad), LAYOUT)
        assert torch.equal(given[1], calm[1])
        assert torch.equal(state["m"].isfinite(), theirs["m"].isfinite())
        broken[0] = before


def test_arrays_of_other_strides_are_not_compiled_for() -> None:
    """In the process that trains nothing is compiled."""
    warm_up(torch.float64)
    known = len(compiled_moments.moments_into.signatures)  # type: ignore[attr-defined]
    grad, loss = torch.randn(R, P, dtype=torch.float64), torch.zeros(1, dtype=torch.float64).expand(R)
    given, _, _ = Compiled.update(Moments(), grad.mT.contiguous().mT, loss, start(Moments(), grad), LAYOUT)
    assert torch.equal(given, Compiled.update(Moments(), grad, loss, start(Moments(), grad), LAYOUT)[0])
    assert len(compiled_moments.moments_into.signatures) == known  # type: ignore[attr-defined]


def test_for_whom_it_is() -> None:
    """Adam and whatever is composed with its memory; no class of one's own that may do something else."""

    @dataclasses.dataclass(frozen=True)
    class Own(Moments):
        def update(self, *given: Any) -> Any:
            return super().update(*given)

    step = Constant(0.1)
    known = [Adam(step), Adam(step, epsilon=0.0), Descent(step, Lp(3.0), Moments())]
    assert all(kernels.for_moments(optimizer, torch.float64) is not None for optimizer in known)
    for optimizer in (Steepest(step), Descent(step, Lp(2.0), Own())):
        assert kernels.for_moments(optimizer, torch.float64) is None
