"""Evaluate trained runs with strong attacks, certificates, and checks for masked gradients:

python -m robust_erm.evaluate outputs attack=auto eps=0.1,0.2
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from robust_erm.store.source import version
from robust_erm.sweeps.exits import callable_too, ended_cleanly, interrupted

_USAGE = """usage: python -m robust_erm.evaluate [folder ...] [key=value ...]

Folders of runs, or folders of those (default: outputs). What is found goes to <run>/evaluations/, beside what
training wrote; python -m robust_erm.results shows it as columns. What has been evaluated is not evaluated again.

Or a network of your own, in a file (TorchScript, or an exported program, .pt2), on points of conf/data:
python -m robust_erm.evaluate net.pt data=arrays data.file=mine.csv eps=0.1 [p=2] [seed=0] [shape=[1,28,28]]

attack=auto          the training attack, then an ensemble in the manner of AutoAttack: APGD on the margin, with
                     several classes also on the DLR loss and targeted, FAB, in l_inf Square; or names of conf/attack,
                     attack=apgd,square; each attacks what those before it have left
measure=kkt,...      names of conf/measure, or a class of your own, measure=parts.Cosine; attack=none with it for
                     these alone
eps=0.1,0.2          radii; default: each run's own radius of evaluation
threats=inf:0.1,2:0.5  several norms with their radii: the points that stand all of them, and each alone
parts=train,test     which points
points=10000         at most so many of each part: a random sample, another one for each seed
certify=true         lower bounds, for models linear in their input (exact) and one hidden ReLU layer
exact=0              seconds for each point that bounds leave open, by a mixed-integer program; 0: none
checks=true          look for masked gradients
distance=false       true: the least l_p distance of each point to another label, p = 1, 2 or inf: attacked (FAB without
                     a radius, several starts; fab.steps, fab.targets) and, with certify, certified. It knows no eps:
                     attack=none with it for distances alone. robust_erm.evaluation.distances.curve makes robust
                     accuracy at all radii of it
fresh=false          true: evaluate again
stale=refuse         what was trained or evaluated by other code or data than now: refuse; keep; again (evaluate again)
device=auto          auto, cpu, cuda, cuda:<index>, mps
trust=               modules of your own whose components stored configs may name, with commas between them
<name>.<key>=...     options of one attack or measure: square.queries=1000 apgd.steps=50 kkt.slack=0.1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    from robust_erm.core.errors import ConfigError

    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in given:
        print(version())
        return 0
    if {"-h", "--help"} & set(given):
        print(_USAGE)
        return 0
    from robust_erm.evaluation.file import evaluate_file, is_network
    from robust_erm.evaluation.folders import evaluate
    from robust_erm.evaluation.options import parsed
    from robust_erm.evaluation.table import show
    from robust_erm.reports.terminal import told

    try:
        if any(map(is_network, given)):
            evaluate_file(given)
            return 0
        folders, options = parsed(given)
        found, failed = evaluate(folders, options)
    except ConfigError as error:
        return told([str(error)], 2)
    if found:
        show(found, folders, options)
    return told(failed, 1 if failed else 0, most=20)


def command() -> None:
    """The console command ``robust-erm-evaluate``."""
    with ended_cleanly():
        signal.signal(signal.SIGTERM, interrupted)
        sys.exit(main())


def _from_python(*arguments: Any, **keys: Any) -> Any:
    """``re.evaluate(...)``: :func:`robust_erm.api.evaluate`."""
    from robust_erm.api import evaluate

    return evaluate(*arguments, **keys)


callable_too(__name__, _from_python)


if __name__ == "__main__":
    command()
