"""What has been reproduced, as one page: figures, verdicts, commands, times and devices.

python -m robust_erm.gallery outputs/reproduced --scale paper --out outputs/gallery/tsilivis2024
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robust_erm.core.errors import ConfigError, require
from robust_erm.papers.gallery import FIRST, page, refresh
from robust_erm.store.files import write_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="robust_erm.gallery", description="What has been reproduced, as one page.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs/reproduced"))
    parser.add_argument("--scale", default="paper", help="of the experiments shown")
    parser.add_argument("--out", type=Path, required=True, help="folder for README.md and the pictures")
    options = parser.parse_args(arguments)
    try:
        found = [p.parent for p in options.folder.rglob("claims.json") if p.parent.name.endswith(f"-{options.scale}")]
        require(bool(found), "folder", options.folder, f"nothing has been reproduced there at scale={options.scale}")
    except ConfigError as error:
        print(f"robust_erm: {error}", file=sys.stderr)
        return 2
    names = [*FIRST, *sorted(p.name.rpartition("-")[0] for p in found)]
    found.sort(key=lambda p: names.index(p.name.rpartition("-")[0]))
    options.out.mkdir(parents=True, exist_ok=True)
    write_whole(options.out / "README.md", (page(found, options.out) + "\n").encode())
    also = " and the table over all papers" if refresh(options.out.parent) else ""
    print(f"{options.out / 'README.md'}: {len(found)} experiments{also}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
