"""What has been reproduced, as one page: figures, verdicts, commands, times and devices.

python -m robust_erm.gallery outputs/reproduced --scale paper --out outputs/gallery/tsilivis2024
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_erm.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.errors import ConfigError, require
from robust_erm.files import write_whole
from robust_erm.live import duration

_FIRST = (
    "fig1",
    "fig2_left",
    "fig2_right",
    "fig3_left",
    "fig3_right",
    "fig5",
    "fig6",
    "fig7",
    "fig8",
    "table1",
)  # others by name


_SAME = ("scale=", "output_dir=", "hydra", "trainer.")  # overrides that change no result


def page(folders: Sequence[Path], out: Path) -> str:
    """Copy the pictures to ``out``, and return the page in Markdown."""
    parts = []
    overview = ["| experiment | verdicts | time, device |", "|---|---|---|"]
    for folder in folders:
        facts = json.loads((folder / "claims.json").read_text())
        name = folder.name.rpartition("-")[0]
        write_whole(out / f"{name}.png", (folder / f"{name}.png").read_bytes())
        counts = Counter(claim["verdict"] for claim in facts["claims"])
        verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (HOLDS, FAILS, UNDECIDED) if counts[verdict])
        where = f"{duration(facts['seconds'])}, {facts['device']}"
        own = [o for o in facts["command"].split() if "=" in o and not o.startswith(_SAME)]
        other = ", with other settings than the scale's" if own else ""
        overview.append(f"| [{_cell(facts['title'])}](#{name}){other} | {verdicts} | {where} |")
        parts += [f'<a id="{name}"></a>', f"## {facts['title']}", "", f"![{facts['title']}]({name}.png)", ""]
        parts += [f"`{facts['command']}`: {facts['runs']} runs ({facts['status']}), {facts['dtype']}; {where}.", ""]
        if own:
            parts += [f"**With settings of its own instead of the scale's**: `{' '.join(own)}`.", ""]
        parts += ["| claim | where | measured | verdict |", "|---|---|---|---|", *map(_row, facts["claims"]), ""]
    return "\n".join([*overview, "", *parts])


def _row(claim: dict[str, Any]) -> str:
    cells = (claim["claim"], claim["where"], claim["measured"], f"**{claim['verdict']}**")
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
    names = [*_FIRST, *sorted(p.name.rpartition("-")[0] for p in found)]
    found.sort(key=lambda p: names.index(p.name.rpartition("-")[0]))
    options.out.mkdir(parents=True, exist_ok=True)
    write_whole(options.out / "README.md", (page(found, options.out) + "\n").encode())
    print(f"{options.out / 'README.md'}: {len(found)} experiments")
    return 0


if __name__ == "__main__":
    sys.exit(main())
