"""What is on disk already: who computed it and when, and whether the code and data of today would give the same."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robust_erm.reports.terminal import made
from robust_erm.store import fingerprint
from robust_erm.store.config import Run
from robust_erm.store.reading import Recorded
from robust_erm.store.run_folder import RunFolder


@dataclass(frozen=True)
class _Group:
    """Runs that differ from today's code and data in the same files (None: nothing was recorded of them)."""

    files: tuple[str, ...] | None
    ended: bool


def settled(runs: Sequence[Run], tell: Callable[[str], None]) -> tuple[list[Run], list[str]]:
    """The runs as they are to be trained, and what forbids it.

    A run that has ended is not trained again, and one that has a checkpoint goes on from it; ``tell`` is told of the
    former in a line. Where the code or the data that computed them are not today's, ``stale`` of the config decides:
    refuse (a fault), keep (and say so), or retrain (from the start).

    Args:
        runs: checked.
        tell: is told lines for people.

    Returns:
        The runs, some of them with ``fresh`` set, and a line for each fault.
    """
    groups: dict[_Group, list[Recorded]] = defaultdict(list)
    taken: list[Recorded] = []
    afresh: set[str] = set()
    unique = {run.id: run for run in runs}
    for run in unique.values():
        found = RunFolder(run).recorded()
        if found is None:
            continue
        now = fingerprint.of_run(run)
        differs = None if found.fingerprint is None else tuple(fingerprint.differing(now, found.fingerprint))
        if differs != ():
            groups[_Group(differs, found.ended)].append(found)
            if run.stale == "retrain" and differs is not None:
                afresh.add(run.id)
                continue
        if found.ended:
            taken.append(found)
    faults = []
    for group, members in groups.items():
        line = _line(group, members)
        if group.files is None:
            tell(f"{line}; they are taken as they are")
        elif runs[0].stale == "refuse":
            faults.append(f"stale = refuse: {line}; stale=retrain trains them again, stale=keep takes them as they are")
        else:
            tell(f"{line}; they are {'trained again' if runs[0].stale == 'retrain' else 'kept'}")
    if taken and not faults:
        tell(f"{len(taken)} of {len(unique)} runs were there already, {made(taken)}; fresh=true trains them again")
    return [dataclasses.replace(run, fresh=True) if run.id in afresh else run for run in runs], faults


def _line(group: _Group, members: Sequence[Recorded]) -> str:
    what = f"{len(members)} run{'s' * (len(members) != 1)} {'ended' if group.ended else 'stopped half-way'}"
    if group.files is None:
        return f"{what} before it was recorded by which code"
    some = ", ".join(group.files[:3]) + (f" and {len(group.files) - 3} more" if len(group.files) > 3 else "")
    by = f" ({made(members)})" if group.ended else ""  # of others no date is recorded
    return f"{what} with other code or data than now: {some}{by}"
