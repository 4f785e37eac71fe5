"""Which runs of a sweep are trained together, where, and by how many workers."""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from robust_erm.store.config import Run
from robust_erm.store.identity import as_data, target_of
from robust_erm.store.source import PACKAGE
from robust_erm.training import devices, resources
from robust_erm.training.problem import unattacked
from robust_erm.training.resources import cores

_BATCHED = ("seed", "eps", "eps_unit", "eval_eps")
_MOST = 512  # runs in a pack: more gain nothing, and results come later
_WORKER = 700 * 2**20  # bytes of a worker before it has any runs
_CONTEXT = 600 * 2**20  # bytes that a process takes of a GPU before it has any runs


class Pack(NamedTuple):
    """Runs to be trained together, by their indices, and where."""

    device: torch.device
    members: list[int]


class Room(NamedTuple):
    """Bytes that one worker's pack may take: where it is trained, and beside that of the machine's memory."""

    own: float
    beside: float


BOUNDLESS = Room(math.inf, math.inf)


def pack_key(run: Run) -> str:
    """Runs with equal keys can be trained together: they differ in numbers of the run axis only.

    These are the optimizer's, and what data and models use before training. Whether a model does is known of ours;
    of other components the first one's code is that of the pack, so that nothing in them may differ.
    """
    if getattr(run.optimizer, "limit", False):
        return run.id  # nothing is shared: found one by one, each with its own end
    kept = {k: v for k, v in as_data(run, "identity").items() if k not in _BATCHED}
    kept |= {"optimizer": as_data(run.optimizer, "pack"), "data": as_data(run.data, "pack")}
    if target_of(run.model).startswith(f"{PACKAGE.name}."):
        kept["model"] = as_data(run.model, "pack")
    kept["unattacked"] = unattacked(run)  # it is measured under another attack
    kept["outputs"] = run.outputs  # of data whose number of classes is a number of the run axis
    kept["stop"] = [run.stop.steps, run.stop.epochs]
    kept["runtime"] = [repr(run.trainer), run.logger.enabled]
    return json.dumps(kept, sort_keys=True)


def workers_for(packs: int, asked: int | None, device: torch.device) -> int:
    """Processes to train ``packs`` packs with: as asked, or one a core, or one a GPU, of which ``cuda:1`` is one."""
    own = _gpus(device) if device.type == "cuda" else cores()
    return min(packs, asked if asked is not None else own)


def processes_for(places: Sequence[torch.device], asked: int | None) -> int:
    """Processes to train packs with, each at its place: as asked, or as many as GPUs and cores have work for."""
    if asked is not None:
        return min(len(places), asked)
    each = {place: workers_for(count, None, place) for place, count in Counter(places).items()}
    on_gpus = sum(count for place, count in each.items() if place.type == "cuda")
    return max(on_gpus, min(sum(each.values()), cores()))


def _gpus(device: torch.device) -> int:
    return torch.cuda.device_count() if device.index is None else 1


def packs(runs: Sequence[Run], size: int | None, workers: int | None) -> list[Pack]:
    """The packs, those on GPUs first; runs that share a data set are beside each other.

    A pack holds at most ``size`` runs or, where that is None, at most what keeps all workers busy
    and what memory allows. Where :func:`robust_erm.training.devices.chosen` says so of a pack as it would be cut for
    the CPU, it is trained there.
    """
    known: dict[torch.device, tuple[int, Room]] = {}

    def cut(group: list[int], device: torch.device) -> list[Pack]:
        if device not in known:
            many = workers_for(len(runs), workers, device)
            known[device] = many, BOUNDLESS if size is not None else room_of(device, many)
        many, room = known[device]
        if device.type == "cuda" and group:
            room = room._replace(own=room.own - resources.of_libraries(runs[group[0]]))
        return [Pack(device, members) for members in _shared(runs, group, size, many, room)]

    found = []
    for group in _groups(runs):
        trainer = runs[group[0]].trainer
        device = trainer.torch_device
        if device.type == "cuda" and trainer.device == "auto":
            tried = cut(group, devices.CPU)
            here = [pack for pack in tried if devices.chosen([runs[i] for i in pack.members]) == devices.CPU]
            taken = {i for pack in here for i in pack.members}
            group = [i for i in group if i not in taken]
            found += here
        found += cut(group, device)
    return sorted(found, key=lambda pack: pack.device.type == "cpu")


def room_of(device: torch.device, many: int) -> Room:
    """What a pack may take where ``many`` workers train at once; those that share a GPU pay a context each."""
    many = max(1, many)
    host = 0.6 * resources.available() / many - _WORKER
    if device.type != "cuda":
        return Room(host, math.inf)
    free = devices.free_memory()
    used = free[:many] if device.index is None else [free[device.index]]
    sharing = -(-many // len(used))
    return Room(0.6 * (min(used) - sharing * _CONTEXT) / sharing, host)


def shares(runs: Sequence[Run], size: int | None, many: int, room: Room = BOUNDLESS, least: int = 1) -> list[list[int]]:
    """Indices of the runs of each pack, for ``many`` workers that have ``room``; ``least`` are not worth a cut."""
    return [members for group in _groups(runs) for members in _shared(runs, group, size, many, room, least)]


def _groups(runs: Sequence[Run]) -> list[list[int]]:
    """Runs that could be one pack."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(pack_key(run), []).append(i)
    for group in groups.values():
        group.sort(key=lambda i: (repr(runs[i].data), runs[i].seed))  # stable: else in the order given
    return list(groups.values())


def _shared(
    runs: Sequence[Run], group: list[int], size: int | None, many: int, room: Room, least: int = 1
) -> list[list[int]]:
    if not group:
        return []
    # models linear in their input cost what their data sets cost, in one pack or in several; a step of
    # others costs about the same for few runs as for many, and is better not taken twice in turn
    shared = len(group) if hasattr(runs[group[0]].model, "weight") else len(runs)
    most = size or min(max(-(-shared // max(1, many)), least), _MOST)
    return _cut(runs, group, most, room)


def _cut(runs: Sequence[Run], group: list[int], most: int, room: Room) -> list[list[int]]:
    cut: list[list[int]] = []
    own = beside = 0
    known: set[tuple[Any, int]] = set()
    for i in group:
        run = runs[i]
        key = (run.data, run.seed)
        data = 0 if key in known else resources.of_data(run)
        needs = resources.of_run(run) + data
        if not cut or len(cut[-1]) == most or own + needs > room.own or beside + data > room.beside:
            cut.append([])
            own, beside, known = 0, 0, set()
            data = resources.of_data(run)
            needs = resources.of_run(run) + data
        cut[-1].append(i)
        known.add(key)
        own, beside = own + needs, beside + data
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
