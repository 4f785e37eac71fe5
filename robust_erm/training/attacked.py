"""Margins of a pack's runs on some points, clean and attacked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vmap

from robust_erm.attacks.attack import Attack
from robust_erm.attacks.none import NoAttack
from robust_erm.core.margins import margin
from robust_erm.core.marked import first, taken
from robust_erm.core.streams import torch_stream
from robust_erm.training import kernels, resources, stacked
from robust_erm.training.mapped import parts
from robust_erm.training.points import CHUNK, FEW, Points
from robust_erm.training.step import Batch, Recipe, outputs, perturbed
from robust_erm.training.step import attacked_outputs as attacked_outputs_of_one

if TYPE_CHECKING:
    from robust_erm.training.runs import Runs

FILLED = 2**33  # bytes of points, and of what is made of them, that a device is given at once: at most


def clean(runs: Runs, points: Points, rows: Tensor) -> Tensor:
    """Clean margins (len(rows), n) of ``points``."""
    return margins_of(clean_outputs(runs, points, rows), points.of(rows)[1])


def clean_outputs(runs: Runs, points: Points, rows: Tensor) -> Tensor:
    """Outputs (len(rows), n) or (len(rows), n, C) at ``points``."""
    recipe, theta = runs.recipe, runs.theta[rows]
    calm = NoAttack(recipe.attack.p)
    if runs.compiled and stacked.fits(recipe, calm):
        eps = torch.zeros_like(theta[:, 0])
        nothing = [Batch(x, y, eps, eps, {}) for x, y in pieces(runs, calm, *points.of(rows))]
        return torch.cat([stacked.outputs(recipe, calm, theta, batch, eps) for batch in nothing], dim=1)
    one = vmap(lambda theta, x: outputs(recipe, theta, x))
    return torch.cat([one(theta, x) for x, _ in pieces(runs, calm, *points.of(rows))], dim=1)


def attacked(runs: Runs, attack: Attack, points: Points, eps: Tensor, rows: Tensor) -> Tensor:
    """Margins (len(rows), n) of ``points`` after ``attack``; see :func:`attacked_outputs`."""
    return margins_of(attacked_outputs(runs, attack, points, eps, rows), points.of(rows)[1])


def attacked_outputs(runs: Runs, attack: Attack, points: Points, eps: Tensor, rows: Tensor) -> Tensor:
    """Outputs (len(rows), n) or (len(rows), n, C) of ``points`` after ``attack`` of radius eps (R,).

    Its noise is the same at every call: one draw for each run, from its stream "eval".
    """
    index, generators = rows.tolist(), [torch_stream(seed, "eval") for seed in runs.seeds]
    kernel = _net_for(runs, attack)
    found = []
    for x, y in pieces(runs, attack, *points.of(rows)):
        noise = None if kernel else noise_of(runs, attack, index, y.shape[1], generators)
        found.append(_attacked(runs, attack, kernel, runs.theta[rows], eps[rows], x, y, noise))
    return torch.cat(found, dim=1)


def attacked_points(runs: Runs, attack: Attack, points: Points, eps: Tensor, rows: Tensor) -> Tensor:
    """X' (len(rows), n, d), the ``points`` after ``attack``, with the noise of :func:`attacked_outputs`."""
    index, generators = rows.tolist(), [torch_stream(seed, "eval") for seed in runs.seeds]
    recipe, theta, radii, found = runs.recipe, runs.theta[rows], eps[rows], []

    def one(theta: Tensor, batch: Batch, noise: Any) -> Tensor:
        return perturbed(recipe, attack, theta, batch, noise)

    known = runs.compiled and stacked.fits(recipe, attack)
    for x, y in pieces(runs, attack, *points.of(rows)):
        noise, batch = noise_of(runs, attack, index, y.shape[1], generators), Batch(x, y, radii, radii, {})
        moved = stacked.perturbed(recipe, attack, theta, batch, noise) if known else vmap(one)(theta, batch, noise)
        found.append(torch.where((radii == 0)[:, None, None], x, moved))
    return torch.cat(found, dim=1)


def attacked_among(runs: Runs, attack: Attack, points: Points, eps: Tensor, rows: Tensor, among: Tensor) -> Tensor:
    """The same for the points that ``among`` (len(rows), n) marks; the others keep inf.

    Every run's noise depends on its own marks only, not on its neighbours, and is drawn for FEW points after another,
    however many of these blocks are attacked at once.
    """
    kernel, theta, radii, index = _net_for(runs, attack), runs.theta[rows], eps[rows], rows.tolist()
    x, y = points.of(rows)
    found = torch.full_like(y, torch.inf)
    starts = range(0, x.shape[1], FEW)
    counts = torch.stack([among[:, k : k + FEW].sum(-1) for k in starts]).tolist()
    blocks = [(k, count) for k, count in zip(starts, counts, strict=True) if max(count)]
    step = _blocks_at_once(runs, attack, x, FEW)
    for some in (blocks[k : k + step] for k in range(0, len(blocks), step)):
        order = torch.cat([first(among[:, k : k + FEW], max(count)) + k for k, count in some], dim=1)
        some_x, some_y = taken(x, order), taken(y, order)
        noise = None
        if not kernel:
            noise = torch.cat([_noise_of_some(runs, attack, index, count, k) for k, count in some], dim=2)
        moved = _attacked(runs, attack, kernel, theta, radii, some_x, some_y, noise)
        found.scatter_(1, order, margins_of(moved, some_y))
    return torch.where(among, found, torch.inf)


