"""Train what an experiment lacks, evaluate it, and leave figure, table and claims."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError, require
from robust_erm.evaluation.folders import evaluate
from robust_erm.evaluation.options import Options, check, parsed
from robust_erm.papers.claims import write
from robust_erm.papers.experiments import OF_EVALUATE, experiment
from robust_erm.papers.reproduced import caption, facts, read
from robust_erm.reports.style import save
from robust_erm.reports.terminal import console, say
from robust_erm.store.config import resolve
from robust_erm.store.files import write_whole
from robust_erm.sweeps.compose import composed
from robust_erm.sweeps.lines import points, sweep


def _checked(line: Sequence[str], lines: Iterable[Sequence[str]]) -> Options:
    """What ``line`` asks of an evaluation that a figure can show, of what ``lines`` train; raises ConfigError."""
    _, options = parsed(line)
    for one in lines:
        loader, master, found = points(one)
        for config in composed(loader, master, [found[0], found[-1]]):
            if isinstance(config, ConfigError):
                raise config
            check(options, resolve(config))
    own = "is each run's own here: evaluate other radii with robust_erm.evaluate"
    require(not options.eps, "evaluate.eps", ",".join(map(str, options.eps)), own)
    needed = "must have test: it is what the figure shows"
    require("test" in options.parts, "evaluate.parts", ",".join(options.parts), needed)
    return options


def reproduce(name: str, scale: str, overrides: Sequence[str]) -> tuple[list[Any], Path, bool]:
    """Train what is missing, evaluate it where the experiment says so, and leave figure, table and claims.

    Returns:
        The claims, the folder, and whether every run has a result.
    """
    chosen, began = experiment(name), time.monotonic()
    evaluation = chosen.evaluation(scale, overrides)
    lines = chosen.lines(scale, [o for o in overrides if not o.startswith(OF_EVALUATE)])
    options = _checked(evaluation, lines.values()) if evaluation else None
    folders, complete = {}, True
    for label, line in lines.items():
        say(f"{label}: python -m robust_erm.train -m {' '.join(line)}", console)
        jobs = sweep([*line, "report=false"])
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
    module = import_module(f"robust_erm.papers.{name.partition('/')[0]}.{chosen.of}")
    stem = name.rpartition("/")[2]
    output = next((o.partition("=")[2] for o in overrides if o.startswith("output_dir=")), "outputs")
    folder = Path(output) / "reproduced" / f"{name}-{scale}"
    folder.mkdir(parents=True, exist_ok=True)
    table = module.table(frame)
    claims = module.claims(table, frame)
    write_whole(folder / f"{stem}.csv", table.to_csv(index=False).encode())
    save(module.figure(table, frame), folder / stem)
    command = f"python -m robust_erm.reproduce {' '.join([name, f'scale={scale}', *overrides])}"
    seconds = time.monotonic() - began
    write(claims, facts(chosen.title, caption(module.figure), command, frame, seconds, folder), folder)
    return claims, folder, complete
