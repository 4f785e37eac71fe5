"""One evaluation of trained runs: options, attacks, certificates, and the files that it leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from robust_erm import plan, robustness
from robust_erm.attacks.attack import Attack
from robust_erm.config import Run, Trainer, component, word
from robust_erm.errors import ConfigError, require
from robust_erm.files import write_json, write_whole
from robust_erm.pack import provenance, threads_for
from robust_erm.problem import build, draw
from robust_erm.run_folder import EVALUATIONS, RunFolder
from robust_erm.runs import Points
from robust_erm.streams import numpy_stream
from robust_erm.train import conf_dir

Member = tuple[Path, Run, float]  # folder, config, radius
AT_ONCE = 32  # runs whose results come together


@dataclass(frozen=True)
class Options:
    """What is asked for; ``python -m robust_erm.evaluate --help`` explains each."""

    attack: tuple[str, ...] = ("auto",)
    eps: tuple[float, ...] = ()
    parts: tuple[str, ...] = ("train", "test")
    points: int = 10_000
    certify: bool = True
    exact: float = 0.0
    checks: bool = True
    fresh: bool = False
    device: str = "auto"
    of_attacks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def what(self) -> dict[str, Any]:
        """All that may change the result, eps aside."""
        kept = ("attack", "parts", "points", "certify", "exact", "checks", "of_attacks")
        return {key: _plain(getattr(self, key)) for key in kept}

    def name(self, eps: float | None) -> str:
        """Of the evaluation: ``auto-eps0.1``, and six digits where further options were given."""
        default = {**Options().what, "attack": self.what["attack"]}
        text = json.dumps(self.what, sort_keys=True)
        digits = [] if self.what == default else [hashlib.sha256(text.encode()).hexdigest()[:6]]
        return "-".join(["+".join(self.attack), *([] if eps is None else [f"eps{eps!r}"]), *digits])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _conf() -> Path:
    return conf_dir() / "attack"


def attack_names() -> list[str]:
    """Those of conf/attack."""
    return sorted(p.stem for p in _conf().glob("*.yaml"))


def attacks_of(run: Run, options: Options) -> dict[str, Attack]:
    """The attacks on ``run`` by name, its training attack first; all keep to the box where that one does."""
    names = [name for given in options.attack for name in (_auto(run) if given == "auto" else [given])]
    found = {} if word(run.attack) == "noattack" else {"train": run.attack}
    for name in names:
        attack = _attack(name, run.p, options)
        fits = hasattr(run.model, "weight") or not attack.closed_form
        require(fits, "attack", name, f"needs a model linear in its input, model={word(run.model)} is not")
        require(attack.p == run.p, f"{name}.p", attack.p, f"is another threat than p = {run.p:g} of {run.name}")
        if hasattr(attack, "box"):
            attack = dataclasses.replace(attack, box=boxed(run))
        try:
            attack.check_fits(run.outputs)
        except ConfigError as error:
            raise error.under(name) from None
        found[name] = attack
    return found


def _attack(name: str, p: float, options: Options) -> Any:
    """The attack of conf/attack/<name>.yaml, with the options given; raises ConfigError."""
    node = OmegaConf.create({"p": p, "attack": OmegaConf.load(_conf() / f"{name}.yaml")})
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return component({**plain["attack"], **options.of_attacks.get(name, {})}, name)


def device_of(options: Options) -> torch.device:
    """Where to compute; raises ConfigError where this machine lacks it."""
    trainer = Trainer(options.device, inner_steps=1, checkpoint_seconds=0, threads=None, progress=False)
    trainer.check()
    return trainer.torch_device


def check(options: Options) -> None:
    """Raise ConfigError where ``options`` would be refused for every l_inf-trained net, before there is one."""
    device_of(options)
    for name in {*options.attack, *options.of_attacks} - {"auto"}:
        attack = _attack(name, float("inf"), options)
        require(not attack.closed_form, "attack", name, "needs a model linear in its input")


def boxed(run: Run) -> bool:
    """Whether x' must stay in the data's domain: as the training attack has it."""
    box: bool = getattr(run.attack, "box", not run.attack.closed_form)
    return box


def _auto(run: Run) -> list[str]:
    several = [] if run.outputs < 3 else ["apgd_dlr", "apgd_targeted"] if run.outputs > 3 else ["apgd_dlr"]
    return ["apgd", *several, "fab", *(["square"] if run.p == float("inf") else [])]


def in_halves(members: Sequence[Member], name: str, options: Options, device: Any, tick: Any) -> list[str]:
    """Evaluate a pack, or where that raises its halves; a line for each run that cannot be evaluated.

    The traceback goes to ``<run>/evaluations/<name>.failed.log``.
    """
    text = ""
    try:
        evaluate_pack(members, name, options, device, tick)
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
        return [line for some in both for line in in_halves(some, name, options, device, tick)]
    ((path, *_),) = members
    _log(path, name).parent.mkdir(exist_ok=True)
    write_whole(_log(path, name), text.encode())
    return [f"failed: {path}: {cause} (traceback: {_log(path, name)})"]


def _log(path: Path, name: str) -> Path:
    return file_of(path, name).with_suffix(".failed.log")


def file_of(path: Path, name: str) -> Path:
    """What an evaluation of that name leaves in the folder of a run."""
    return path / EVALUATIONS / f"{name}.json"


def evaluate_pack(members: Sequence[Member], name: str, options: Options, device: Any, tick: Any) -> None:
    """Evaluate runs that share their code, and leave ``<run>/evaluations/<name>.json`` and ``.npz``.

    The npz holds, for each part, ``<part>_index``, the points, ``<part>_attacked`` and, where there are certificates,
    ``<part>_certified``: the least margin found and the lower bound, of every point.
    """
    began = time.monotonic()
    first = members[0][1]
    torch.set_num_threads(threads_for(first, plan.cores()))
    pack, _, _ = build([run for _, run, _ in members], device)
    for i, (path, run, _) in enumerate(members):
        kept = RunFolder(run, path).read_checkpoint()
        assert kept is not None, "looked for before"
        pack.load(i, kept["run"])
    rows = torch.arange(len(members), device=device)
    eps = torch.tensor([radius for *_, radius in members], dtype=pack.eps.dtype, device=device)
    attacks, box = attacks_of(first, options), boxed(first)
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
            "warnings": [],
        }
        for _, run, radius in members
    ]
    arrays: list[dict[str, Any]] = [{} for _ in members]
    datasets = [draw(run.data, run.seed) for _, run, _ in members]
    for part in options.parts:
        which = [
            _sample(len(getattr(dataset, f"y_{part}")), options.points, run.seed, part)
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
        left = robustness.attacked(pack, attacks, points, eps, rows, tick)
        for i, one in enumerate(left):
            found[i] |= {f"{part}_points": len(y[i]), f"{part}_clean": one.after["clean"]}
            found[i] |= {f"{part}_after_{k}": v for k, v in one.after.items() if k != "clean"}
            high, low = one.least, None
            if options.certify and robustness.certifiable(pack.recipe):
                tick(f"{part}, certificates")
                radius = float(eps[i])
                low, size = robustness.certified(pack.recipe, pack.theta[i], x[i], y[i], radius, domain)
                if options.exact and first.p == float("inf") and not hasattr(first.model, "weight"):
                    low, high = robustness.settle(
                        pack.recipe, pack.theta[i], x[i], y[i], radius, domain, (low, high), options.exact, tick
                    )
                if bool(robustness.contradictions(low, high, size).any()):
                    raise ArithmeticError("a certified point has been broken: a certificate or an attack is wrong")
                low = torch.where(high > 0, low, low.clamp_max(0))  # broken by rounding alone
                found[i][f"{part}_certified"] = float((low > 0).double().mean())
                arrays[i][f"{part}_certified"] = low.cpu().numpy()
            found[i][f"{part}_attacked"] = float((high > 0).double().mean())
            arrays[i][f"{part}_attacked"] = high.cpu().numpy()
        if options.checks and part == options.parts[-1] and first.p in (1, 2, float("inf")):
            tick("signs of masked gradients")
            for i, signs in enumerate(robustness.masking(pack, points, eps, rows, box, left)):
                found[i] |= {"masking": signs.numbers, "warnings": signs.warnings}
    for (path, _, _), row, own in zip(members, found, arrays, strict=True):
        row |= {"seconds": time.monotonic() - began, "pack_size": len(members), "device": _device(device)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **own)
        file_of(path, name).parent.mkdir(exist_ok=True)
        write_whole(file_of(path, name).with_suffix(".npz"), buffer.getvalue())
        write_json(file_of(path, name), {**row, **provenance()})


def _sample(n: int, points: int, seed: int, part: str) -> Any:
    """Which points: all, or a sample of the run's own, for data sets are not in random order."""
    if points >= n:
        return np.arange(n)
    return np.sort(numpy_stream(seed, f"evaluated {part}").choice(n, points, replace=False))


def _device(device: Any) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)
