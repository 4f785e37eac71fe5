"""Evaluate trained runs with strong attacks, certificates, and checks for masked gradients:

python -m robust_erm.evaluate outputs attack=auto eps=0.1,0.2
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_erm.evaluation import Options

_USAGE = """usage: python -m robust_erm.evaluate [folder ...] [key=value ...]

Folders of runs, or folders of those (default: outputs). What is found goes to <run>/evaluations/, beside what
training wrote; python -m robust_erm.results shows it as columns. What has been evaluated is not evaluated again.

attack=auto          the training attack, then an ensemble in the manner of AutoAttack: APGD on the margin, with
                     several classes also on the DLR loss and targeted, FAB, in l_inf Square; or names of conf/attack,
                     attack=apgd,square; each attacks what those before it have left
eps=0.1,0.2          radii; default: each run's own radius of evaluation
parts=train,test     which points
points=10000         at most so many of each part: a random sample, another one for each seed
certify=true         lower bounds, for models linear in their input (exact) and one hidden ReLU layer
exact=0              seconds for each point that bounds leave open, by a mixed-integer program; 0: none
checks=true          look for masked gradients
fresh=false          true: evaluate again
device=auto          auto, cpu, cuda, cuda:<index>, mps
<attack>.<key>=...   options of one attack: square.queries=1000 apgd.steps=50
"""


def parsed(arguments: Sequence[str]) -> tuple[list[str], Options]:
    """Folders, and options; raises ConfigError."""
    import yaml

    from robust_erm.errors import ConfigError, one_of, require
    from robust_erm.evaluation import Options, attack_names

    folders = [a for a in arguments if "=" not in a]
    found: dict[str, Any] = {}
    of_attacks: dict[str, dict[str, Any]] = {}
    known = [name for name in Options.__dataclass_fields__ if name != "of_attacks"]
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            continue
        attack, dot, option = key.partition(".")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if dot:
            one_of("attack", attack, attack_names())
            require(option not in ("p", "box"), key, text, "is the threat that the run was trained for")
            of_attacks.setdefault(attack, {})[option] = value
            continue
        one_of("option", key, known)
        if key in ("attack", "parts"):
            found[key] = tuple(text.split(","))
            for name in found[key]:
                one_of(key, name, ["auto", *attack_names()] if key == "attack" else ["train", "test"])
        elif key == "eps":
            try:
                found[key] = tuple(float(part) for part in text.split(","))
            except ValueError:
                raise ConfigError(key, text, "must be numbers with commas between them") from None
            require(all(0 <= e < float("inf") for e in found[key]), key, text, "must be finite and 0 or more")
        elif key == "points":
            require(isinstance(value, int) and value is not True and value >= 1, key, text, "must be 1 or more")
            found[key] = value
        elif key == "exact":
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number and 0 <= value < float("inf"), key, text, "must be seconds, 0 or more")
            found[key] = float(value)
        elif key == "device":
            found[key] = text
        else:
            require(isinstance(value, bool), key, text, "must be true or false")
            found[key] = value
    return folders or ["outputs"], Options(**found, of_attacks=of_attacks)


def evaluate(folders: Sequence[str | Path], options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluate every run that has ended below ``folders``.

    Returns:
        What each evaluation found, and a line for each run that could not be evaluated.

    Raises:
        ConfigError: no run, an attack that does not fit, a checkpoint of another config.
    """
    from robust_erm import plan
    from robust_erm.errors import ConfigError, require
    from robust_erm.evaluation import AT_ONCE, attacks_of, device_of, file_of, in_halves
    from robust_erm.problem import radii
    from robust_erm.reproduced import run_of
    from robust_erm.run_folder import SUMMARY, RunFolder
    from robust_erm.terminal import console, say

    paths: list[Path] = []
    for root in map(Path, folders):
        require(root.exists(), "folder", root, "there is no such folder")
        paths += sorted(summary.parent for summary in root.rglob(SUMMARY))
    require(bool(paths), "folder", " ".join(map(str, folders)), "no run has ended there yet")
    runs = {path: run_of(path) for path in dict.fromkeys(paths)}
    for run in runs.values():
        attacks_of(run, options)  # refused before anything is computed
    device = device_of(options)
    jobs: dict[str, list[tuple[Path, Any, float]]] = {}  # by the evaluation's name
    failed: list[str] = []
    for path, run in runs.items():
        try:
            require(RunFolder(run, path).read_checkpoint() is not None, "checkpoint", path, "is missing; train again")
        except ConfigError as error:
            failed.append(str(error))
            continue
        for eps in options.eps or (None,):
            if options.fresh or not file_of(path, options.name(eps)).is_file():
                jobs.setdefault(options.name(eps), []).append((path, run, radii(run)[1] if eps is None else eps))
    count, done = sum(map(len, jobs.values())), 0
    with console.status("") as status:
        for name, members in jobs.items():
            for pack in plan.packs([run for _, run, _ in members], AT_ONCE, 1):
                began, title = time.monotonic(), f"{done} of {count} evaluated; {members[pack[0]][1].name}"
                tick = partial(_say, status, title)
                failed += in_halves([members[i] for i in pack], name, options, device, tick)
                done += len(pack)
                if not console.is_terminal:
                    say(f"{done} of {count} evaluated; {len(pack)} in {time.monotonic() - began:.0f} s", console)
    names = [options.name(eps) for eps in options.eps or (None,)]
    files = [file_of(path, name) for name in names for path in runs]
    return [json.loads(file.read_text()) for file in files if file.is_file()], failed


