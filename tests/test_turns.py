"""Over all turns every test is run, and each run says what it leaves to others."""

from __future__ import annotations

import re

import pytest
import turns

pytest_plugins = "pytester"
SOME = """
import pytest
@pytest.mark.turns
@pytest.mark.parametrize("k", range(10))
def test_many(k): pass
@pytest.mark.turns
def test_one(): pass
@pytest.mark.turns
@pytest.mark.parametrize("k", [pytest.param(k, marks=pytest.mark.turns(60)) for k in range(2)])
def test_long(k): pass
def test_always(): pass
"""


def collected(pytester: pytest.Pytester, text: str) -> tuple[list[str], str]:
    done = pytester.runpytest_inprocess("-v", "-p", "turns", "-p", "no:cacheprovider", "--turn", text)
    assert done.ret == 0
    return re.findall(r"::(\S+) PASSED", done.stdout.str()), done.stdout.str()


def test_each_turn_is_another_and_all_are_everything(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SOME)
    pytester.makeini("[pytest]\nmarkers = turns")
    texts: dict[int, str] = {}
    for k in range(100):
        texts.setdefault(turns.crc32(str(k).encode()) % turns.TURNS, str(k))
    assert len(texts) == turns.TURNS
    runs = []
    for text in texts.values():
        found, said = collected(pytester, text)
        assert "test_always" in found
        assert f"{14 - len(found)} tests were left to the turns of other commits" in said
        runs.append(sorted(set(found) - {"test_always"}))
    assert sum(map(len, runs)) == len(set().union(*runs)) == 13
    assert [run for run in runs if "test_long[0]" in run] == [["test_long[0]"]]  # as long as three of the others
    assert sorted(map(len, runs)) == [1, 1, 2, 3, 3, 3]
    assert len(collected(pytester, "all")[0]) == 14
