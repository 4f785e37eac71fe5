"""Regenerate a figure, table or theorem of a paper, and say claim by claim whether it holds:

python -m robust_erm.reproduce tsilivis2024/fig1 scale=small
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_erm.evaluation import Options

_OF_EVALUATE = "evaluate."
SCALES = ("smoke", "small", "paper")
_USAGE = """usage: python -m robust_erm.reproduce <paper>/<name> [scale=smoke|small|paper] [key=value ...]

smoke takes seconds, small minutes on two cores, paper has the paper's own sizes. Further overrides replace those of
the scale (seed=0,1 output_dir=... hydra/launcher=slurm ...; evaluate.points=100 for the strong attacks, where there
are some). What has been trained is not trained again.

Figures, tables and verdicts go to <output_dir>/reproduced/<paper>/<name>-<scale>/. There are:
"""


@dataclass(frozen=True)
class Experiment:
    """What ``conf/reproduce/<paper>/<name>.yaml`` says.

    Args:
        name: ``<paper>/<name>``.
        title: of the page of claims.
        of: the module in ``robust_erm/figures/<paper>/`` that makes table, figure and claims.
        base: overrides of every sweep.
        sweeps: what each adds to base and scale, by label and scale; of one key the last override counts.
        scales: overrides of every sweep at that scale.
        uses: other experiments of the paper whose sweeps this one reads: all, or those of the labels given.
        evaluate: options of ``python -m robust_erm.evaluate`` for all runs, by scale; none: they are not evaluated.
    """

    name: str
    title: str
    of: str
    base: list[str]
    sweeps: dict[str, dict[str, list[str]]]
    scales: dict[str, list[str]]
    uses: dict[str, list[str] | None]
    evaluate: dict[str, list[str]]

    def lines(self, scale: str, overrides: Sequence[str] = ()) -> dict[str, list[str]]:
        """All sweeps at ``scale``, by label (``fig1.descent`` where another experiment's).

        ``overrides`` replace those of base and scale; what a sweep itself fixes stays.
        """
        paper = self.name.partition("/")[0]
        found: dict[str, list[str]] = {}
        for other, labels in self.uses.items():
            lines = experiment(f"{paper}/{other}").lines(scale, overrides)
            found |= {f"{other}.{k}": line for k, line in lines.items() if labels is None or k in labels}
        return found | {
            label: _last([*self.base, *self.scales[scale], *overrides, *lines[scale]])
            for label, lines in self.sweeps.items()
        }

    def evaluation(self, scale: str, overrides: Sequence[str] = ()) -> list[str]:
        """The options of ``python -m robust_erm.evaluate`` at ``scale``, those in ``overrides`` last; none: no such.

        Raises:
            ConfigError: options where nothing is evaluated.
        """
        from robust_erm.errors import require

        given = [o.removeprefix(_OF_EVALUATE) for o in overrides if o.startswith(_OF_EVALUATE)]
        where = f"is no option of {self.name}, which evaluates nothing"
        require(scale in self.evaluate or not given, "evaluate", " ".join(given), where)
        return _last([*self.evaluate.get(scale, []), *given])


def _checked(line: Sequence[str]) -> Options:
    """What ``line`` asks of an evaluation that a figure can show; raises ConfigError before there is a run."""
    from robust_erm import evaluate, evaluation
    from robust_erm.errors import require

    _, options = evaluate.parsed(line)
    evaluation.check(options)
    own = "is each run's own here: evaluate other radii with robust_erm.evaluate"
    require(not options.eps, "evaluate.eps", ",".join(map(str, options.eps)), own)
    needed = "must have test: it is what the figure shows"
    require("test" in options.parts, "evaluate.parts", ",".join(options.parts), needed)
    return options


def _folder() -> Path:
    from robust_erm.train import conf_dir

    return conf_dir() / "reproduce"


def names() -> list[str]:
    """All experiments."""
    return sorted(p.relative_to(_folder()).with_suffix("").as_posix() for p in _folder().glob("*/*.yaml"))


def experiment(name: str) -> Experiment:
    """The experiment of that name; raises ConfigError with a suggestion."""
    import yaml

    from robust_erm.errors import one_of

    one_of("experiment", name, names())
    said = yaml.safe_load((_folder() / f"{name}.yaml").read_text())
    scales = {scale: line.split() for scale, line in said.get("scales", {}).items()}
    sweeps = {
        label: {scale: (line if isinstance(line, str) else line[scale]).split() for scale in SCALES}
        for label, line in said.get("sweeps", {}).items()  # one line for all scales, or one for each
    }
    evaluations = {scale: line.split() for scale, line in said.get("evaluate", {}).items()}
    base, uses = said.get("base", "").split(), said.get("uses", {})
    return Experiment(name, said["title"], said["of"], base, sweeps, scales, uses, evaluations)


def _last(overrides: Sequence[str]) -> list[str]:
    """Without those that a later one of the same key replaces."""
    return list({override.partition("=")[0]: override for override in overrides}.values())


def reproduce(name: str, scale: str, overrides: Sequence[str]) -> tuple[list[Any], Path, bool]:
    """Train what is missing, evaluate it where the experiment says so, and leave figure, table and claims.

    Returns:
        The claims, the folder, and whether every run has a result.
    """
    from robust_erm import train
    from robust_erm.claims import write
    from robust_erm.evaluate import evaluate
    from robust_erm.figures.style import save
    from robust_erm.files import write_whole
    from robust_erm.reproduced import facts, read
    from robust_erm.terminal import console, say

    chosen, began = experiment(name), time.monotonic()
    evaluation = chosen.evaluation(scale, overrides)
    options = _checked(evaluation) if evaluation else None
    folders, complete = {}, True
    for label, line in chosen.lines(scale, [o for o in overrides if not o.startswith(_OF_EVALUATE)]).items():
        say(f"{label}: python -m robust_erm.train -m {' '.join(line)}", console)
        jobs = train.sweep([*line, "report=false"])
        folders[label] = [Path(job.working_dir) for job in jobs if job.status.name == "COMPLETED"]
        complete = complete and len(folders[label]) == len(jobs)
    paths = [path for some in folders.values() for path in some]
    if options and paths:
        say(f"python -m robust_erm.evaluate <these runs> {' '.join(evaluation)}", console)
        _, failed = evaluate(paths, options)
        for cause in failed:
            say(cause, console)
        complete = complete and not failed
    frame = read(folders, options.name(None) if options else None)
    if frame.empty:
        say("no run has a result: nothing to show", console)
        raise SystemExit(1)
    module = import_module(f"robust_erm.figures.{name.partition('/')[0]}.{chosen.of}")
    stem = name.rpartition("/")[2]
    output = next((o.partition("=")[2] for o in overrides if o.startswith("output_dir=")), "outputs")
    folder = Path(output) / "reproduced" / f"{name}-{scale}"
    folder.mkdir(parents=True, exist_ok=True)
    table = module.table(frame)
    claims = module.claims(table, frame)
    write_whole(folder / f"{stem}.csv", table.to_csv(index=False).encode())
    save(module.figure(table, frame), folder / stem)
    command = f"python -m robust_erm.reproduce {' '.join([name, f'scale={scale}', *overrides])}"
    write(claims, facts(chosen.title, command, frame, time.monotonic() - began, folder), folder)
    return claims, folder, complete


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0 where every run has a result, whatever the verdicts."""
    from robust_erm.errors import ConfigError, one_of, require

    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(_USAGE + "\n".join(f"  {name:<26} {experiment(name).title}" for name in names()))
        return 0
    try:
        (name, *more), overrides = [a for a in given if "=" not in a] or [""], [a for a in given if "=" in a]
        require(not more, "arguments", " ".join(more), "one experiment at a time; options are key=value")
        experiment(name)
        scales = [o.partition("=")[2] for o in overrides if o.startswith("scale=")] or ["small"]
        one_of("scale", scales[-1], SCALES)
        claims, folder, complete = reproduce(name, scales[-1], [o for o in overrides if not o.startswith("scale=")])
    except ConfigError as error:
        print(f"robust_erm: {error}", file=sys.stderr)
        return 2
    from robust_erm.terminal import show_claims

    show_claims(claims)
    print(f"figure: {folder / name.rpartition('/')[2]}.png\nclaims: {folder / 'claims.md'}")
    return 0 if complete else 1


def command() -> None:
    """The console command ``robust-erm-reproduce``."""
    from robust_erm.train import ended_cleanly, interrupted

    signal.signal(signal.SIGTERM, interrupted)
    with ended_cleanly():
        sys.exit(main())


if __name__ == "__main__":
    command()
