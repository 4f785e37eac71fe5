"""What has been reproduced: a page for each paper and scale, and one table over all of them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.image import imread

from robust_erm.core.errors import first_line
from robust_erm.core.statistics import LEGEND
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED
from robust_erm.reports.live import duration
from robust_erm.store.files import Damaged, read_bytes, read_json, require_shape, write_whole

FIRST = (
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
_SAME = ("scale=", "output_dir=", "hydra", "trainer.", "stale=")  # overrides that change no result


MARKER = "<!-- made by python -m robust_erm.gallery from the pages below -->"


def read_claims(folder: Path) -> dict[str, Any]:
    """claims.json of an experiment; raises :class:`Damaged`."""
    path = folder / "claims.json"
    try:
        facts = read_json(path)
    except FileNotFoundError:
        raise Damaged(path, "is missing") from None
    words = dict.fromkeys(("title", "picture", "device", "command", "status", "losses", "dtype"), str)
    require_shape(path, facts, claims=[dict], seconds=int | float, runs=int, **words)
    for claim in facts["claims"]:
        require_shape(path, claim, **dict.fromkeys(("claim", "where", "measured", "verdict"), str))
    return facts


def picture(folder: Path) -> bytes:
    """The PNG of an experiment; raises :class:`Damaged`."""
    path = folder / f"{folder.name.rpartition('-')[0]}.png"
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise Damaged(path, "is missing") from None
    try:
        imread(io.BytesIO(data), format="png")
    except (OSError, SyntaxError, ValueError) as error:
        raise Damaged(path, f"is no whole PNG ({first_line(error)})") from None
    return data


def page(folders: Sequence[Path], out: Path) -> str:
    """Copy the pictures to ``out``, and return the page in Markdown."""
    parts = []
    overview = ["| experiment | verdicts | time, device |", "|---|---|---|"]
    for folder in folders:
        facts = read_claims(folder)
        name = folder.name.rpartition("-")[0]
        write_whole(out / f"{name}.png", picture(folder))
        counts = Counter(claim["verdict"] for claim in facts["claims"])
        verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (HOLDS, FAILS, UNDECIDED) if counts[verdict])
        where = f"{duration(facts['seconds'])}, {facts['device']}"
        own = [o for o in facts["command"].split() if "=" in o and not o.startswith(_SAME)]
        other = ", with other settings than the scale's" if own else ""
        overview.append(f"| [{_cell(facts['title'])}](#{name}){other} | {verdicts} | {where} |")
        parts += [
            f'<a id="{name}"></a>',
            f"## {facts['title']}",
            "",
            f"![{facts['title']}]({name}.png)",
            "",
            f"*{facts['picture']}*",
            "",
        ]
        ends = f"{facts['runs']} runs ({facts['status']}; {facts['losses']})"
        parts += [f"`{facts['command']}`: {ends}, {facts['dtype']}; {where}.", ""]
        if own:
            parts += [f"**With settings of its own instead of the scale's**: `{' '.join(own)}`.", ""]
        if "," in str(facts.get("git")):
            parts += [f"**Runs of several versions of the code**: git {facts['git']}.", ""]
        if any("[" in claim["measured"] for claim in facts["claims"]):
            parts += [f"{LEGEND[0].upper()}{LEGEND[1:]}.", ""]
        parts += ["| claim | where | measured | verdict |", "|---|---|---|---|", *map(_row, facts["claims"]), ""]
    return "\n".join([*overview, "", *parts])


def _row(claim: dict[str, Any]) -> str:
    cells = (claim["claim"], claim["where"], claim["measured"], f"**{claim['verdict']}**")
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def index(root: Path) -> str:
    """One table over the pages in the folders of ``root``, in Markdown: their overviews, one below the other."""
    lines = ["| paper, scale | experiment | verdicts | time, device |", "|---|---|---|---|"]
    for readme in sorted(root.glob("*/README.md")):
        name = readme.parent.name
        shown = name.replace("-", ", ") if "-" in name else f"{name}, paper"
        for line in readme.read_text().splitlines()[2:]:
            if not line.startswith("| ["):
                break
            lines.append(f"| {shown} {line.replace('](#', f']({name}/README.md#', 1)}")
    return "\n".join(lines)


def refresh(root: Path) -> bool:
    """Bring the table in ``root``'s README.md up to date, below its marker; whether there is one."""
    readme = root / "README.md"
    above, marker, _ = readme.read_text().partition(MARKER) if readme.is_file() else ("", "", "")
    if marker:
        write_whole(readme, f"{above}{MARKER}\n\n{index(root)}\n".encode())
    return bool(marker)
