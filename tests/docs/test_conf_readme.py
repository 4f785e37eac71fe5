"""conf/README.md says what the yamls say, and nothing there is without a meaning."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from conf_readme import BEGIN, CONF, GROUPS, PAGE, description, meanings, tables

FILES = [CONF / "train.yaml", *(path for group in GROUPS for path in sorted((CONF / group).glob("*.yaml")))]


def test_the_page_is_what_the_yamls_say() -> None:
    assert PAGE.read_text().partition(BEGIN)[2].strip() == tables().strip(), "python tests/docs/conf_readme.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).with_suffix("").as_posix())
def test_every_option_has_a_meaning(path: Path) -> None:
    """In the yaml's comment, or in the docstring of the class; and the yaml says in a line what it is."""
    assert [key for key, _, meaning in meanings(path) if not meaning] == []
    assert path.stem == "train" or description(path)


def test_every_group_is_there() -> None:
    groups = {p.relative_to(CONF).as_posix() for p in CONF.rglob("*") if p.is_dir() and list(p.glob("*.yaml"))}
    others = {group for group in groups if group.startswith(("experiment/", "reproduce/"))}
    assert groups - others - {"hydra/help"} == set(GROUPS)
