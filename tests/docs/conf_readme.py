"""The tables of conf/README.md, made from the yamls and their comments.

python tests/docs/conf_readme.py    writes them anew; tests/docs/test_conf_readme.py holds them against the yamls
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import yaml
from hydra.utils import get_class

ROOT = Path(__file__).resolve().parents[2]
CONF, PAGE = ROOT / "conf", ROOT / "conf" / "README.md"
BEGIN = "<!-- made by tests/docs/conf_readme.py: change the yamls, not these lines -->"
GROUPS = (
    *("data", "model", "objective", "optimizer", "optimizer/schedule", "optimizer/geometry", "optimizer/accumulator"),
    *("attack", "measure", "logger", "trainer", "hydra/launcher", "hydra/sweeper"),
)
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w@/.]+):(?: +(?P<value>\S.*?))?(?: +# (?P<comment>.*))?$")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


def options(path: Path) -> list[tuple[str, str, str]]:
    """Dotted key, default and comment of every option of a yaml, in order."""
    found: list[tuple[str, str, str]] = []
    above: list[str] = []
    inside = ""
    for line in path.read_text().splitlines():
        match = _LINE.match(line)
        if line.startswith("defaults:"):
            inside = "defaults"
        elif match is None:
            continue
        elif not match["indent"]:
            inside = match["key"]
        if match is None or inside in ("defaults", "hydra") or match["key"].startswith("_"):
            continue
        above = [*above[: len(match["indent"]) // 2], match["key"]]
        if match["value"] is not None:
            found.append((".".join(above), match["value"], match["comment"] or ""))
    return found


def documented(path: Path) -> dict[str, str]:
    """What the docstring of a yaml's class says of its arguments, in one line each."""
    target = (yaml.safe_load(path.read_text()) or {}).get("_target_")
    text = inspect.getdoc(get_class(target)) or "" if target else ""
    _, _, arguments = text.partition("Args:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in arguments.splitlines():
        if not line.startswith("    "):
            break
        head = re.match(r"    ([\w, ]+): (.*)", line)
        if head:
            names = head[1].split(", ")
            found |= dict.fromkeys(names, head[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def meanings(path: Path) -> list[tuple[str, str, str]]:
    """Options with their defaults and what they mean: the yaml's comment, else the class's docstring."""
    known = documented(path)
    return [(key, value, comment or known.get(key, "")) for key, value, comment in options(path)]


def description(path: Path) -> str:
    """The comment at the top of a yaml, up to its examples, and what it takes from others."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("# ") or line.startswith("#   "):
            if lines or not line.startswith("#"):
                break
            continue
        if not line.startswith("# @"):
            lines.append(line.removeprefix("# "))
    said = yaml.safe_load(path.read_text()) or {}
    text = " ".join(lines).rstrip(":")
    for base in said.get("defaults", []):
        if isinstance(base, dict) and base.keys() <= {"geometry", "accumulator", "schedule"}:
            text += "".join(f"; `optimizer/{part}={name}`" for part, name in base.items())
        elif isinstance(base, str) and base != "_self_":
            text += f"; as `{base}` otherwise"
    return text.lstrip("; ")


def table(group: str) -> list[str]:
    """One group: a row for each component, and one for each of its options."""
    rows = [f"## `{group}`", "", "| component | option | default | meaning |", "|---|---|---|---|"]
    for path in sorted((CONF / group).glob("*.yaml")):
        rows.append(f"| **`{path.stem}`** | | | {_cell(description(path))} |")
        rows += [f"| | `{key}` | `{_cell(value)}` | {_cell(comment)} |" for key, value, comment in meanings(path)]
    return [*rows, ""]


def tables() -> str:
    """Everything below the marker."""
    lines = ["## The run itself", "", "| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{k}` | `{_cell(v)}` | {_cell(c)} |" for k, v, c in options(CONF / "train.yaml")]
    lines.append("")
    for group in GROUPS:
        lines += table(group)
    lines += ["## `experiment`", "", "| experiment | what |", "|---|---|"]
    for path in sorted((CONF / "experiment").glob("*/*.yaml")):
        name = path.relative_to(CONF / "experiment").with_suffix("").as_posix()
        lines.append(f"| `{name}` | {_cell(description(path))} |")
    lines += ["", "## `reproduce`", "", "| `python -m robust_erm.reproduce ...` | |", "|---|---|"]
    for path in sorted((CONF / "reproduce").glob("*/*.yaml")):
        name = path.relative_to(CONF / "reproduce").with_suffix("").as_posix()
        lines.append(f"| `{name}` | {_cell(yaml.safe_load(path.read_text())['title'])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Replace what is below the marker."""
    above = PAGE.read_text().partition(BEGIN)[0]
    PAGE.write_text(f"{above}{BEGIN}\n\n{tables()}")


if __name__ == "__main__":
    main()
