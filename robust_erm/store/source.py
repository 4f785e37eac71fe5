"""The code itself: where its configs lie, which revision it is, and copies of it that no later edit changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
_REVISION = "REVISION"


@lru_cache(maxsize=1)
def revision() -> str | None:
    """The git revision of the code, ``+`` when changed; a copy's is that of what it was copied from; else None."""
    root = PACKAGE.parent
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


def _files(package: Path) -> list[Path]:
    return sorted(p.relative_to(package) for p in package.rglob("*") if p.suffix in (".py", ".html") and p.is_file())


def _hashed(package: Path) -> str:
    found = hashlib.sha256(str(revision()).encode())
    for path in _files(package):
        found.update(str(path).encode() + b"\0" + (package / path).read_bytes() + b"\0")
    return found.hexdigest()[:12]


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Twelve hex digits of the package's files and revision; a copy has those of what it was copied from."""
    return _hashed(PACKAGE)


def snapshot(parent: Path) -> Path:
    """A copy of the package below ``parent``, one for each :func:`fingerprint`: the folder to import it from."""
    place = parent.absolute() / fingerprint()
    if place.is_dir():
        if _hashed(place / PACKAGE.name) == fingerprint():
            return place
        os.rename(place, tempfile.mkdtemp(dir=parent, prefix=".damaged-"))
    parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=parent, prefix=".making-"))
    try:
        for path in _files(PACKAGE):
            target = making / PACKAGE.name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PACKAGE / path, target)  # with new times, lest it be cleared away as old
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


def conf_dir() -> Path:
    """The configs: inside the package in a wheel, beside it in a checkout."""
    places = (PACKAGE / "conf", PACKAGE.parent / "conf")
    return next(place for place in places if (place / "train.yaml").is_file())


def version() -> str:
    """``robust-erm 0.1.0 (git 308c6b4)``."""
    try:
        number = metadata.version("robust-erm")
    except metadata.PackageNotFoundError:
        number = "(not installed)"
    return f"robust-erm {number}" + (f" (git {found})" if (found := revision()) else "")
