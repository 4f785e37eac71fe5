"""The code itself: which revision it is, and copies of it that no later edit changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_REVISION = "REVISION"


@lru_cache(maxsize=1)
def revision() -> str | None:
    """The git revision of the code, ``+`` when changed; a copy's is that of what it was copied from; else None."""
    root = _PACKAGE.parent
    if (root / _REVISION).is_file():
        return (root / _REVISION).read_text().strip() or None
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() or None


def _files() -> list[Path]:
    return sorted(p.relative_to(_PACKAGE) for p in _PACKAGE.rglob("*") if p.suffix in (".py", ".html") and p.is_file())


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Twelve hex digits of the package's files."""
    found = hashlib.sha256(str(revision()).encode())
    for path in _files():
        found.update(str(path).encode() + b"\0" + (_PACKAGE / path).read_bytes() + b"\0")
    return found.hexdigest()[:12]


def snapshot(parent: Path) -> Path:
    """A copy of the package below ``parent``, one for each :func:`fingerprint`: the folder to import it from."""
    place = parent.absolute() / fingerprint()
    if place.is_dir():
        return place
    parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=parent, prefix=".making-"))
    try:
        for path in _files():
            target = making / _PACKAGE.name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_PACKAGE / path, target)
        (making / _REVISION).write_text(f"{revision() or ''}\n")
        making.chmod(0o755)
        try:
            os.rename(making, place)  # whole, or not at all
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return place
