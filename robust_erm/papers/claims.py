"""Claims of papers, each with what was measured and a verdict that follows from it by rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robust_erm.core.statistics import LEGEND, bracketed, interval
from robust_erm.store.files import write_json, write_whole

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
        claim: in one sentence.
        where: the paper says it, or "ours".
        measured: what was found, with its spread, and the rule of the verdict where it is not obvious.
        verdict: holds, does not hold, or undecided.
    """

    claim: str
    where: str
    measured: str
    verdict: str


def spread(values: Iterable[float], percent: bool = True) -> str:
    """``17.1 points [15.9, 18.3]``: mean over the draws and its 95 % t-interval, which decides the verdicts."""
    x = [(100 if percent else 1) * value for value in values]
    if not x:
        return "nothing"
    return bracketed(*interval(x), *((".1f", " points") if percent else ()))


def by_draw(values: pd.Series, seeds: pd.Series | None = None) -> pd.Series:
    """One number a draw: the mean over settings that share a seed, and with it points, which are no further draws.

    A draw that lacks settings which another has is nan: the mean over others would be another quantity.

    Args:
        values: indexed like ``seeds``; without these, by a level ``seed`` among others.
        seeds: of each.
    """
    grouped = values.groupby(level="seed") if seeds is None else values.groupby(seeds)
    count = grouped.count()
    found: pd.Series = grouped.mean().where((count == grouped.size()) & (count == grouped.size().max()))
    return found


def excess(own: pd.Series, other: pd.Series) -> pd.Series:
    """``own / other - 1`` of the draws that have both: of margins, by how much one is larger than another.

    It is nan where ``other`` is not positive, of which nothing is a multiple.
    """
    one, two = own.align(other, join="inner")
    known = one.notna() & two.notna()
    return (one / two - 1).where(two > 0)[known]


def above(
    claim: str, where: str, values: Iterable[float], least: float = 0.0, what: str = "", percent: bool = True
) -> Claim:
    """Holds where the 95 % interval of the mean over draws lies above ``least``, and not where it lies below.

    ``percent``: in points; else as plain numbers.
    """
    x = list(values)
    mean, half = interval(x)
    verdict = HOLDS if mean - half > least else FAILS if mean + half < least else UNDECIDED
    bar = f" (asked: above {(100 if percent else 1) * least:g})" if least else ""
    return Claim(claim, where, f"{what}{spread(x, percent)} over {_draws(x)}{bar}", verdict)


def within(claim: str, where: str, values: Iterable[float], tolerance: float, what: str = "") -> Claim:
    """Holds where the 95 % interval of the mean over draws lies within +- ``tolerance``, not where it lies outside."""
    x = list(values)
    mean, half = interval(x)
    inside, outside = abs(mean) + half <= tolerance, abs(mean) - half > tolerance
    verdict = HOLDS if inside else FAILS if outside else UNDECIDED
    return Claim(
        claim, where, f"{what}{spread(x)} over {_draws(x)} (similar: within {100 * tolerance:g} points)", verdict
    )


def between(
    claim: str, where: str, found: tuple[float, float], low: float, high: float, what: str = "", n: int = 0
) -> Claim:
    """Holds where the interval ``found``, its middle and half its width, lies in [low, high]; not where outside.

    Args:
        claim: in one sentence.
        where: the paper says it.
        found: as :func:`robust_erm.core.statistics.interval` and ``slope`` of it give it.
        low: or -inf.
        high: or inf.
        what: is measured.
        n: runs that it comes from.
    """
    mean, half = found
    verdict = HOLDS if low <= mean - half and mean + half <= high else UNDECIDED
    verdict = FAILS if mean - half > high or mean + half < low else verdict
    one_end = f"at most {high:g}" if math.isinf(low) else f"at least {low:g}"
    asked = one_end if math.isinf(low) or math.isinf(high) else f"{low:g} to {high:g}"
    return Claim(claim, where, f"{what}{bracketed(mean, half)} over {n} runs (asked: {asked})", verdict)


def every(claim: str, where: str, values: Iterable[float], least: float, what: str = "", limit: bool = False) -> Claim:
    """Holds where no case is below ``least``: for theorems, which allow no exception.

    With ``limit``, a case below leaves it undecided: what is reached in the limit may not have been reached yet. So
    does a case that was not measured, nan, where no other refutes.
    """
    given = np.asarray(list(values), dtype=float)
    x = given[~np.isnan(given)]  # an infinite length is an answer
    missing = f", {len(given) - len(x)} not measured" if len(x) < len(given) else ""
    if not len(x):
        return Claim(claim, where, f"nothing was measured{missing}", UNDECIDED)
    below = int((x < least).sum())
    verdict = (UNDECIDED if limit else FAILS) if below else UNDECIDED if missing else HOLDS
    exceptions = f", {below} of them {'not there yet' if limit else 'below'}" if below else ""
    text = f"{what}least {x.min():.5g}, median {np.median(x):.5g} of {len(x)} cases{exceptions}{missing}"
    text += f" (asked: {least:g})"
    return Claim(claim, where, text, verdict)


def converged(claim: str, where: str, status: Iterable[str]) -> Claim:
    """Whether every run has come down to the loss asked for."""
    return every(claim, where, [float(word == "converged") for word in status], 1.0, "1 where so: ")


def stated(claim: str, where: str, measured: str, holds: bool | None) -> Claim:
    """A claim judged elsewhere; None is undecided."""
    return Claim(claim, where, measured, UNDECIDED if holds is None else HOLDS if holds else FAILS)


def _draws(x: Sequence[float]) -> str:
    return f"{len(x)} draw{'s' if len(x) != 1 else ''}"


def write(claims: Sequence[Claim], facts: dict[str, Any], folder: Path) -> None:
    """``claims.json`` and the readable page ``claims.md``."""
    write_json(folder / "claims.json", {**facts, "claims": [asdict(claim) for claim in claims]})
    lines = [f"# {facts['title']}", "", *(f"- {key}: {value}" for key, value in facts.items() if key != "title"), ""]
    if any("[" in claim.measured for claim in claims):
        lines += [f"{LEGEND[0].upper()}{LEGEND[1:]}.", ""]
    lines += ["| claim | where | measured | verdict |", "|---|---|---|---|"]
    lines += [f"| {_cell(c.claim)} | {_cell(c.where)} | {_cell(c.measured)} | **{c.verdict}** |" for c in claims]
    write_whole(folder / "claims.md", ("\n".join(lines) + "\n").encode())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
