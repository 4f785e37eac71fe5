"""``train --run <folder>``: the config of a stored run as the line that gives it, to train it elsewhere or changed.

The stored config is data (:mod:`robust_erm.store.trust`). Keys and values are written as literals into overrides, and
the line counts only if what it composes has the run's own id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError, in_one_line, require
from robust_erm.store.config import Named, Run, resolve
from robust_erm.store.files import Damaged
from robust_erm.store.identity import as_data
from robust_erm.store.imports import imported
from robust_erm.store.reading import CONFIG, read_config
from robust_erm.store.trust import require_trusted
from robust_erm.sweeps.compose import composed
from robust_erm.sweeps.lines import FLAG, points
from robust_erm.sweeps.overrides import changed, line_of, place


def expanded(folder: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What ``--run <folder>`` and other arguments of the command stand for: flags, and overrides.

    Args:
        folder: of the run.
        arguments: the others; ``trust=<modules>`` among them names modules of the user's own that the folder may name.

    Raises:
        ConfigError: the folder is no run's, asks for what is not trusted, or is another version's.
    """
    from hydra._internal.utils import get_args_parser

    given: list[str] = get_args_parser().parse_args(list(arguments)).overrides
    flags = [word for word in arguments if word not in given]
    trust = [name for word in given if word.startswith("trust=") for name in word[6:].split(",") if name]
    changes = [word for word in given if not word.startswith("trust=")]
    more = next((word for word in given if "=" not in word and Path(word).is_dir()), None)
    require(more is None, FLAG, f"{folder} {more}", "takes the folder of one run; a pattern may match several")
    chosen = next((word for word in changes if place(word) == "experiment"), None)
    advice = f"has no effect beside {FLAG}, whose run says all that it would; give its options one by one"
    require(chosen is None, "experiment", (chosen or "").partition("=")[2], advice)
    return flags, changed(line_of(stored(folder, trust)), changes)


def stored(folder: str, trust: Sequence[str]) -> Run:
    """The run in ``folder``, by what may change its result; its data need not be here.

    Raises:
        ConfigError: its config is not the one that its id names, or asks for what is not trusted.
    """
    path = Path(folder)
    try:
        content = read_config(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(FLAG, folder, f"has no {CONFIG}; it takes the folder of one run, as outputs/<run>") from None
    aside = {f.name for f in dataclasses.fields(Run) if not f.metadata.get("identity", True)}
    kept = {key: value for key, value in content.items() if key not in aside | {"id", "names"}}
    require_trusted(kept, path / CONFIG, trust)
    loader, master, _ = points([])
    (here,) = composed(loader, master, [[]])
    assert isinstance(here, dict)
    try:
        data = _without_places(kept["data"])
        run = resolve({**kept, "data": data, **{key: here[key] for key in aside}}, Named)
    except ConfigError as error:
        raise Damaged(path / CONFIG, f"is not valid: {error}") from error
    if run.id != content["id"]:
        lacking = list(_lacking(as_data(run, "identity"), content))
        why = f"it has no {', '.join(lacking)}" if lacking else "it was changed since"
        raise Damaged(path / CONFIG, f"is not what its id {content['id']} names: {why}, or another version wrote it")
    return run


def _without_places(node: Any) -> Any:
    """A stored data set without what says where its files lie: this machine's own choice. Its class is trusted."""
    if not (isinstance(node, dict) and "_target_" in node):
        return node
    with in_one_line("data._target_", node["_target_"], "it is imported, which"):
        fields = dataclasses.fields(imported(node["_target_"]))
    places = [f.name for f in fields if not f.metadata.get("identity", True)]
    return {key: value for key, value in node.items() if key not in places}


def _lacking(wanted: dict[str, Any], found: Any, path: str = "") -> Iterator[str]:
    for key, value in wanted.items():
        if not isinstance(found, dict) or key not in found:
            yield path + key
        elif isinstance(value, dict):
            yield from _lacking(value, found[key], f"{path}{key}.")
