"""What the terminal shows: warnings, and tables of runs."""

from __future__ import annotations

import io
import logging
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from robust_erm.core.statistics import LEGEND, bracketed
from robust_erm.reports.ends import loss, statuses
from robust_erm.store.reading import Recorded

if isinstance(sys.stdout, io.TextIOWrapper):  # a degree sign ends no command on a terminal without one
    sys.stdout.reconfigure(errors="backslashreplace")
console = Console(stderr=True)
output = Console(width=None if sys.stdout.isatty() else 160)
WIDE = 6  # config columns that fit
SHOWN = {
    "status": "status",
    "step": "step",
    "loss": "loss",
    "train_clean_acc": "train\nclean",
    "train_robust_acc": "train\nrobust",
    "test_clean_acc": "test\nclean",
    "test_robust_acc": "test\nrobust",
    "margin_robust_l1": "margin\n/l1^L",
    "margin_robust_l2": "margin\n/l2^L",
    "margin_robust_linf": "margin\n/linf^L",
}


def say(text: str, to: Console = output) -> None:
    """A line as it is: not folded, not coloured, brackets and all."""
    to.print(plain(text), soft_wrap=True, highlight=False, markup=False)


def told(lines: Sequence[str], status: int, most: int = 4) -> int:
    """Say what went wrong, a line each on standard error, ``most`` of them; returns ``status``."""
    for line in lines[:most]:
        print(f"robust_erm: {plain(line):.500}", file=sys.stderr)
    if len(lines) > most:
        print(f"robust_erm: ... and {len(lines) - most} more", file=sys.stderr)
    return status


def plain(text: str) -> str:
    """``text`` without what a terminal would obey: control characters as they are written in Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def safe(text: Any) -> str:
    """``text`` for a cell of a table: neither a terminal nor rich obeys what is in it."""
    return escape(plain(str(text)))


def made(members: Sequence[Recorded], verb: str = "trained") -> str:
    """``trained 2026-11-25 17:49 by git 308c6b4``, or from when to when by which revisions."""
    dates = sorted({date for member in members if (date := member.date)})
    shown = [datetime.fromisoformat(date).astimezone().strftime("%Y-%m-%d %H:%M") for date in dates[:1] + dates[-1:]]
    when = " to ".join(dict.fromkeys(shown)) or "at an unknown time"
    by = sorted({member.revision or "an unknown revision" for member in members})
    return f"{verb} {when} by git {', '.join(by[:3])}" + (f" and {len(by) - 3} more" if len(by) > 3 else "")


def show(frame: pd.DataFrame, keys: list[str], ends: str = "") -> None:
    """The terminal's table: what differs between the rows, then what was measured.

    Args:
        frame: a row a run, or a group of them (:func:`robust_erm.reports.tables.grouped`).
        keys: the columns of what differs.
        ends: how ends differ (:func:`robust_erm.reports.ends.differ`): said below the table, losses in a column.
    """
    if "runs" not in frame and "status" in frame:  # in a group they are counted
        frame = frame.assign(status=statuses(frame))
    if ends and "loss" not in frame:
        frame = frame.assign(loss=frame["log_loss"].astype(float).map(loss))
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("#", justify="right")
    for key in keys:
        table.add_column(safe(key))
    names = [str(c) for c in frame if str(c).startswith("test_robust_acc_")]
    attacks = {c: c.replace("_robust_acc_", "\n") for c in names if len(names) > 1}
    headings = {"runs": "runs", **SHOWN, **attacks}
    columns = [c for c in headings if c in frame and c not in keys and frame[c].notna().any()]
    if not ends:
        columns = [c for c in columns if c != "loss"]
    if "cd" not in set(frame["optimizer"]):
        columns = [c for c in columns if c != "margin_robust_l1"]  # the margin of coordinate descent only
    for column in columns:
        table.add_column("\n".join(map(safe, headings[column].split("\n"))), justify="right")
    records = frame.to_dict("records")
    for k, record in enumerate(records, start=1):
        values = [cell(record[c], record.get(f"{c}_half", math.inf), percent="_acc" in c) for c in columns]
        table.add_row(str(k), *(cell(record[key]) for key in keys), *values)
    output.print(table)
    over = f"; {LEGEND}" if "runs" in columns and (frame["runs"] > 1).any() else ""
    say(f"accuracies in %, clean and under attack; margin: the least robust one on the training set{over}")
    if ends:
        say(f"note: {ends}")


def folders(frame: pd.DataFrame) -> None:
    """The folder of every row, under the number that the table gave it."""
    for k, folder in enumerate(frame["folder"], start=1):
        say(f"{k:>3}  {folder}")


def cell(value: Any, half: float = math.inf, percent: bool = False) -> str:
    """A number or word as the table shows it; accuracies in per cent; ``half`` the width of its interval."""
    if not isinstance(value, float):
        return safe(value)
    scale, number = (100, ".1f") if percent else (1, ".3g")
    return escape(bracketed(scale * value, scale * half, number, between="\n"))


def set_up_logging() -> None:
    """Warnings to the terminal; everything to each run's own log."""
    log = logging.getLogger("robust_erm")
    if not log.handlers:
        handler = RichHandler(console=console, show_path=False, show_time=False)
        handler.setLevel(logging.WARNING)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def show_claims(claims: Sequence[Any]) -> None:
    """The verdicts, coloured, with what they follow from."""
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold", show_lines=True)
    for name in ("verdict", "claim", "where", "measured"):
        table.add_column(name, overflow="fold")
    colours = {"holds": "green", "does not hold": "red"}
    for claim in claims:
        verdict = f"[{colours.get(claim.verdict, 'yellow')}]{claim.verdict}[/]"
        table.add_row(verdict, escape(claim.claim), escape(claim.where), escape(claim.measured))
    output.print(table)
    if any("[" in claim.measured for claim in claims):
        say(LEGEND)
