"""Tests that take turns: of those marked ``turns`` a check runs a sixth, another one for another commit.

``pytest`` runs all that it is asked for; ``pytest --turn <any text>``, as ``make test`` has it with the commit, those
of one turn, and says at the end how many were left to others. Turns are about equally long: a test says in its mark
how many seconds it takes, ``turns(120)``, if they are many.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest

TURNS = 6
SECONDS = 20.0  # of a test that does not say
LEFT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--turn", metavar="TEXT", help="of the tests that take turns, those of the text's turn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    text = config.getoption("--turn")
    if text in (None, "all"):
        return
    mine, others, turn = [], [], crc32(text.encode()) % TURNS
    turns = _turns(items)
    for item in items:
        (mine if turns.get(item.nodeid, turn) == turn else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:], config.stash[LEFT] = mine, len(others)


def _turns(items: list[pytest.Item]) -> dict[str, int]:
    """The turn of each test that takes turns: the longest first, each in the turn that is shortest so far."""
    long = {item.nodeid: _seconds(item) for item in items if item.get_closest_marker("turns")}
    load, turns = [0.0] * TURNS, {}
    for test in sorted(long, key=lambda test: (-long[test], test)):
        turns[test] = load.index(min(load))
        load[turns[test]] += long[test]
    return turns


def _seconds(item: pytest.Item) -> float:
    return max((mark.args[0] for mark in item.iter_markers("turns") if mark.args), default=SECONDS)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: Any = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left to other turns"] = session.config.stash.get(LEFT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LEFT] = getattr(node, "workeroutput", {}).get("left to other turns", 0)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--turn") not in (None, "all"):
        left = config.stash.get(LEFT, 0)
        says = f"{left} tests were left to the turns of other commits: make test TURN=all runs all"
        terminalreporter.write_line(says, yellow=True)
