"""Regenerate a figure, table or theorem of a paper, and say claim by claim whether it holds:

python -m robust_erm.reproduce tsilivis2024/fig1 scale=small
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from robust_erm.store.source import version
from robust_erm.sweeps.exits import ended_cleanly, interrupted

_USAGE = """usage: python -m robust_erm.reproduce <paper>/<name> [scale=smoke|small|paper] [key=value ...]

smoke takes seconds, small minutes on two cores, paper has the paper's own sizes. Further overrides replace those of
the scale (seed=0,1 output_dir=... hydra/launcher=slurm ...; evaluate.points=100 for the strong attacks, where there
are some). sweeps=alpha_05,alpha_1 trains these alone. What has been trained is not trained again.

Figures, tables and verdicts go to <output_dir>/reproduced/<paper>/<name>-<scale>/. There are:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0 where every run has a result, whatever the verdicts."""
    from robust_erm.core.errors import ConfigError, one_of, require
    from robust_erm.papers.experiments import SCALES, experiment, names

    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in given:
        print(version())
        return 0
    if not given or {"-h", "--help"} & set(given):
        print(_USAGE + "\n".join(f"  {name:<26} {experiment(name).title}" for name in names()))
        return 0
    try:
        (name, *more), overrides = [a for a in given if "=" not in a] or [""], [a for a in given if "=" in a]
        require(not more, "arguments", " ".join(more), "one experiment at a time; options are key=value")
        experiment(name)
        scales = [o.partition("=")[2] for o in overrides if o.startswith("scale=")] or ["small"]
        one_of("scale", scales[-1], SCALES)
        from robust_erm.papers.reproduce import reproduce

        claims, folder, complete = reproduce(name, scales[-1], [o for o in overrides if not o.startswith("scale=")])
    except ConfigError as error:
        from robust_erm.reports.terminal import told

        return told([str(error)], 2)
    from robust_erm.reports.terminal import show_claims

    show_claims(claims)
    print(f"figure: {folder / name.rpartition('/')[2]}.png\nclaims: {folder / 'claims.md'}")
    return 0 if complete else 1


def command() -> None:
    """The console command ``robust-erm-reproduce``."""
    signal.signal(signal.SIGTERM, interrupted)
    with ended_cleanly():
        sys.exit(main())


if __name__ == "__main__":
    command()
