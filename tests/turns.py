"""Tests that take turns: of those marked ``turns`` a check runs a sixth, another one for another commit.

``pytest`` runs all that it is asked for; ``pytest --turn <any text>``, as ``make test`` has it with the commit, those
of one turn, and says at the end how many were left to others.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from zlib import crc32

import pytest

TURNS = 6
LEFT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--turn", metavar="TEXT", help="of the tests that take turns, those of the text's turn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    text = config.getoption("--turn")
    if text in (None, "all"):
        return
    turn, count = crc32(text.encode()), Counter[str]()
    mine, others = [], []
    for item in items:
        test, which = item.nodeid.partition("[")[0], 0
        if item.get_closest_marker("turns"):  # what a test is given in a row takes turns one after another
            which = (crc32(test.encode()) + count[test] - turn) % TURNS
            count[test] += 1
        (others if which else mine).append(item)
    config.hook.pytest_deselected(items=others)
    items[:], config.stash[LEFT] = mine, len(others)


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
