"""Trained runs under several threats at once: the points that stand every one of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from robust_erm.evaluation.as_module import as_module
from robust_erm.evaluation.modules import evaluate
from robust_erm.evaluation.options import Options, boxed
from robust_erm.evaluation.packs import computed_by, file_of, sample
from robust_erm.store.config import Run
from robust_erm.store.files import write_json
from robust_erm.store.reading import parameters_of
from robust_erm.training.problem import draw
from robust_erm.training.provenance import provenance


def evaluate_unions(members: Sequence[tuple[Path, Run, float]], name: str, options: Options, tick: Any) -> list[str]:
    """Evaluate runs one by one, leave ``<run>/evaluations/<name>.json``, and a line for each that cannot be.

    ``<part>_attacked`` and ``<part>_certified`` are the shares of points that stand all threats (point by point), and
    ``<part>_attacked_inf_0.1`` those of each alone. Radii are absolute.
    """
    failed = []
    for path, run, _ in members:
        try:
            found = _of_run(path, run, name, options, tick)
            file_of(path, name).parent.mkdir(exist_ok=True)
            write_json(file_of(path, name), found)
        except Exception as error:  # the others go on
            failed.append(f"failed: {path}: {type(error).__name__}: {error}")
    return failed


def _of_run(path: Path, run: Run, name: str, options: Options, tick: Any) -> dict[str, Any]:
    began = time.monotonic()
    net = as_module(run.model, parameters_of(path, run))
    dataset = draw(run.data, run.seed)
    norms, radii = zip(*options.threats, strict=True)
    domain = dataset.domain if boxed(run) else None
    row: dict[str, Any] = {
        "name": name,
        "run": run.name,
        "id": run.id,
        "eps": None,
        "p": ",".join(options.threats_shown),
    }
    row |= {"box": list(domain) if domain else None, "settings": options.what, "warnings": [], "spent": {}}
    for part in options.parts:
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        index = sample(len(y), options.points, run.seed, part)
        settings: dict[str, Any] = {"domain": domain, "attacks": options.attack, "certify": options.certify}
        settings |= {"seed": run.seed, "tick": lambda text, part=part: tick(f"{part}, {text}"), **options.of_attacks}
        found = evaluate(net, torch.from_numpy(x[index]), y[index], list(radii), list(norms), **settings)
        last = found.table.iloc[-1]
        row |= {f"{part}_points": len(index), f"{part}_clean": float(last["clean"])}
        for kind in ("attacked", "certified"):
            if kind in last:
                row[f"{part}_{kind}"] = float(last[kind])
                each = zip(options.threats, found.table[kind], strict=False)
                row |= {f"{part}_{kind}_{p:g}_{eps:g}": float(value) for (p, eps), value in each}
        row["spent"][part] = {one["attack"]: one for one in found.spent.to_dict("records")}
        row["warnings"] += [line for line in found.warnings if line not in row["warnings"]]
    made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "fingerprint": computed_by(run, options)}
    return {**row, "seconds": time.monotonic() - began, "device": "cpu", **made, **provenance()}