def pieces(runs: Runs, attack: Attack, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """X (R, n, d) and y (R, n), as many times CHUNK points at once as :func:`_blocks_at_once` says."""
    size = CHUNK * _blocks_at_once(runs, attack, x, CHUNK)
    return [(x[:, k : k + size], y[:, k : k + size]) for k in range(0, x.shape[1], size)]


def noise_of(runs: Runs, attack: Attack, rows: list[int], n: int, generators: list[torch.Generator]) -> Tensor:
    """Noise (len(rows), k, n, d) of the next n points: drawn for CHUNK after another, whatever is taken at once."""
    drawn = [runs.noise(attack, rows, min(CHUNK, n - k), generators) for k in range(0, n, CHUNK)]
    return drawn[0] if len(drawn) == 1 else torch.cat(drawn, dim=2)


def _blocks_at_once(runs: Runs, attack: Attack, x: Tensor, size: int) -> int:
    """Blocks of ``size`` points of x (R, n, d) that are attacked together: one on a CPU, as many as fill a device."""
    if x.device.type == "cpu":
        return 1
    drawn = attack.draw(1, x.shape[2], torch.Generator()).nbytes
    return max(1, int(filling(runs.recipe, x, x.element_size(), drawn) / size))


def filling(recipe: Recipe, x: Tensor, itemsize: int, more: int = 0) -> float:
    """Points of x (R, n, d) that fill a device, with all that is made of each in numbers of ``itemsize`` bytes.

    Args:
        recipe: of the R runs.
        x: the points, on the device.
        itemsize: bytes of a number.
        more: further bytes for each point.
    """
    each = resources.of_point(recipe.model, recipe.layout, x.shape[2]) * itemsize + more
    return room_at_once(x.device) / (x.shape[0] * each)


def room_at_once(device: torch.device) -> float:
    """Bytes that a device is given at once: FILLED, or a sixteenth of its memory, of which packs leave more free.

    Always the same on one device, whatever is free there: the roundings of a measurement depend on it.
    """
    whole = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else math.inf
    return min(FILLED, whole / 16)


def _net_for(runs: Runs, attack: Attack) -> Any:
    return None if runs.net is None else kernels.for_net(runs.recipe, attack, runs.theta.dtype)


def _noise_of_some(runs: Runs, attack: Attack, rows: list[int], counts: list[int], first: int) -> Tensor:
    """(len(rows), k, max(counts), ...): as many random numbers as each run needs, then zeros."""
    d = runs.train.x.shape[-1]
    drawn = [
        attack.draw(max(n, 1), d, torch_stream(runs.seeds[i], f"eval from {first}"))
        for i, n in zip(rows, counts, strict=True)
    ]
    whole = torch.zeros(len(rows), drawn[0].shape[0], max(counts), *drawn[0].shape[2:], dtype=runs.theta.dtype)
    for noise, own in zip(whole, drawn, strict=True):
        noise[:, : own.shape[1]] = own
    return whole.to(runs.theta.device)


def _attacked(
    runs: Runs, attack: Attack, kernel: Any, theta: Tensor, eps: Tensor, x: Tensor, y: Tensor, noise: Tensor | None
) -> Tensor:
    if kernel:
        found: Tensor = kernel.outputs(theta, x, y, eps)
        return found
    assert noise is not None, "drawn where there is no kernel"

    def under(attack: Attack, *some: Any) -> Tensor:
        if runs.compiled and stacked.fits(runs.recipe, attack):
            theta, eps, x, y, noise = some
            return stacked.outputs(runs.recipe, attack, theta, Batch(x, y, eps, eps, {}), noise)

        def one(theta: Tensor, eps: Tensor, x: Tensor, y: Tensor, noise: Any) -> Tensor:
            return attacked_outputs_of_one(runs.recipe, attack, theta, Batch(x, y, eps, eps, {}), noise)

        mapped: Tensor = vmap(one)(*some)
        return mapped

    needed = parts(attack, eps)
    if len(needed) == 1:
        return under(needed[0][1], theta, eps, x, y, noise)
    parted = [(at, under(own, theta[at], eps[at], x[at], y[at], noise[at])) for at, own in needed]
    f = theta.new_empty(len(theta), *parted[0][1].shape[1:])
    for at, own in parted:
        f[at] = own
    return f


def margins_of(f: Tensor, y: Tensor) -> Tensor:
    """Margins (R, n) of outputs f (R, n) or (R, n, C) and labels y (R, n)."""
    return margin(f.flatten(0, 1), y.reshape(-1)).reshape(y.shape)
