"""Evaluate trained runs with strong attacks, certificates, and checks for masked gradients:

python -m robust_erm.evaluate outputs attack=auto eps=0.1,0.2
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

_USAGE = """usage: python -m robust_erm.evaluate [folder ...] [key=value ...]

Folders of runs, or folders of those (default: outputs). What is found goes to <run>/evaluations/, beside what
training wrote; python -m robust_erm.results shows it as columns. What has been evaluated is not evaluated again.

attack=auto          the training attack, then an ensemble in the manner of AutoAttack: APGD on the margin, with
                     several classes also on the DLR loss and targeted, FAB, in l_inf Square; or names of conf/attack,
                     attack=apgd,square; each attacks what those before it have left
eps=0.1,0.2          radii; default: each run's own radius of evaluation
parts=train,test     which points
points=10000         at most so many of each part: a random sample, another one for each seed
certify=true         lower bounds, for models linear in their input (exact) and one hidden ReLU layer
exact=0              seconds for each point that bounds leave open, by a mixed-integer program; 0: none
checks=true          look for masked gradients
fresh=false          true: evaluate again
device=auto          auto, cpu, cuda, cuda:<index>, mps
<attack>.<key>=...   options of one attack: square.queries=1000 apgd.steps=50
"""


@dataclass(frozen=True)
class Options:
    """The command line."""

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


def parsed(arguments: Sequence[str]) -> tuple[list[str], Options]:
    """Folders, and options; raises ConfigError."""
    import yaml

    from robust_erm.errors import ConfigError, one_of, require

    folders = [a for a in arguments if "=" not in a]
    found: dict[str, Any] = {}
    of_attacks: dict[str, dict[str, Any]] = {}
    known = [name for name in Options.__dataclass_fields__ if name != "of_attacks"]
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            continue
        attack, dot, option = key.partition(".")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if dot:
            one_of("attack", attack, _attack_names())
            require(option not in ("p", "box"), key, text, "is the threat that the run was trained for")
            of_attacks.setdefault(attack, {})[option] = value
            continue
        one_of("option", key, known)
        if key in ("attack", "parts"):
            found[key] = tuple(text.split(","))
            for name in found[key]:
                one_of(key, name, ["auto", *_attack_names()] if key == "attack" else ["train", "test"])
        elif key == "eps":
            try:
                found[key] = tuple(float(part) for part in text.split(","))
            except ValueError:
                raise ConfigError(key, text, "must be numbers with commas between them") from None
            require(all(0 <= e < float("inf") for e in found[key]), key, text, "must be finite and 0 or more")
        elif key == "points":
            require(isinstance(value, int) and value is not True and value >= 1, key, text, "must be 1 or more")
            found[key] = value
        elif key == "exact":
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number and 0 <= value < float("inf"), key, text, "must be seconds, 0 or more")
            found[key] = float(value)
        elif key == "device":
            found[key] = text
        else:
            require(isinstance(value, bool), key, text, "must be true or false")
            found[key] = value
    return folders or ["outputs"], Options(**found, of_attacks=of_attacks)


def _conf() -> Path:
    from robust_erm.train import conf_dir

    return conf_dir() / "attack"


def _attack_names() -> list[str]:
    return sorted(p.stem for p in _conf().glob("*.yaml"))


def attacks_of(run: Any, options: Options) -> dict[str, Any]:
    """The attacks on ``run`` by name, its training attack first; all keep to the box where that one does."""
    from robust_erm.config import word
    from robust_erm.errors import ConfigError, require

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
    from omegaconf import OmegaConf

    from robust_erm.config import component

    node = OmegaConf.create({"p": p, "attack": OmegaConf.load(_conf() / f"{name}.yaml")})
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return component({**plain["attack"], **options.of_attacks.get(name, {})}, name)


def check(options: Options) -> None:
    """Raise ConfigError where ``options`` would be refused for every l_inf-trained net, before there is one."""
    from robust_erm.config import Trainer
    from robust_erm.errors import require

    Trainer(options.device, inner_steps=1, checkpoint_seconds=0, threads=None, progress=False).check()
    for name in {*options.attack, *options.of_attacks} - {"auto"}:
        attack = _attack(name, float("inf"), options)
        require(not attack.closed_form, "attack", name, "needs a model linear in its input")


def boxed(run: Any) -> bool:
    """Whether x' must stay in the data's domain: as the training attack has it."""
    box: bool = getattr(run.attack, "box", not run.attack.closed_form)
    return box


def _auto(run: Any) -> list[str]:
    several = [] if run.outputs < 3 else ["apgd_dlr", "apgd_targeted"] if run.outputs > 3 else ["apgd_dlr"]
    return ["apgd", *several, "fab", *(["square"] if run.p == float("inf") else [])]


def evaluate(folders: Sequence[str | Path], options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluate every run that has ended below ``folders``.

    Returns:
        What each evaluation found, and a line for each run that could not be evaluated.

    Raises:
        ConfigError: no run, an attack that does not fit, a checkpoint of another config.
    """
    from robust_erm import plan
    from robust_erm.errors import ConfigError, require
    from robust_erm.problem import radii
    from robust_erm.reproduced import run_of
    from robust_erm.run_folder import SUMMARY, RunFolder
    from robust_erm.terminal import console, say

    paths: list[Path] = []
    for root in map(Path, folders):
        require(root.exists(), "folder", root, "there is no such folder")
        paths += sorted(summary.parent for summary in root.rglob(SUMMARY))
    require(bool(paths), "folder", " ".join(map(str, folders)), "no run has ended there yet")
    runs = {path: run_of(path) for path in dict.fromkeys(paths)}
    for run in runs.values():
        attacks_of(run, options)  # refused before anything is computed
    trainer = next(iter(runs.values())).trainer
    device = dataclasses.replace(trainer, device=options.device).torch_device
    jobs: dict[str, list[tuple[Path, Any, float]]] = {}  # by the evaluation's name
    failed: list[str] = []
    for path, run in runs.items():
        try:
            require(RunFolder(run, path).read_checkpoint() is not None, "checkpoint", path, "is missing; train again")
        except ConfigError as error:
            failed.append(str(error))
            continue
        for eps in options.eps or (None,):
            if options.fresh or not _file(path, options.name(eps)).is_file():
                jobs.setdefault(options.name(eps), []).append((path, run, radii(run)[1] if eps is None else eps))
    count, done = sum(map(len, jobs.values())), 0
    with console.status("") as status:
        for name, members in jobs.items():
            for pack in plan.packs([run for _, run, _ in members], _AT_ONCE, 1):
                began, title = time.monotonic(), f"{done} of {count} evaluated; {members[pack[0]][1].name}"
                tick = partial(_say, status, title)
                failed += _in_halves([members[i] for i in pack], name, options, device, tick)
                done += len(pack)
                if not console.is_terminal:
                    say(f"{done} of {count} evaluated; {len(pack)} in {time.monotonic() - began:.0f} s", console)
    names = [options.name(eps) for eps in options.eps or (None,)]
    files = [_file(path, name) for name in names for path in runs]
    return [json.loads(file.read_text()) for file in files if file.is_file()], failed


