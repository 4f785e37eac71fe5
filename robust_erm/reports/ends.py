"""At which losses runs ended, and whether they can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

_EQUAL = math.log(2)  # ends within a factor of 2 are at equal loss


def loss(log_loss: float) -> str:
    """``exp(log_loss)`` in two digits, however small: 0.36, 1.0e-07, 3.2e-900."""
    if not math.isfinite(log_loss):
        return {math.inf: "inf", -math.inf: "0"}.get(log_loss, "nan")
    exponent = math.floor(log_loss / math.log(10))
    if -4 <= exponent < 4:
        return f"{math.exp(log_loss):.2g}"
    return f"{10 ** (log_loss / math.log(10) - exponent):.1f}e{exponent:+03d}"


def losses(log_losses: Iterable[float]) -> str:
    """From the least to the greatest: ``2.0e-03 to 0.36``; of one value, or equal ones, that."""
    values = sorted(x for x in log_losses if not math.isnan(x))
    ends = list(dict.fromkeys(map(loss, (values[0], values[-1])))) if values else ["nan"]
    return " to ".join(ends)


def lost_separation(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that once had a positive least robust margin, and have none at their end."""
    return frame[frame["lost_separation_at"].notna()] if "lost_separation_at" in frame else frame.iloc[:0]


def statuses(frame: pd.DataFrame) -> pd.Series[str]:
    """How each run ended, and whether it lost what it had separated: ``max_steps, lost separation``."""
    found = frame["status"].astype(str)
    lost = frame.index.isin(lost_separation(frame).index)
    return found.where(~lost, found + ", lost separation")


def differ(frame: pd.DataFrame) -> str:
    """One line on runs that did not end at the same loss; empty where they did, or where there is nothing to compare.

    Runs which end at ``stop.loss`` are compared at equal loss. Others ended at their last step, or diverged: the line
    says how many, and at which losses. Oracles, which take no step, do not count.

    Args:
        frame: a row a run: status, step, log_loss, perhaps optimizer.
    """
    trained = frame[~frame["optimizer"].astype(str).str.startswith("oracle")] if "optimizer" in frame else frame
    if len(trained) < 2 or "log_loss" not in trained:
        return ""
    last, diverged = (trained[trained["status"] == word] for word in ("max_steps", "diverged"))
    reached = trained[trained["status"] == "converged"]
    ends = trained["log_loss"].astype(float)
    lost = lost_separation(trained)
    targets = set(_targets(trained))
    alike = not len(last) or (not len(reached) and ends.max() - ends.min() < _EQUAL)
    if alike and len(targets) < 2 and not len(diverged) and not len(lost):
        return ""
    parts = []
    if len(lost):
        parts.append(f"{len(lost)} of {len(trained)} runs had separated their training points, and no longer do")
    if len(targets) > 1:
        parts.append(f"runs were to end at {len(targets)} different losses")
    if len(last):
        parts.append(f"{len(last)} of {len(trained)} runs ended at the last step, at losses of {_of(last)}")
    if len(diverged):
        parts.append(f"{len(diverged)} of {len(trained)} runs diverged")
    if len(reached):
        parts.append(f"{len(reached)} reached the loss of stop, at {_of(reached)}")
    advice = " (stop.steps, stop.loss)" if len(last) else ""
    return f"{'; '.join(parts)}: not compared at equal loss{advice}"


def _targets(frame: pd.DataFrame) -> Iterable[str]:
    """What each run was to end at: stop.log_loss where it is given, else stop.loss."""
    loss = frame["stop.loss"].map(str) if "stop.loss" in frame else pd.Series("", index=frame.index)
    if "stop.log_loss" not in frame:
        return loss
    return loss.where(frame["stop.log_loss"].isna(), "log " + frame["stop.log_loss"].map(str))


def _of(some: pd.DataFrame) -> str:
    return losses(some["log_loss"].astype(float))
