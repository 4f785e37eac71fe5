"""What everything is compared with: one run at a time, in the manner of the usual research script, float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn


def linear(d: int) -> nn.Module:
    """The linear model."""
    return nn.Linear(d, 1, bias=False)


class Diagonal(nn.Module):
    """W = u_+^2 - u_-^2."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.plus, self.minus = (nn.Parameter(torch.full((d,), 1e-3 / (2 * d) ** 0.5)) for _ in range(2))

    @property
    def weight(self) -> torch.Tensor:
        """(1, d)."""
        return (self.plus**2 - self.minus**2).unsqueeze(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1)."""
        return x @ self.weight.T


class CoordinateDescent(torch.optim.Optimizer):
    """Moves the weight with the largest gradient."""

    def __init__(self, parameters: object, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad.view(-1)
                j = g.abs().argmax()
                p.view(-1)[j] -= group["lr"] * g[j]


def linear_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, eps: float
) -> Callable[[int], None]:
    """Full-batch robust ERM with the exponential loss, in closed form."""

    def run(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            margin = y * model(x).squeeze(-1) - eps * model.weight.abs().sum()
            loss = torch.exp(-margin).sum()
            loss.backward()
            optimizer.step()
            loss.item()

    return run


def net_steps(width: int, x: torch.Tensor, y: torch.Tensor, eps: float) -> Callable[[int], None]:
    """A one-hidden-layer ReLU net, 10 steps of l_inf PGD in each step of gradient descent."""
    model = nn.Sequential(nn.Linear(x.shape[1], width, bias=False), nn.ReLU(), nn.Linear(width, 1, bias=False))
    for p in model.parameters():
        p.data.mul_(1e-2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)

    def run(n: int) -> None:
        for _ in range(n):
            delta = torch.zeros_like(x, requires_grad=True)
            for _ in range(10):
                loss = torch.exp(-y * model(x + delta).squeeze(-1)).sum()
                loss.backward()
                with torch.no_grad():
                    delta += eps / 5 * delta.grad.sign()
                    delta.clamp_(-eps, eps)
                    delta.copy_((x + delta).clamp(0, 1) - x)
                delta.grad.zero_()
            optimizer.zero_grad()
            loss = torch.exp(-y * model(x + delta.detach()).squeeze(-1)).sum()
            loss.backward()
            optimizer.step()
            loss.item()

    return run


def stack(sizes: Sequence[int], bias: bool, hidden: Callable[[], nn.Module] | None = nn.ReLU) -> nn.Sequential:
    """A fully connected model; ``bias`` of the first layer, ``hidden`` between two layers."""
    parts: list[nn.Module] = []
    for k, (before, after) in enumerate(pairwise(sizes)):
        parts += [nn.Linear(before, after, bias=bias and k == 0)]
        parts += [hidden()] if hidden is not None and k < len(sizes) - 2 else []
    return nn.Sequential(*parts)


def loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    loss: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    fgsm: float = 0.0,
) -> Callable[[int], None]:
    """Full-batch training, each step on points that one step of FGSM has moved."""

    def run(n: int) -> None:
        for _ in range(n):
            moved = x
            if fgsm:
                moved = x.clone().requires_grad_()
                (slope,) = torch.autograd.grad(loss(model, moved), moved)
                moved = (x + fgsm * slope.sign()).clamp(0, 1)
            optimizer.zero_grad()
            value = loss(model, moved)
            value.backward()
            optimizer.step()
            value.item()

    return run


def seconds(run: Callable[[int], object], n: int, repeats: int = 5) -> float:
    """Least seconds a step over some repeats of n steps, after a warm-up."""
    run(max(2, n // 4))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run(n)
        best = min(best, (time.perf_counter() - start) / n)
    return best


def in_turns(runs: Sequence[Callable[[int], object]], n: int, turns: int = 10, most: float = 0.2) -> list[float]:
    """The same of several, taken in turns of at most n steps and some ``most`` seconds: one pace for all of them."""
    counts = [max(min(n, 10), min(n, int(most / seconds(run, 2, 1)))) for run in runs]
    taken = [[seconds(run, count, 1) for run, count in zip(runs, counts, strict=True)] for _ in range(turns)]
    return [min(some) for some in zip(*taken, strict=True)]