def _in_halves(
    members: Sequence[tuple[Path, Any, float]], name: str, options: Options, device: Any, tick: Any
) -> list[str]:
    """Evaluate a pack, or where that raises its halves; a line for each run that cannot be evaluated.

    The traceback goes to ``<run>/evaluations/<name>.failed.log``.
    """
    from robust_erm.files import write_whole

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
        return [line for some in both for line in _in_halves(some, name, options, device, tick)]
    ((path, *_),) = members
    _log(path, name).parent.mkdir(exist_ok=True)
    write_whole(_log(path, name), text.encode())
    return [f"failed: {path}: {cause} (traceback: {_log(path, name)})"]


def _log(path: Path, name: str) -> Path:
    return _file(path, name).with_suffix(".failed.log")


_AT_ONCE = 32  # runs whose results come together


def _say(status: Any, title: str, text: str) -> None:
    status.update(f"{title}: {text}")


def _file(path: Path, name: str) -> Path:
    from robust_erm.run_folder import EVALUATIONS

    return path / EVALUATIONS / f"{name}.json"


def evaluate_pack(
    members: Sequence[tuple[Path, Any, float]], name: str, options: Options, device: Any, tick: Any
) -> None:
    """Evaluate runs that share their code, and leave ``<run>/evaluations/<name>.json`` and ``.npz``.

    The npz holds, for each part, ``<part>_index``, the points, ``<part>_attacked`` and, where there are certificates,
    ``<part>_certified``: the least margin found and the lower bound, of every point.
    """
    import numpy as np
    import torch

    from robust_erm import plan, robustness
    from robust_erm.files import write_json, write_whole
    from robust_erm.pack import provenance, threads_for
    from robust_erm.problem import build, draw
    from robust_erm.run_folder import RunFolder
    from robust_erm.runs import Points

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
    for part in options.parts:
        datasets = [draw(run.data, run.seed) for _, run, _ in members]
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
        _file(path, name).parent.mkdir(exist_ok=True)
        write_whole(_file(path, name).with_suffix(".npz"), buffer.getvalue())
        write_json(_file(path, name), {**row, **provenance()})


