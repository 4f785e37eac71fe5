"""What ``python -m robust_erm.evaluate`` is asked for, and the attacks that follow from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf

from robust_erm.attacks.attack import Attack
from robust_erm.attacks.fab import FAB
from robust_erm.core.errors import ConfigError, one_of, require
from robust_erm.store.config import Run, Trainer
from robust_erm.store.identity import word
from robust_erm.store.source import conf_dir
from robust_erm.store.typed import component
from robust_erm.training.problem import draw


@dataclass(frozen=True)
class Options:
    """What is asked for; ``python -m robust_erm.evaluate --help`` explains each."""

    attack: tuple[str, ...] = ("auto",)
    measure: tuple[str, ...] = ()
    eps: tuple[float, ...] = ()
    threats: tuple[tuple[float, float], ...] = ()
    parts: tuple[str, ...] = ("train", "test")
    points: int = 10_000
    certify: bool = True
    exact: float = 0.0
    checks: bool = True
    distance: bool = False
    fresh: bool = False
    stale: str = "refuse"
    trust: tuple[str, ...] = ()
    device: str = "auto"
    of_attacks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def what(self) -> dict[str, Any]:
        """All that may change the result, eps aside; names are made of it, so a later option is in it where given."""
        kept = ["attack", "measure", "parts", "points", "certify", "exact", "checks", "of_attacks"]
        kept += ["distance"] if self.distance else []
        found = {key: _plain(getattr(self, key)) for key in kept}
        return found | ({"threats": self.threats_shown} if self.threats else {})

    @property
    def threats_shown(self) -> list[str]:
        """As they were given: ``inf:0.1``."""
        return [f"{p:g}:{eps:g}" for p, eps in self.threats]

    def name(self, eps: float | None) -> str:
        """Of the evaluation: ``auto-eps0.1``, and six digits where further options were given."""
        default = {**Options().what, "attack": self.what["attack"]}
        text = json.dumps(self.what, sort_keys=True)
        digits = [] if self.what == default else [hashlib.sha256(text.encode()).hexdigest()[:6]]
        kind = ["union"] if self.threats else []
        return "-".join([*kind, "+".join(self.attack), *([] if eps is None else [f"eps{eps!r}"]), *digits])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def attack_names() -> list[str]:
    """Those of conf/attack."""
    return _names("attack")


def measure_names() -> list[str]:
    """Those of conf/measure."""
    return _names("measure")


def _names(group: str) -> list[str]:
    return sorted(p.stem for p in (conf_dir() / group).glob("*.yaml"))


def measures_of(options: Options) -> dict[str, Any]:
    """The measures asked for, by name: of conf/measure, or a class by its dotted path; raises ConfigError."""
    found = {}
    for given in options.measure:
        name, node = given.rpartition(".")[2].lower(), {"_target_": given}
        if "." not in given:
            name, node = given, yaml.safe_load((conf_dir() / "measure" / f"{given}.yaml").read_text())
        found[name] = component({**node, **options.of_attacks.get(name, {})}, f"measure.{name}")
        require(hasattr(found[name], "measure"), f"measure.{name}", given, "has no measure; a measure states it")
    return found


def attacks_of(run: Run, options: Options) -> dict[str, Attack]:
    """The attacks on ``run`` by name, its training attack first; all keep to the box where that one does."""
    names = [n for given in options.attack for n in (ensemble(run.outputs, run.p) if given == "auto" else [given])]
    own = word(run.attack) != "noattack" and getattr(run.attack, "keeps_ball", True)
    found = {"train": run.attack} if own else {}
    for name in names:
        attack = attack_named(name, run.p, options.of_attacks)
        fits = hasattr(run.model, "weight") or not attack.closed_form
        require(fits, "attack", name, f"needs a model linear in its input, model={word(run.model)} is not")
        require(attack.p == run.p, f"{name}.p", attack.p, f"is another threat than p = {run.p:g} of {run.name}")
        require(getattr(attack, "keeps_ball", True), "attack", name, "leaves the l_p ball; pgd does not")
        domain = draw(run.data, run.seed).domain if attack.closed_form and boxed(run) else None
        says = f"is the worst case of the whole ball, but {run.name} keeps to its data's domain {domain}"
        require(domain is None, "attack", name, f"{says}; there certificates are exact: attack=apgd, with certify=true")
        if hasattr(attack, "box"):
            attack = dataclasses.replace(attack, box=boxed(run))
        try:
            attack.check_fits(run.outputs)
        except ConfigError as error:
            raise error.under(name) from None
        found[name] = attack
    return found


def search_of(run: Run, options: Options) -> FAB | None:
    """The search for the nearest points of another label, with the options given to ``fab``; None: not asked for."""
    if not options.distance:
        return None
    says = f"is searched in l_1, l_2 and l_inf: not for p = {run.p:g} of {run.name}"
    require(run.p in (1, 2, math.inf), "distance", "true", says)
    found: FAB = attack_named("fab", run.p, options.of_attacks)
    return found


def attack_named(name: str, p: float, of_attacks: Mapping[str, Mapping[str, Any]]) -> Any:
    """The attack of conf/attack/<name>.yaml, with its options among ``of_attacks``; raises ConfigError."""
    node = OmegaConf.create({"p": p, "attack": OmegaConf.load(conf_dir() / "attack" / f"{name}.yaml")})
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return component({**plain["attack"], **of_attacks.get(name, {})}, name)


def device_of(options: Options) -> torch.device:
    """Where to compute; raises ConfigError where this machine lacks it."""
    trainer = Trainer(
        options.device, inner_steps=1, checkpoint_seconds=0, threads=None, progress=False, graphs=False, points=None
    )
    trainer.check()
    return trainer.torch_device


def check(options: Options, run: Run) -> None:
    """Raise ConfigError where ``options`` would be refused for ``run``, before it has been trained."""
    device_of(options)
    attacks_of(run, options)
    search_of(run, options)
    measures_of(options)
    for name in set(options.of_attacks) & set(attack_names()):  # also of an attack that is not run
        attack_named(name, run.p, options.of_attacks)


def boxed(run: Run) -> bool:
    """Whether x' must stay in the data's domain: as the training attack has it."""
    box: bool = getattr(run.attack, "box", not run.attack.closed_form)
    return box


def ensemble(outputs: int, p: float) -> list[str]:
    """What ``attack=auto`` stands for, for so many logits and a norm."""
    several = [] if outputs < 3 else ["apgd_dlr", "apgd_targeted"] if outputs > 3 else ["apgd_dlr"]
    return ["apgd", *several, "fab", *(["square"] if p == float("inf") else [])]


def parsed(arguments: Sequence[str]) -> tuple[list[str], Options]:
    """Folders, and options; raises ConfigError."""
    folders = [a for a in arguments if "=" not in a or Path(a).exists()]  # a sweep's own folder has such a name
    found: dict[str, Any] = {}
    of_attacks: dict[str, dict[str, Any]] = {}
    asked = [a.partition("=")[2] for a in arguments if a.startswith("measure=")]
    own = [name.rpartition(".")[2].lower() for text in asked for name in text.split(",") if "." in name]
    known = [name for name in Options.__dataclass_fields__ if name != "of_attacks"]
    for argument in arguments:
        key, _, text = argument.partition("=")
        if argument in folders:
            continue
        attack, dot, option = key.partition(".")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if dot:
            one_of("attack", attack, [*attack_names(), *measure_names(), *own])
            require(option not in ("p", "box"), key, text, "is the threat that the run was trained for")
            of_attacks.setdefault(attack, {})[option] = value
            continue
        one_of("option", key, known)
        if key == "trust":
            found[key] = tuple(filter(None, text.split(",")))
        elif key in ("attack", "measure", "parts"):
            found[key] = tuple(text.split(","))
            names = {"attack": ["auto", *attack_names()], "measure": measure_names(), "parts": ["train", "test"]}[key]
            for name in found[key]:
                one_of(key, name, [*names, *([name] if key == "measure" and "." in name else [])])
        elif key == "eps":
            try:
                found[key] = tuple(float(part) for part in text.split(","))
            except ValueError:
                raise ConfigError(key, text, "must be numbers with commas between them") from None
            require(all(0 <= e < float("inf") for e in found[key]), key, text, "must be finite and 0 or more")
        elif key == "threats":
            found[key] = _threats(text)
        elif key == "points":
            require(isinstance(value, int) and value is not True and value >= 1, key, text, "must be 1 or more")
            found[key] = value
        elif key == "exact":
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number and 0 <= value < float("inf"), key, text, "must be seconds, 0 or more")
            found[key] = float(value)
        elif key in ("device", "stale"):
            found[key] = text
            if key == "stale":
                one_of(key, text, ("refuse", "keep", "again"))
        else:
            require(isinstance(value, bool), key, text, "must be true or false")
            found[key] = value
    alone = [key for key in ("eps", "distance", "measure") if found.get(key)] if "threats" in found else []
    says = "stands alone: a radius for each norm, and neither eps nor distance nor measure beside it"
    require(not alone, "threats", ", ".join(alone), says)
    return folders or ["outputs"], Options(**found, of_attacks=of_attacks)


def _threats(text: str) -> tuple[tuple[float, float], ...]:
    """``inf:0.1,2:0.5`` as pairs of norm and radius."""
    try:
        pairs = [tuple(map(float, one.split(":"))) for one in text.split(",")]
    except ValueError:
        pairs = []
    norms = [pair[0] for pair in pairs if len(pair) == 2]
    fits = len(norms) == len(pairs) == len(set(norms)) >= 2 and set(norms) <= {1.0, 2.0, math.inf}
    fits = fits and all(0 < pair[1] < math.inf for pair in pairs)
    require(fits, "threats", text, "must be two or more norms with their radii, of inf, 2 and 1: inf:0.1,2:0.5")
    return tuple((pair[0], pair[1]) for pair in pairs)
