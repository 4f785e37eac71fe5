"""From Python, in a script or a notebook: ``import robust_erm as re``, then what is here.

``re.train`` trains what the command line would, and gives tables back; ``re.load_run`` opens a run's folder as a
network; ``re.evaluate`` puts a network of your own before strong attacks; ``re.Arrays`` are points of your own. What
they refuse is a ``re.ConfigError``.
"""

from robust_erm.api.run import LoadedRun, load_run
from robust_erm.api.train import Arrays, Trained, train
from robust_erm.core.errors import ConfigError
from robust_erm.evaluation.modules import Judged, evaluate

__all__ = ["Arrays", "ConfigError", "Judged", "LoadedRun", "Trained", "evaluate", "load_run", "train"]