def _sample(n: int, points: int, seed: int, part: str) -> Any:
    """Which points: all, or a sample of the run's own, for data sets are not in random order."""
    import numpy as np

    from robust_erm.streams import numpy_stream

    if points >= n:
        return np.arange(n)
    return np.sort(numpy_stream(seed, f"evaluated {part}").choice(n, points, replace=False))


def _device(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def show(found: Sequence[dict[str, Any]], folders: Sequence[str | Path], options: Options) -> None:
    """The table: robust accuracy as an interval, and the warnings."""
    import pandas as pd
    from rich.table import Table

    from robust_erm.results import load, varying
    from robust_erm.terminal import cell, output, say

    frame = load(folders).drop_duplicates("id").set_index("id")
    keys = [key for key in varying(frame.reset_index()) if key not in ("seed", "eps")]
    rows = pd.DataFrame(list(found))
    for key in keys:
        rows[key] = rows["id"].map(frame[key]).map(str)
    rows["trained at eps"] = rows["id"].map(frame["eps"])  # in the config's unit
    given = bool(options.eps)
    keys += [*(["trained at eps"] if not given or len(set(frame["eps"])) > 1 else []), *(["eps"] if given else [])]
    rows["warned"] = rows["warnings"].map(bool)
    parts = [part for part in ("train", "test") if f"{part}_attacked" in rows]
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in (*keys, "runs"):
        table.add_column(heading.replace(*((" at", "\nat") if given else ("trained at ", ""))))
    for part in parts:
        for heading in ("clean", "training attack", "\\[certified, attacked]"):
            table.add_column(f"{part}\n{heading}", justify="right")
    table.add_column("warnings", justify="right")
    for values, group in rows.groupby(keys, sort=False, dropna=False):
        shown = [cell(value) for value in values] + [str(len(group))]
        for part in parts:
            for column in (f"{part}_clean", f"{part}_after_train"):
                shown.append(_mean(group, column))
            low = _mean(group, f"{part}_certified")
            shown.append(f"\\[{low}, {_mean(group, f'{part}_attacked')}]")
        table.add_row(*shown, str(int(group["warned"].sum())))
    output.print(table)
    output.print(
        "accuracies in %, mean ± standard deviation over the runs; certified: -, where there is no certificate"
    )
    said = [(one["run"], line) for one in found for line in one["warnings"]]
    for run, line in said[:20]:
        say(f"warning: {run}: {line}")
    if len(said) > 20:
        say(f"... and {len(said) - 20} more warnings, in evaluations/*.json of the runs")


def _mean(group: Any, column: str) -> str:
    if column not in group or group[column].isna().any():
        return "-"
    values = 100 * group[column]
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    from robust_erm.errors import ConfigError

    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE)
        return 0
    try:
        folders, options = parsed(given)
        found, failed = evaluate(folders, options)
    except ConfigError as error:
        print(f"robust_erm: {error}", file=sys.stderr)
        return 2
    if found:
        show(found, folders, options)
    for line in failed:
        print(f"robust_erm: {line}", file=sys.stderr)
    return 1 if failed else 0


def command() -> None:
    """The console command ``robust-erm-evaluate``."""
    from robust_erm.train import ended_cleanly, interrupted

    with ended_cleanly():
        signal.signal(signal.SIGTERM, interrupted)
        sys.exit(main())


if __name__ == "__main__":
    command()
