"""What holds on a GPU, and how fast it is: ``python tests/gpu_check.py --out gpu.json``, 25 minutes at most.

Each part is a process of its own with a limit; what it finds is in the file as it comes, whatever happens later. Beside
the file lies the same as a page, ``gpu.md``, for the gallery. The status is 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from gpu_parts import PARTS

from robust_erm.store.files import write_json, write_whole

# seconds; of a part that is not named 120
LIMITS = {"correct": 300, "speed": 420, "graphs": 240, "memory": 180, "bits": 180, "where": 180, "evaluation": 300}
TOTAL = 25 * 60


def taken(part: str, device: str, quick: bool, limit: float, found: list[dict[str, Any]], out: Path) -> None:
    """Run a part; its rows, and how it ended, are added to ``found`` and written."""
    script = str(Path(__file__).with_name("gpu_parts.py"))
    command = [sys.executable, script, part, device, *(["quick"] if quick else [])]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        clock = threading.Timer(limit, process.kill)
        clock.start()
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read() if process.stderr else ""))
        reader.start()
        for line in process.stdout or ():
            found.append({"part": part, **json.loads(line)})
            write_json(out, found)
        process.wait()
        clock.cancel()
        reader.join()
    spent = time.monotonic() - began
    if process.returncode:
        says = f"took longer than {limit:.0f} s" if spent >= limit else errors[0][-2000:]
        found.append({"part": part, "what": "the part itself", "ok": False, "says": says})
        write_json(out, found)


def summary(found: list[dict[str, Any]]) -> list[str]:
    """A line for each part; and what does not hold."""
    lines = []
    for part in dict.fromkeys(row["part"] for row in found):
        rows = [row for row in found if row["part"] == part]
        held, broken = (sum(row["ok"] is value for row in rows) for value in (True, False))
        measured = len(rows) - held - broken
        word = "FAIL" if broken else "PASS" if held else "----"
        lines.append(f"{word}  {part:<12} {held} hold, {broken} do not, {measured} measured")
    for row in found:
        if row["ok"] is False:
            says = str(row.get("says", "")).strip().splitlines()
            numbers = ", ".join(f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float))
            lines.append(f"      {row['part']}: {row['what']}: {says[-1] if says else numbers}")
    return lines


def page(found: list[dict[str, Any]]) -> str:
    """The same as markdown: the summary, and a table of each part."""
    text = ["# On a GPU", "", "Made by `python tests/gpu_check.py`.", "", "```", *summary(found), "```"]
    for part in dict.fromkeys(row["part"] for row in found):
        rows = [row for row in found if row["part"] == part]
        columns = list(dict.fromkeys(k for row in rows for k in row if k not in ("part", "says")))
        text += ["", f"## {part}", "", f"{(PARTS[part].__doc__ or '').strip()}", ""]
        text += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        text += [f"| {' | '.join(_cell(row.get(k)) for k in columns)} |" for row in rows]
    return "\n".join([*text, ""])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    own, name = "cuda:0" if torch.cuda.is_available() else None, os.uname().nodename
    parser.add_argument("--out", type=Path, default=Path(f"gpu-{name}.json"), help="default: %(default)s")
    parser.add_argument("--device", default=own, help="cuda:<index>, or cpu")
    parser.add_argument("--only", help=f"parts, by commas: {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="every tenth recipe, and tiny sizes")
    options = parser.parse_args()
    if options.device is None:
        print("no CUDA device here; --device cpu --quick tries the script itself", file=sys.stderr)
        return 2
    parts = options.only.split(",") if options.only else list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        print(f"--only = {','.join(unknown)}: must be of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    found: list[dict[str, Any]] = []
    end = time.monotonic() + TOTAL
    for part in parts:
        print(f"{part} ...", flush=True)
        limit = max(1, min(LIMITS.get(part, 120), end - time.monotonic()))
        taken(part, options.device, options.quick, limit, found, options.out)
        write_whole(options.out.with_suffix(".md"), page(found).encode())
    print("\n".join(summary(found)))
    print(f"{options.out}, {options.out.with_suffix('.md')}")
    return int(any(row["ok"] is False for row in found))


if __name__ == "__main__":
    sys.exit(main())
