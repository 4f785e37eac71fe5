"""The experiments of ``conf/reproduce``: which sweeps they train, at which scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from robust_erm.core.errors import one_of, require
from robust_erm.store.source import conf_dir

OF_EVALUATE = "evaluate."
_STALE = {"stale=refuse": "stale=refuse", "stale=keep": "stale=keep", "stale=retrain": "stale=again"}  # of both
ONLY = "sweeps="
SCALES = ("smoke", "small", "paper")


@dataclass(frozen=True)
class Experiment:
    """What ``conf/reproduce/<paper>/<name>.yaml`` says, with ``again: {<other>: [labels]}`` (sweeps of another
    experiment, at this one's scales) and ``evaluate: <other>`` written out.

    Args:
        name: ``<paper>/<name>``.
        title: of the page of claims.
        of: the module in ``robust_erm/papers/<paper>/`` that makes table, figure and claims.
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

        ``overrides`` replace those of base and scale; what a sweep itself fixes stays. ``sweeps=<label>,...`` among
        them leaves out all other sweeps.

        Raises:
            ConfigError: a label that is none, with a suggestion.
        """
        asked = [o.removeprefix(ONLY).split(",") for o in overrides if o.startswith(ONLY)]
        found = self._all(scale, [o for o in overrides if not o.startswith(ONLY)])
        for label in asked[-1] if asked else []:
            one_of("sweeps", label, list(found))
        return {label: line for label, line in found.items() if not asked or label in asked[-1]}

    def _all(self, scale: str, overrides: Sequence[str]) -> dict[str, list[str]]:
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

        What ``stale`` says of runs, it says of their evaluations.

        Raises:
            ConfigError: options where nothing is evaluated.
        """
        given = [o.removeprefix(OF_EVALUATE) for o in overrides if o.startswith(OF_EVALUATE)]
        where = f"is no option of {self.name}, which evaluates nothing"
        require(scale in self.evaluate or not given, "evaluate", " ".join(given), where)
        if scale not in self.evaluate:
            return []
        return _last([*self.evaluate[scale], *(_STALE[o] for o in overrides if o in _STALE), *given])


def _folder() -> Path:
    return conf_dir() / "reproduce"


def names() -> list[str]:
    """All experiments."""
    return sorted(p.relative_to(_folder()).with_suffix("").as_posix() for p in _folder().glob("*/*.yaml"))


def experiment(name: str) -> Experiment:
    """The experiment of that name; raises ConfigError with a suggestion."""
    one_of("experiment", name, names())
    said = yaml.safe_load((_folder() / f"{name}.yaml").read_text())
    own = {scale: line.split() for scale, line in said.get("scales", {}).items()}
    base, scales = said.get("base", "").split(), own
    sweeps: dict[str, dict[str, list[str]]] = {}
    for other, labels in said.get("again", {}).items():  # its lines, with what is said here after what is said there
        there = experiment(f"{name.partition('/')[0]}/{other}")
        base = [*there.base, *base]
        scales = {scale: [*there.scales[scale], *line] for scale, line in own.items()}
        sweeps |= {label: there.sweeps[label] for label in labels}
    sweeps |= {
        label: {scale: (line if isinstance(line, str) else line[scale]).split() for scale in SCALES}
        for label, line in said.get("sweeps", {}).items()  # one line for all scales, or one for each
    }
    evaluate = said.get("evaluate", {})
    if isinstance(evaluate, str):  # as another experiment of the paper does
        evaluations = experiment(f"{name.partition('/')[0]}/{evaluate}").evaluate
    else:
        evaluations = {scale: line.split() for scale, line in evaluate.items()}
    return Experiment(name, said["title"], said["of"], base, sweeps, scales, said.get("uses", {}), evaluations)


def _last(overrides: Sequence[str]) -> list[str]:
    """Without those that a later one of the same key replaces."""
    return list({override.partition("=")[0]: override for override in overrides}.values())
