"""Files that other machines see: written whole or not at all, read whatever happens to them meanwhile."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"
_TRIES = 5


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, whole."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def read_text(path: Path) -> str:
    """What the file holds; read again where another machine has replaced it just now (network file systems)."""
    for left in reversed(range(_TRIES)):
        try:
            return path.read_text()
        except OSError as error:
            if error.errno != errno.ESTALE or not left:
                raise
    raise AssertionError("unreachable")
