"""A stored config is data: which of its components may be built, and what it may not say.

Whoever opens somebody's results reads files that somebody else wrote. From such a config only components of this
package are built, those that the user's own command line has named in this process, and those of modules that the
user trusts by name (``trust=`` of a command, ROBUST_ERM_TRUST in the environment). That is decided by the text of
``_target_``, before anything is imported. Nothing is interpolated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robust_erm.store.files import Damaged
from robust_erm.store.typed import BUILT

# a name in one of our modules, and nothing that it has imported: robust_erm.data.mnist.os.system has one word too many
_OURS = re.compile(
    r"robust_erm\.(?:objectives|(?:data|models|optimizers|geometries|accumulators|schedules|attacks|measures)\.\w+)\.\w+",
    re.ASCII,
)
VARIABLE = "ROBUST_ERM_TRUST"


def trusted(names: Iterable[str] = ()) -> tuple[str, ...]:
    """The modules that the user trusts: ``names``, and those of the environment."""
    return (*names, *filter(None, os.environ.get(VARIABLE, "").split(",")))


def require_trusted(content: Any, path: Path, modules: Iterable[str] = ()) -> None:
    """Raise :class:`Damaged` where the stored config ``content`` names what may not be built, or interpolates.

    Args:
        content: as read.
        path: the file, for messages.
        modules: trusted by the user, whole packages or modules.
    """
    known = trusted(modules)
    todo = [content]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if "_target_" in node:
                _require_target(node["_target_"], path, known)
            todo += node.values()
        elif isinstance(node, (list, tuple)):
            todo += node
        elif isinstance(node, str) and "${" in node:
            raise Damaged(path, f"holds an interpolation, {node!r:.60}: a stored config is plain")


def _require_target(target: Any, path: Path, known: tuple[str, ...]) -> None:
    if not isinstance(target, str):
        raise Damaged(path, f"names a component by {type(target).__name__}, not by a dotted path")
    if _OURS.fullmatch(target) or target in BUILT or any(target.startswith(f"{name}.") for name in known):
        return
    module = target.rpartition(".")[0]
    advice = f"is not imported for a stored config; if you trust it: trust={module}, or {VARIABLE}={module}"
    raise Damaged(path, f"names the component {target!r:.80}, which {advice}")
