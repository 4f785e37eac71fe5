"""What Hydra refuses, in one line that says what would be right."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from robust_erm.core.errors import hint


def refused(error: BaseException, conf: Path) -> str | None:
    """The line for what Hydra raised about the user's overrides, or None for what is no refusal.

    Args:
        error: as raised.
        conf: the folder of configs.
    """
    text = str(error)
    if found := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']*)'", text):
        keys = _keys(conf)
        if found[1] in keys:
            return f"{found[1]}: cannot be set, because {found[1].partition('.')[0]} is overridden too"
        return f"{found[1]}: unknown option{_suggestion(found[1], keys)}"
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'|Could not find '([^']+)'", text):
        group, _, name = (found[3] or f"{found[1]}/{found[2]}").rpartition("/")
        files = (conf / group).glob("**/*.yaml" if group == "experiment" else "*.yaml")
        names = sorted(p.relative_to(conf / group).with_suffix("").as_posix() for p in files)
        names += ["basic"] if group == "hydra/launcher" else []
        return f"{group} = {name}: must be one of {', '.join(names)}{_suggestion(name, names)}"
    if found := re.search(r"You must specify '([^']+)'", text):
        return f"{found[1]}: must be given"
    if "Config group override must be a string or a list" in text:
        given = [a.partition("=") for a in sys.argv[1:]]
        groups = [key for key, _, value in given if "null" in value.split(",") and (conf / key).is_dir()]
        return f"{' and '.join(groups)} = null: is a group; choose one of its components (--help lists them)"
    if isinstance(error, OSError) and error.filename is not None:
        return f"output_dir: {error.filename} cannot be made or read ({error.strerror}); choose another folder"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: is no override ({text.splitlines()[0]}); write key=value, lists as key=[a,b]"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ is not None else ""
        return f"{text.splitlines()[0] if text else type(error).__name__}{cause}"
    return None


def _keys(conf: Path) -> list[str]:
    """Top-level keys and groups, and the options of every component, dotted."""
    keys = [*yaml.safe_load((conf / "train.yaml").read_text()), "stop.steps", "stop.loss"]
    for path in conf.glob("*/*.yaml"):
        options = yaml.safe_load(path.read_text()) or {}
        keys += [path.parent.name, *(f"{path.parent.name}.{k}" for k in options if not k.startswith("_"))]
    for path in conf.glob("hydra/launcher/*.yaml"):
        keys += [f"hydra.launcher.{k}" for k in yaml.safe_load(path.read_text()) if not k.startswith("_")]
    return sorted({k for k in keys if k not in ("defaults", "hydra")})


def _suggestion(word: str, words: list[str]) -> str:
    return hint(word, words) or (
        "" if "/" in word else f"; --cfg {'hydra' if word.startswith('hydra.') else 'job'} shows all"
    )
