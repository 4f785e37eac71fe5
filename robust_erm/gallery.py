"""What has been reproduced, as one page: figures, verdicts, commands, times and devices.

python -m robust_erm.gallery outputs/reproduced --scale paper --out outputs/gallery/tsilivis2024
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from robust_erm.core.errors import ConfigError, require
from robust_erm.papers.gallery import FIRST, page, picture, read_claims, refresh
from robust_erm.reports.terminal import told
from robust_erm.store.files import Damaged, write_output
from robust_erm.store.reading import found_below
from robust_erm.sweeps.exits import Parser, ended_cleanly


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(prog="robust_erm.gallery", description="What has been reproduced, as one page.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs/reproduced"))
    parser.add_argument("--scale", default="paper", help="of the experiments shown")
    parser.add_argument("--out", type=Path, required=True, help="folder for README.md and the pictures")
    options = parser.parse_args(arguments)
    damaged: list[str] = []
    try:
        require(options.folder.is_dir(), "folder", options.folder, "there is no such folder")
        below = found_below(options.folder, "claims.json")
        found = [folder for folder in below if folder.name.endswith(f"-{options.scale}")]
        require(bool(found), "folder", options.folder, f"nothing has been reproduced there at scale={options.scale}")
        names = [*FIRST, *sorted(p.name.rpartition("-")[0] for p in found)]
        found.sort(key=lambda p: names.index(p.name.rpartition("-")[0]))
        found = [folder for folder in found if _whole(folder, damaged)]
        require(bool(found), "folder", options.folder, "nothing there can be read")
        _make_folder(options.out)
        write_output("--out", options.out / "README.md", (page(found, options.out) + "\n").encode())
        also = " and the table over all papers" if refresh(options.out.parent) else ""
    except ConfigError as error:
        return told([*damaged, str(error)], 2)
    print(f"{options.out / 'README.md'}: {len(found)} experiments{also}")
    return told(damaged, 1 if damaged else 0)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("--out", path, f"cannot be made: {error.strerror}") from None


def _whole(folder: Path, damaged: list[str]) -> bool:
    """Whether an experiment can be shown; ``damaged`` gets a line where not."""
    try:
        read_claims(folder)
        picture(folder)
    except Damaged as error:
        damaged.append(f"{error}; left out")
        return False
    return True


def command() -> None:
    """The console command ``robust-erm-gallery``."""
    with ended_cleanly():
        sys.exit(main())


if __name__ == "__main__":
    command()