def _say(status: Any, title: str, text: str) -> None:
    status.update(f"{title}: {text}")


def show(found: Sequence[dict[str, Any]], folders: Sequence[str | Path], options: Options) -> None:
    """The table: robust accuracy as an interval, and the warnings."""
    import pandas as pd
    from rich.table import Table

    from robust_erm.results import load, varying
    from robust_erm.terminal import cell, output, say

    frame = load(folders).drop_duplicates("id").set_index("id")
    keys = [key for key in varying(frame.reset_index()) if key not in ("seed", "eps")]
    rows = pd.DataFrame(list(found))
    for key in keys:
        rows[key] = rows["id"].map(frame[key]).map(str)
    rows["trained at eps"] = rows["id"].map(frame["eps"])  # in the config's unit
    given = bool(options.eps)
    keys += [*(["trained at eps"] if not given or len(set(frame["eps"])) > 1 else []), *(["eps"] if given else [])]
    rows["warned"] = rows["warnings"].map(bool)
    parts = [part for part in ("train", "test") if f"{part}_attacked" in rows]
    table = Table(show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for heading in (*keys, "runs"):
        table.add_column(heading.replace(*((" at", "\nat") if given else ("trained at ", ""))))
    for part in parts:
        for heading in ("clean", "training attack", "\\[certified, attacked]"):
            table.add_column(f"{part}\n{heading}", justify="right")
    table.add_column("warnings", justify="right")
    for values, group in rows.groupby(keys, sort=False, dropna=False):
        shown = [cell(value) for value in values] + [str(len(group))]
        for part in parts:
            for column in (f"{part}_clean", f"{part}_after_train"):
                shown.append(_mean(group, column))
            low = _mean(group, f"{part}_certified")
            shown.append(f"\\[{low}, {_mean(group, f'{part}_attacked')}]")
        table.add_row(*shown, str(int(group["warned"].sum())))
    output.print(table)
    output.print(
        "accuracies in %, mean ± standard deviation over the runs; certified: -, where there is no certificate"
    )
    said = [(one["run"], line) for one in found for line in one["warnings"]]
    for run, line in said[:20]:
        say(f"warning: {run}: {line}")
    if len(said) > 20:
        say(f"... and {len(said) - 20} more warnings, in evaluations/*.json of the runs")


def _mean(group: Any, column: str) -> str:
    if column not in group or group[column].isna().any():
        return "-"
    values = 100 * group[column]
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    from robust_erm.errors import ConfigError

    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(_USAGE)
        return 0
    try:
        folders, options = parsed(given)
        found, failed = evaluate(folders, options)
    except ConfigError as error:
        print(f"robust_erm: {error}", file=sys.stderr)
        return 2
    if found:
        show(found, folders, options)
    for line in failed:
        print(f"robust_erm: {line}", file=sys.stderr)
    return 1 if failed else 0


def command() -> None:
    """The console command ``robust-erm-evaluate``."""
    from robust_erm.train import ended_cleanly, interrupted

    with ended_cleanly():
        signal.signal(signal.SIGTERM, interrupted)
        sys.exit(main())


if __name__ == "__main__":
    command()
