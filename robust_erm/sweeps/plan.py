"""Which runs of a sweep are trained together, and by how many workers."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Sequence
from typing import Any

import torch

from robust_erm.store.config import Run
from robust_erm.store.identity import as_data
from robust_erm.training import resources
from robust_erm.training.resources import cores

_BATCHED = ("seed", "eps", "eps_unit", "eval_eps")
_MOST = 512  # runs in a pack: more gain nothing, and results come later
_WORKER = 700 * 2**20  # bytes of a worker before it has any runs


def pack_key(run: Run) -> str:
    """Runs with equal keys can be trained together: they differ in numbers of the run axis only."""
    if getattr(run.optimizer, "limit", False):
        return run.id  # nothing is shared: found one by one, each with its own end
    kept = {k: v for k, v in as_data(run, "pack").items() if k not in _BATCHED}
    kept["outputs"] = run.outputs  # of data whose number of classes is a number of the run axis
    kept["stop"] = [run.stop.steps, run.stop.epochs]
    kept["runtime"] = [repr(run.trainer), run.logger.enabled]
    return json.dumps(kept, sort_keys=True)


def workers_for(packs: int, asked: int | None, device: torch.device) -> int:
    """Processes to train ``packs`` packs with: as asked, or one a core, or one a GPU."""
    own = torch.cuda.device_count() if device.type == "cuda" else cores()
    return min(packs, asked if asked is not None else own)


def packs(runs: Sequence[Run], size: int | None, workers: int | None) -> list[list[int]]:
    """Indices of the runs of each pack, runs that share a data set beside each other.

    A pack holds at most ``size`` runs or, where that is None, at most what keeps all workers busy
    and what memory allows.
    """
    if not runs:
        return []
    device = runs[0].trainer.torch_device
    many = workers_for(len(runs), workers, device)
    room = (0.6 * resources.available(device)) / max(1, many) - (0 if device.type == "cuda" else _WORKER)
    return shares(runs, size, many, room if size is None else math.inf)


def shares(runs: Sequence[Run], size: int | None, many: int, room: float, least: int = 1) -> list[list[int]]:
    """The same for ``many`` workers that have ``room`` bytes each; ``least`` runs are not worth a cut."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(pack_key(run), []).append(i)
    found = []
    for group in groups.values():
        group.sort(key=lambda i: (repr(runs[i].data), runs[i].seed))  # stable: else in the order given
        # models linear in their input cost what their data sets cost, in one pack or in several; a step of
        # others costs about the same for few runs as for many, and is better not taken twice in turn
        shared = len(group) if hasattr(runs[group[0]].model, "weight") else len(runs)
        most = size or min(max(-(-shared // max(1, many)), least), _MOST)
        found += _cut(runs, group, most, room)
    return found


def _cut(runs: Sequence[Run], group: list[int], most: int, room: float) -> list[list[int]]:
    cut: list[list[int]] = []
    used = 0
    known: set[tuple[Any, int]] = set()
    for i in group:
        run = runs[i]
        key = (run.data, run.seed)
        needs = resources.of_run(run) + (0 if key in known else resources.of_data(run))
        if not cut or len(cut[-1]) == most or used + needs > room:
            cut.append([])
            used, known = 0, set()
            needs = resources.of_run(run) + resources.of_data(run)
        cut[-1].append(i)
        known.add(key)
        used += needs
    return cut


def tasks(runs: Sequence[Run], packs: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Indices of the runs of each of at most ``most`` tasks, about equal in work; a pack stays together."""

    def work(pack: Sequence[int]) -> int:
        run = runs[pack[0]]
        return len(pack) * run.steps * resources.batch(run) * resources.parameters(run)

    bins: list[list[int]] = [[] for _ in range(min(most, len(packs)))]
    load = [(0, k) for k in range(len(bins))]
    for pack in sorted(packs, key=work, reverse=True):  # the largest first, each to whom has least
        least, k = heapq.heappop(load)
        bins[k] += pack
        heapq.heappush(load, (least + work(pack), k))
    return bins
