"""The configs of a sweep's points: composed once for each combination of groups, then updated."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict

from robust_erm.core.errors import ConfigError, require
from robust_erm.store.typed import contained

Plain = dict[str, Any]


class _Base:
    """The config of one combination of groups, as OmegaConf has it and as plain data."""

    def __init__(self, config: DictConfig) -> None:
        self.config, self.plain = config, contained(config)
        # what interpolations look at; in ``${resolver:arguments}`` only interpolations inside do
        found = re.findall(r"\$\{([^}:]*)\}", OmegaConf.to_yaml(config))
        self.referred = {reference.strip(". ").split(".")[-1] for reference in found}

    def is_leaf(self, override: Override) -> bool:
        """Whether the override sets a plain value that stands alone: no interpolation looks at it."""
        node: Any = self.plain
        path = override.key_or_group.split(".")
        for name in path:
            if not isinstance(node, dict) or name not in node:
                return False
            node = node[name]
        value = override.value()
        simple = isinstance(value, (int, float, str, bool, type(None), list)) and "${" not in str(value)
        change = override.type == OverrideType.CHANGE and not isinstance(node, dict)
        return simple and change and path[-1] not in self.referred


def composed(loader: Any, master: DictConfig, points: Sequence[Sequence[str]]) -> Iterator[Plain | ConfigError]:
    """The resolved configs of ``points`` in turn, as Hydra would compose them one by one.

    An override that chooses from a group needs a composition (60 ms and more); one that sets a value
    of its own is written into a copy (microseconds); any other (one that interpolations look at, one
    that adds a key) is applied by Hydra's own function (milliseconds), once for each combination.

    Args:
        loader: Hydra's config loader.
        master: the sweep's own config.
        points: overrides, as sweepers give them.
    """
    parser = OverridesParser.create(config_loader=loader)
    exists = lru_cache(maxsize=None)(loader.repository.group_exists)
    parsed: dict[str, Override] = {}
    bases: dict[tuple[str, ...], _Base] = {}
    for overrides in points:
        for line in overrides:
            if line not in parsed:
                (parsed[line],) = parser.parse_overrides(overrides=[line])
        values = [parsed[line] for line in overrides]
        chosen = [o for o in values if o.is_hydra_override() or o.package is not None or exists(o.key_or_group)]
        try:
            key = _lines(chosen)
            if key not in bases:
                bases[key] = _Base(_task_config(loader, master, key))
            rest = [o for o in values if o not in chosen]
            entangled = [o for o in rest if not bases[key].is_leaf(o)]
            if entangled:
                base, key = bases[key], (*key, "", *_lines(entangled))
                if key not in bases:
                    bases[key] = _Base(_updated(base.config, entangled))
            plain = bases[key].plain
            for override in rest:
                if override not in entangled:
                    plain = _with(plain, override.key_or_group.split("."), override.value())
            yield plain
        except ConfigError as error:
            yield error


def _lines(overrides: list[Override]) -> tuple[str, ...]:
    return tuple(override.input_line or "" for override in overrides)


def _task_config(loader: Any, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
    config: DictConfig = loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        del config["hydra"]
    return config


def _updated(config: DictConfig, overrides: list[Override]) -> DictConfig:
    config = copy.deepcopy(config)
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
    return config


def _with(node: Plain, path: list[str], value: Any) -> Plain:
    """``node`` with the value at ``path`` replaced; what is not on the path is shared.

    Raises:
        ConfigError: another override has put a value where a mapping of options should be.
    """
    if len(path) == 1:
        return {**node, path[0]: value}
    inner = node.get(path[0])
    require(isinstance(inner, dict), path[0], inner, f"has no {'.'.join(path[1:])}: it is a mapping of options")
    return {**node, path[0]: _with(inner, path[1:], value)}  # type: ignore[arg-type]
