"""The evaluation of runs that share their code, and the files that it leaves."""

from __future__ import annotations

import io
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_erm.core.streams import numpy_stream
from robust_erm.evaluation import certificates, strong
from robust_erm.evaluation.distances import Distances, distances
from robust_erm.evaluation.masking import masking
from robust_erm.evaluation.options import Options, attacks_of, boxed, measures_of, search_of
from robust_erm.evaluation.spent import of_each_point
from robust_erm.store import fingerprint
from robust_erm.store.config import Run
from robust_erm.store.files import write_json, write_whole
from robust_erm.store.reading import EVALUATIONS
from robust_erm.store.run_folder import RunFolder
from robust_erm.training.contracts import ours
from robust_erm.training.kept import load
from robust_erm.training.measure import measure
from robust_erm.training.points import Points
from robust_erm.training.problem import build, draw
from robust_erm.training.provenance import provenance
from robust_erm.training.resources import cores, threads_for

Member = tuple[Path, Run, float]  # folder, config, radius
_MODULES = ("packs", "strong", "certificates", "masking")
Known = dict[tuple[Path, str], Distances]  # of a run's part, whatever the radius
_BOUNDS = ("oracles.certified", "oracles.milp", "training.problem")
_UNION = ("union", "modules", "net", "known", "as_module")
_DISTANCES = ("evaluation.distances", "oracles.boundary")
AT_ONCE = 32  # runs whose results come together


def in_halves(
    members: Sequence[Member], name: str, options: Options, device: Any, tick: Any, known: Known
) -> list[str]:
    """Evaluate a pack, or where that raises its halves; a line for each run that cannot be evaluated.

    The traceback goes to ``<run>/evaluations/<name>.failed.log``.
    """
    text = ""
    try:
        evaluate_pack(members, name, options, device, tick, known)
    except Exception as error:  # the others go on
        cause, text = f"{type(error).__name__}: {error}", traceback.format_exc()
    # out of the except: the traceback would keep the tensors of the pack that failed, perhaps for want of memory
    if not text:
        for path, *_ in members:
            _log(path, name).unlink(missing_ok=True)
        return []
    if len(members) > 1:
        half = len(members) // 2
        both = (members[:half], members[half:])
        return [line for some in both for line in in_halves(some, name, options, device, tick, known)]
    ((path, *_),) = members
    _log(path, name).parent.mkdir(exist_ok=True)
    write_whole(_log(path, name), text.encode())
    return [f"failed: {path}: {cause} (traceback: {_log(path, name)})"]


def _log(path: Path, name: str) -> Path:
    return file_of(path, name).with_suffix(".failed.log")


def file_of(path: Path, name: str) -> Path:
    """What an evaluation of that name leaves in the folder of a run."""
    return path / EVALUATIONS / f"{name}.json"


def computed_by(run: Run, options: Options) -> fingerprint.Fingerprint:
    """The code and data that an evaluation of ``run`` depends on."""
    own = fingerprint.of_modules("training.attacked", *(f"evaluation.{name}" for name in _MODULES), *_BOUNDS)
    parts = [run.model, run.data, *attacks_of(run, options).values(), *measures_of(options).values()]
    if options.threats:
        own |= fingerprint.of_modules(*(f"evaluation.{name}" for name in _UNION))
    if (search := search_of(run, options)) is not None:
        own, parts = own | fingerprint.of_modules(*_DISTANCES), [*parts, search]
    return own | fingerprint.of_components(parts)


