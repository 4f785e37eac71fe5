"""Files that other machines see: written whole or not at all, read whatever happens to them meanwhile.

Every file that may be damaged, or somebody else's, is read here: what is wrong is said with the file's name.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from robust_erm.core.errors import ConfigError, require

TEMPORARY = ".tmp"
_TRIES = 5
_MOST = 256 * 2**20  # bytes of a file that is read whole
_UMASK = os.umask(0o077)
os.umask(_UMASK)


class Damaged(ConfigError):
    """A file that is not what it must be."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__("file", path, why)

    def __reduce__(self) -> tuple[Any, ...]:
        return Damaged, (self.value, self.expected)


def write_whole(path: Path, data: bytes, durable: bool = False) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a part.

    Args:
        path: in a folder that exists.
        data: all of it.
        durable: also after a power cut; costs a wait for the disk.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any, durable: bool = False) -> None:
    """Write ``content`` as JSON, whole."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode(), durable)


def write_output(option: str, path: Path, data: bytes) -> None:
    """Write what a user asked for, whole; raises :class:`ConfigError` where that cannot be."""
    parent = path.absolute().parent
    require(str(path) not in ("", "."), option, repr(str(path)), "must name a file")
    try:
        require(parent.is_dir(), option, path, "its folder is missing")
        require(not path.is_dir(), option, path, "is a folder; name a file")
        write_whole(path, data)
    except OSError as error:
        raise ConfigError(option, f"{path!s:.80}", f"cannot be written: {error.strerror}") from None


def read_bytes(path: Path) -> bytes:
    """What the file holds; read again where another machine has replaced it just now (network file systems).

    Raises:
        FileNotFoundError: there is none.
        Damaged: it cannot be read, is no ordinary file, or is larger than any of ours.
    """
    for left in reversed(range(_TRIES)):
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise Damaged(path, "is no ordinary file")
            if found.st_size > _MOST:
                raise Damaged(path, f"has {found.st_size / 2**20:,.0f} MiB, more than any of ours")
            return path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno != errno.ESTALE or not left:
                raise Damaged(path, f"cannot be read: {error.strerror}") from error
    raise AssertionError("unreachable")


def read_text(path: Path) -> str:
    """The same as text; raises :class:`Damaged` for what is none."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise Damaged(path, f"is no text: {error.reason} at byte {error.start}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds."""
    return _parsed(path, json.loads, "JSON")


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds: plain data; no objects, and no aliases, of which a few stand for much."""
    return _parsed(path, _plain_yaml, "YAML")


def _plain_yaml(text: str) -> Any:
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Loader)):
        raise yaml.YAMLError("aliases are not allowed")
    return yaml.load(text, Loader=_Loader)


def require_shape(path: Path, content: Any, **kinds: Any) -> None:
    """Raise :class:`Damaged` unless ``content`` is a mapping that has these keys, with values of these types.

    A list of one type stands for a list of such values, a mapping of keys to types for such a mapping.
    """
    if not isinstance(content, dict):
        raise Damaged(path, f"holds {type(content).__name__} where a mapping should be")
    for key, kind in kinds.items():
        if key not in content:
            raise Damaged(path, f"has no {key}")
        value = content[key]
        if isinstance(kind, list):
            values, kind = (value if isinstance(value, list) else None), kind[0]
        elif isinstance(kind, dict):
            require_shape(path, value, **kind)
            continue
        else:
            values = [value]
        if values is None or not all(_is_a(v, kind) for v in values):
            raise Damaged(path, f"has {key} = {str(value)!r:.40}, which is not what it should be")


def _is_a(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is int)


def _parsed(path: Path, parse: Callable[[str], Any], kind: str) -> dict[str, Any]:
    text = read_text(path)
    if not text.strip():
        raise Damaged(path, "is empty")
    try:
        content = parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise Damaged(path, f"is no {kind}: {reason:.120}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise Damaged(path, f"holds no mapping of names ({type(content).__name__})")
    return content
