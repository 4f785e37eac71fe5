"""What Hydra refuses, in one line that says what would be right."""

from __future__ import annotations

import difflib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from robust_erm.core.errors import first_line, hint


def refused(error: BaseException, conf: Path) -> str | None:
    """The line for what Hydra raised about the user's overrides, or None for what is no refusal.

    Args:
        error: as raised.
        conf: the folder of configs.
    """
    text = str(error)
    given = [argument.partition("=") for argument in sys.argv[1:] if "=" in argument]
    if found := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']*)'", text):
        if found[1] in ("optimizer/geometry", "optimizer/accumulator"):
            chosen = [f"optimizer={value}" for key, _, value in given if key == "optimizer"]
            named = chosen[-1] if chosen else "the default optimizer"
            return f"{found[1]}: {named} has none to choose; optimizer=descent is put together of all three"
        return f"{found[1]}: unknown option{_instead(found[1], _options(conf, given), given)}"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = found[1].partition("=")
        return f"{key} = {value}: several values are a sweep: add -m; one list is written '{key}=[{value}]'"
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'|Could not find '([^']+)'", text):
        group, _, name = (found[3] or f"{found[1]}/{found[2]}").rpartition("/")
        if (group, name) == ("hydra/sweeper", "optuna"):
            return f"{group} = {name}: needs a plugin: pip install 'robust-erm[optuna]'"
        files = (conf / group).glob("**/*.yaml" if group == "experiment" else "*.yaml")
        names = sorted(p.relative_to(conf / group).with_suffix("").as_posix() for p in files)
        names += {"hydra/launcher": ["basic"], "hydra/sweeper": ["basic", "optuna"]}.get(group, [])
        return f"{group} = {name}: must be one of {', '.join(names)}{_suggestion(name, names)}"
    if found := re.search(r"You must specify '([^']+)'", text):
        return f"{found[1]}: must be given"
    if "Config group override must be a string or a list" in text:
        groups = [key for key, _, value in given if "null" in value.split(",") and (conf / key).is_dir()]
        return f"{' and '.join(groups)} = null: is a group; choose one of its components (--help lists them)"
    if isinstance(error, OSError) and error.filename is not None:
        return f"output_dir: {error.filename} cannot be made or read ({error.strerror}); choose another folder"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: is no override; {_grammar(str(error.override))} ({text.splitlines()[0]})"
    if isinstance(error, (ValueError, TypeError)) and _from_overrides(error):
        used = next((f"{k}={v}" for k, _, v in given if "(" in v), " ".join(sys.argv[1:]))
        return f"{used}: cannot be worked out ({first_line(error)})"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ is not None else ""
        return f"{text.splitlines()[0] if text else type(error).__name__}{cause}"
    if isinstance(error, TypeError) and "defaults_list" in _last_file(error):
        return f"{' '.join(sys.argv[1:]):.100}: a group takes the name of one of its components (--help lists them)"
    if "/hydra/" in _last_file(error) or "/omegaconf/" in _last_file(error):
        return f"options: Hydra cannot make anything of them ({first_line(error)})"
    return None


def _last_file(error: BaseException) -> str:
    """Where an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].filename if frames else ""


def _grammar(override: str) -> str:
    """How such an override is written instead."""
    key, _, value = override.partition("=")
    if value.startswith("~"):
        return f"write $HOME{value[1:]} for a folder of your own"
    if any(c in value for c in "([#={}: "):
        return f"quote what has ( [ {{ # = : or spaces in it: '{key}=\"{value}\"'"
    return "write key=value, lists as key=[a,b]"


def _from_overrides(error: BaseException) -> bool:
    """Whether an error was raised while Hydra read overrides."""
    frames = traceback.extract_tb(error.__traceback__)
    return any("override_parser" in frame.filename for frame in frames)


def _options(conf: Path, given: Sequence[tuple[str, str, str]]) -> list[str]:
    """Top-level keys and groups, and the options of the components that are chosen on the line or by default."""
    main = yaml.safe_load((conf / "train.yaml").read_text())
    chosen = {group: name for d in main["defaults"] if isinstance(d, dict) for group, name in d.items()}
    inner = {f"optimizer/{path.name}": path.name for path in (conf / "optimizer").iterdir() if path.is_dir()}
    chosen = {k: v for k, v in chosen.items() if not k.startswith("override") and v} | dict.fromkeys(inner, "")
    keys = [k for k in main if k not in ("defaults", "hydra")]
    keys += [f"stop.{k}" for k in main["stop"]]
    chosen |= {key: value for key, _, value in given if key in chosen}
    found = {k: chosen[k] or ",".join(_inner(conf, chosen["optimizer"].split(","), part)) for k, part in inner.items()}
    chosen |= {k: v for k, v in found.items() if v}
    chosen = {k: v for k, v in chosen.items() if v or k not in inner or k == "optimizer/schedule"}
    for group, names in chosen.items():
        keys.append(group)
        for name in names.split(",") if names else [p.stem for p in (conf / group).glob("*.yaml")]:
            path = conf / group / f"{name}.yaml"
            options = (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}
            own = [k for k in options if k[0] != "_" and k != "defaults" and k not in inner.values()]
            keys += [f"{group.replace('/', '.')}.{k}" for k in own]
    for path in conf.glob("hydra/launcher/*.yaml"):
        keys += [f"hydra.launcher.{k}" for k in yaml.safe_load(path.read_text()) if k[0] != "_" and k != "defaults"]
    return sorted(set(keys))


def _inner(conf: Path, optimizers: list[str], part: str) -> Iterator[str]:
    """The schedules, geometries or accumulators that these optimizers have by default."""
    for path in (conf / "optimizer" / f"{name}.yaml" for name in optimizers):
        defaults = (yaml.safe_load(path.read_text()) if path.is_file() else {}).get("defaults", [])
        yield from (d[part] for d in defaults if isinstance(d, dict) and part in d)


def _instead(key: str, options: list[str], given: Sequence[tuple[str, str, str]]) -> str:
    """What is most likely meant, or what there is: the same last word elsewhere, else a near one in the same group."""
    group, dot, word = key.rpartition(".")
    same = sorted((o for o in options if o.rpartition(".")[2] == word), key=lambda o: not o.startswith("stop."))
    if same:
        return f" (did you mean {' or '.join(same[:2])}?)"
    beside = [o.removeprefix(f"{group}.") for o in options if o.startswith(f"{group}.")] if dot else options
    near = difflib.get_close_matches(word, beside, n=1)
    if near:
        return f" (did you mean {group}{dot}{near[0]}?)"
    if dot and beside:
        component = next((f"{g}={v}" for g, _, v in reversed(given) if g == group.partition(".")[0]), group)
        return f": {component} has {', '.join(beside)}"
    return "; --cfg hydra shows all" if key.startswith("hydra.") else "; --cfg job shows all"


def _suggestion(word: str, words: list[str]) -> str:
    return hint(word, words) or ("" if "/" in word else "; --help lists them")