def evaluate_pack(members: Sequence[Member], name: str, options: Options, device: Any, tick: Any, known: Known) -> None:
    """Evaluate runs that share their code, and leave ``<run>/evaluations/<name>.json`` and ``.npz``.

    The npz holds, for each part, ``<part>_index``, the points, ``<part>_attacked`` and, where there are certificates,
    ``<part>_certified``: the least margin found and the lower bound, of every point. Where they are asked for,
    ``<part>_distance`` and ``<part>_certified_distance`` stand beside them: of :mod:`robust_erm.evaluation.distances`,
    and taken from ``known`` where an earlier radius has left them there.
    """
    began = time.monotonic()
    first = members[0][1]
    torch.set_num_threads(threads_for(first, cores()))
    pack, evaluation, _ = build([run for _, run, _ in members], device)
    checkpoints = [RunFolder(run, path).read_checkpoint() for path, run, _ in members]
    load(pack, {i: kept["run"] for i, kept in enumerate(checkpoints) if kept is not None})  # looked for before
    rows = torch.arange(len(members), device=device)
    eps = torch.tensor([radius for *_, radius in members], dtype=pack.eps.dtype, device=device)
    attacks, search, box = attacks_of(first, options), search_of(first, options), boxed(first)
    domain = pack.recipe.domain if box else None
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "run": run.name,
            "id": run.id,
            "eps": radius,
            "p": str(run.p),
            "box": list(domain) if domain else None,
            "settings": options.what,
            "warnings": [f"{count} of its parameters are no finite numbers: there is nothing to evaluate"]
            if count
            else [],
        }
        for (_, run, radius), count in zip(members, (~pack.theta.isfinite()).sum(1).tolist(), strict=True)
    ]
    arrays: list[dict[str, Any]] = [{} for _ in members]
    datasets = [draw(run.data, run.seed) for _, run, _ in members]
    for part in options.parts:
        which = [
            sample(len(getattr(dataset, f"y_{part}")), options.points, run.seed, part)
            for dataset, (_, run, _) in zip(datasets, members, strict=True)
        ]
        xs, ys = (
            [getattr(dataset, f"{kind}_{part}")[index] for dataset, index in zip(datasets, which, strict=True)]
            for kind in "xy"
        )
        x, y = (torch.as_tensor(np.stack(a)).to(pack.theta, copy=True) for a in (xs, ys))
        for i, index in enumerate(which):
            arrays[i][f"{part}_index"] = index
        points = Points(x, y, rows)
        left = strong.attacked(pack, attacks, points, eps, rows, tick)
        for i, one in enumerate(left):
            found[i].setdefault("spent", {})[part] = _spent(attacks, one, len(ys[i]), first.outputs)
            found[i] |= {f"{part}_points": len(ys[i]), f"{part}_clean": one.after["clean"]}
            found[i] |= {f"{part}_after_{k}": v for k, v in one.after.items() if k != "clean"}
        high = torch.stack([one.least for one in left])
        bounds = {"attacked": high}
        if options.certify and certificates.certifiable(pack.recipe):
            tick(f"{part}, certificates")
            bounds = certificates.bounds(pack.recipe, pack.theta, x, y, eps, domain, high, options.exact, tick)
        for kind, each in bounds.items():
            for row, own_arrays, margins in zip(found, arrays, each.cpu().numpy(), strict=True):
                row[f"{part}_{kind}"] = float((margins > 0).mean())
                own_arrays[f"{part}_{kind}"] = margins
        if search is not None:
            paths = [path for path, *_ in members]
            new = {path: i for i, path in enumerate(paths) if (path, part) not in known}  # once, whatever the radii
            if new:
                some = rows[list(new.values())]
                given = pack.recipe, pack.theta, points, pack.train, some
                away = distances(*given, search, domain, options.certify, tick)
                known |= {(path, part): own for path, own in zip(new, away, strict=True)}
            for i, path in enumerate(paths):
                found[i] |= known[path, part].numbers(part)
                arrays[i] |= known[path, part].arrays(part)
        if options.checks and part == options.parts[-1] and first.p in (1, 2, float("inf")):
            tick("signs of masked gradients")
            for i, signs in enumerate(masking(pack, points, eps, rows, box, left)):
                found[i] |= {"masking": signs.numbers, "warnings": [*found[i]["warnings"], *signs.warnings]}
    if options.measure:
        tick("measures")
        others = {k: attack for k, attack in attacks.items() if k != "train"}
        evaluation = replace(evaluation, attacks=others, eps=eps, measures=measures_of(options))
        for i, columns in enumerate(measure(pack, evaluation, rows, "after")):
            found[i] |= {f"measured_{k}": v if math.isfinite(v) else None for k, v in columns.items()}
    for (path, run, _), row, own in zip(members, found, arrays, strict=True):
        row |= {"seconds": time.monotonic() - began, "pack_size": len(members), "device": _device(device)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **own)
        file_of(path, name).parent.mkdir(exist_ok=True)
        write_whole(file_of(path, name).with_suffix(".npz"), buffer.getvalue())
        made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "fingerprint": computed_by(run, options)}
        write_json(file_of(path, name), {**row, **made, **provenance()})


def _spent(attacks: Mapping[str, Any], found: strong.Found, n: int, outputs: int) -> dict[str, dict[str, int]]:
    """Queries and gradients of each attack, points times passes: it saw the points that those before it had left.

    None of an attack in closed form, which asks nothing, and of a user's own, which may ask differently of each net.
    """
    before, spent = found.after["clean"], {}
    for name, attack in attacks.items():
        if not attack.closed_form and ours(attack):
            each, points = of_each_point(attack, outputs), round(before * n)
            spent[name] = {"queries": points * each.queries, "gradients": points * each.gradients}
        before = found.after[name]
    return spent


def sample(n: int, points: int, seed: int, part: str) -> Any:
    """Which points: all, or a sample of the run's own, for data sets are not in random order."""
    if points >= n:
        return np.arange(n)
    return np.sort(numpy_stream(seed, f"evaluated {part}").choice(n, points, replace=False))


def _device(device: Any) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)
