"""How a sweep goes: one live view on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from robust_erm.reports.terminal import console, plain, say

_EVERY = 10.0  # seconds between two lines where there is no terminal
STATES = ("converged", "max_steps", "diverged", "failed")


def duration(seconds: float) -> str:
    """``3:07`` or ``2:05:09``."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


@contextmanager
def checking() -> Iterator[Callable[[str, bool], None]]:
    """Gives a function to call after every point that was checked (how far it is, whether to say so)."""
    began = said = time.monotonic()
    status = console.status("checking") if console.is_terminal else None
    shown = False

    def tick(text: str, aloud: bool) -> None:
        nonlocal said, shown
        now = time.monotonic()
        if not aloud or now - began < 2:
            return
        if status is not None:
            status.update(text)
            status.start()
            shown = True
        elif now - said >= _EVERY:
            said = now
            console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False)

    try:
        yield tick
    finally:
        if status is not None and shown:
            status.stop()


def ticker(status: Any, title: str) -> Callable[[str], None]:
    """Says what is done at the moment: in the status of a terminal, elsewhere at once and then every few seconds."""
    said = -math.inf

    def tick(text: str) -> None:
        nonlocal said
        status.update(plain(f"{title}: {text}"))
        if not console.is_terminal and time.monotonic() - said >= _EVERY:
            said = time.monotonic()
            say(f"{time.strftime('%H:%M:%S')} {title}: {text}", console)

    return tick


class View:
    """Counts what has been done; use as a context manager.

    Args:
        runs: how many are to be trained.
        steps: sum over the runs of the most steps that each may take.
        quiet: say nothing.
    """

    def __init__(self, runs: int, steps: int, quiet: bool) -> None:
        self.runs, self.steps, self.quiet = runs, steps, quiet
        self.ended: Counter[str] = Counter()
        self.packs, self.packs_done, self.waiting = 0, 0, 0
        self.unit, self.note = "packs", ""  # what is counted besides runs, and a word more
        self.began = self.said = time.monotonic()
        self.shown: Any = None
        self.steps_done, self.steps_spared = 0, 0
        self.running: dict[int, tuple[int, dict[str, Any]]] = {}
        bar = (TextColumn("  {task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[note]}"))
        self.bars = Progress(*bar, console=console)
        self.tasks: dict[int, Any] = {}
        terminal = console.is_terminal and not quiet
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=4) if terminal else None

    def __enter__(self) -> View:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
        elif not self.quiet and self.runs:
            self._line()

    def start(self, pack: int, title: str, runs: int, total: int) -> None:
        """Pack number ``pack`` begins; its bar is full at ``total``."""
        self.running[pack] = (runs, {})
        self.tasks[pack] = self.bars.add_task(title, total=total, note="")

    def progress(self, pack: int, said: dict[str, Any]) -> None:
        """Pack number ``pack`` says how far it is: t, steps (over its runs), spared, ended (by status).

        Its bar stands at ``done``, or else at t.
        """
        runs, _ = self.running[pack]
        self.running[pack] = (runs, said)
        note = f"step {said['t']:,}, {sum(said['ended'].values())} of {runs} runs ended"
        self.bars.update(self.tasks[pack], completed=said.get("done", said["t"]), note=note)

    def stop(self, pack: int, outcomes: Counter[str]) -> None:
        """Pack number ``pack`` is over, its runs ended as ``outcomes`` says."""
        _, said = self.running.pop(pack)
        self.bars.remove_task(self.tasks.pop(pack))
        self.steps_done += said.get("steps", 0)
        self.steps_spared += said.get("spared", 0)
        self.ended += outcomes
        self.packs_done += 1

    def tick(self) -> None:
        """Called often: says a line where there is no terminal, every so many seconds."""
        if not self.live and not self.quiet and time.monotonic() - self.said >= _EVERY:
            self._line()

    def _line(self) -> None:
        self.said = time.monotonic()
        where = (self.totals(), self.packs_done, len(self.running), self.waiting)
        if where != self.shown:  # nothing is said twice
            self.shown = where
            console.print(time.strftime("%H:%M:%S ") + self._summary(), highlight=False, soft_wrap=True)

    def totals(self) -> dict[str, Any]:
        """How far all packs together are, in the terms of :meth:`progress`."""
        under_way = [said for _, said in self.running.values()]
        return {
            "t": max((said.get("t", 0) for said in under_way), default=0),
            "steps": self.steps_done + sum(said.get("steps", 0) for said in under_way),
            "spared": self.steps_spared + sum(said.get("spared", 0) for said in under_way),
            "ended": self.ended + sum((Counter(said.get("ended", {})) for said in under_way), Counter()),
        }

    def _summary(self) -> str:
        totals = self.totals()
        steps, ended = totals["steps"], totals["ended"]
        elapsed = max(time.monotonic() - self.began, 1e-9)
        parts = [f"{self.unit} {self.packs_done}/{self.packs}, {len(self.running)} running"]
        parts.append(f"runs {sum(ended.values())}/{self.runs}: " + ", ".join(f"{ended[s]} {s}" for s in STATES))
        parts.append(f"{steps / elapsed:,.0f} run-steps/s" if steps else "starting")
        left = self.steps - steps - totals["spared"]
        if steps > 0 and left > 0:
            parts.append(f"{duration(elapsed)} gone, at most {duration(left * elapsed / steps)} left")
        else:
            parts.append(f"{duration(elapsed)} gone")
        if self.waiting:
            parts.append(f"{self.waiting} runs are in other hands")
        return "; ".join([*parts, self.note] if self.note else parts)

    def _render(self) -> Group:
        return Group(Text(self._summary()), *([self.bars] if self.tasks else []))
