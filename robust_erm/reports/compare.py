"""Which is better? Pairs of values of one key, differences by seed, intervals, and p-values with Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from robust_erm.core.errors import require
from robust_erm.core.statistics import bracketed, interval
from robust_erm.reports.ends import losses
from robust_erm.reports.query import known
from robust_erm.reports.tables import shown, varying
from robust_erm.store.identity import COMPONENTS

LEVEL = 0.05
_SHARES = ("_acc", "attacked", "certified", "_clean", "after_", "gap_")  # in names of metrics that are shares of points
_NOT_SHARES = ("margin", "loss", "distance")
_LOWER = ("gap", "loss")  # of which less is better


def is_share(metric: str) -> bool:
    """Whether a metric is a share of points, shown in per cent, and its differences in points."""
    return any(word in metric for word in _SHARES) and not any(word in metric for word in _NOT_SHARES)


def arms(frame: pd.DataFrame, key: str) -> tuple[list[str], list[str]]:
    """What is compared, and what must be equal: of all that differs between runs, the columns of each.

    Where ``key`` is a component (``optimizer``), its options that differ belong to what is compared; the seed to
    neither.
    """
    differing = [column for column in varying(frame) if column != "seed"]
    if key not in COMPONENTS:
        return [key], [column for column in differing if column != key]
    own = [column for column in differing if column != key and column.startswith(f"{key}.")]
    return [key, *own], [column for column in differing if column not in (key, *own)]


def setting_of(compared: pd.DataFrame) -> list[str]:
    """The columns that must be equal, as :func:`compare` has them: those before ``first``."""
    columns = [str(column) for column in compared]
    return columns[: columns.index("first")]


def where(row: pd.Series, setting: Sequence[str]) -> list[str]:
    """``eps = 0.2`` for each column of the setting."""
    return [f"{name} = {shown(row[name])}" for name in setting]


def compare(frame: pd.DataFrame, key: str, metric: str) -> pd.DataFrame:
    """One row for each pair of values of ``key``, in each setting of everything else.

    The difference is that of ``first`` less ``second``: mean over the seeds, and half the width of its 95 % t-interval.
    Runs of one seed share their draws (teacher, training and test points) unless their data differ: then they are
    paired, ``d_s = first_s - second_s``, ``p`` is the paired t-test's, and seeds that only one has are left out.
    Without two seeds in common, or on different data, interval and ``p`` are Welch's. ``holm`` is p after Holm's
    correction for all rows (Holm 1979).

    Args:
        frame: a row a run (:func:`robust_erm.reports.tables.load`).
        key: a column with at least two values.
        metric: a column of numbers.

    Returns:
        the setting's columns; ``first``, ``second`` (words), for each of them ``mean_``, ``half_`` and ``loss_``;
        ``difference``, ``half``, ``p``, ``holm``, ``paired``, ``n`` (pairs, or the lesser number of runs).

    Raises:
        ConfigError: there is no such column, it holds no numbers or does not vary, or nothing is left to compare.
    """
    known(frame, "--compare", key)
    known(frame, "--metric", metric)
    require(pd.api.types.is_numeric_dtype(frame[metric]), "--metric", metric, "holds no numbers")
    values = list(dict.fromkeys(frame[key].map(str)))
    only = f"is {values[0]} in all of these {len(frame)} runs; two values are needed" if values else "has no values"
    require(len(values) > 1, "--compare", key, only)
    left = frame[frame[metric].notna()]
    require(len(left) > 0, "--metric", metric, "is missing in all of these runs")
    own, others = arms(frame, key)
    rows = []
    for values_of, setting in left.groupby(others, sort=False, dropna=False) if others else [((), left)]:
        runs = {_words(row, own): some for row, some in setting.groupby(own, sort=False, dropna=False)}
        for name, some in runs.items():
            twice = some[some.duplicated("seed", keep=False)].head(2)
            says = f"has several runs of {name} and one seed: {', '.join(twice['folder'])}; --where chooses"
            require(twice.empty, "--compare", key, says)
        for (one, first), (other, second) in itertools.combinations(runs.items(), 2):
            row = dict(zip(others, values_of, strict=True)) | {"first": one, "second": other}
            rows.append(row | _difference(first, second, metric, own))
    says = f"no two values of {key} have runs that agree in all else ({', '.join(others) or 'nothing'} differs)"
    require(bool(rows), "--compare", key, says)
    found = pd.DataFrame(rows)
    return found.assign(holm=holm(found["p"]))


def _words(values: object, own: Sequence[str]) -> str:
    """``sd, schedule.lr = 1e-4``: the component, then its options that differ."""
    given = values if isinstance(values, tuple) else (values,)
    options = [f"{n.partition('.')[2]} = {shown(v)}" for n, v in zip(own[1:], given[1:], strict=True) if pd.notna(v)]
    return ", ".join([shown(given[0]), *options])


def _difference(first: pd.DataFrame, second: pd.DataFrame, metric: str, own: Sequence[str]) -> dict[str, object]:
    a, b = (some.set_index("seed")[metric] for some in (first, second))
    both = a.index.intersection(b.index)
    paired = len(both) > 1 and own[0].split(".")[0] != "data"
    if paired:
        first, second = (some[some["seed"].isin(both)] for some in (first, second))
        d = (a[both] - b[both]).to_numpy(dtype=float)
        (mean, half), p, n = interval(d), _paired(d), len(both)
        half = math.inf if math.isnan(p) else half
    else:
        x, y = a.to_numpy(dtype=float), b.to_numpy(dtype=float)
        mean, half, p = welch(x, y)
        n = min(len(x), len(y))
    ends = {
        f"loss_{name}": losses(some["log_loss"].astype(float)) if "log_loss" in some else ""
        for name, some in (("first", first), ("second", second))
    }
    means: dict[str, object] = {}
    for name, some in (("first", first), ("second", second)):
        means[f"mean_{name}"], means[f"half_{name}"] = interval(some[metric])
    return {**means, **ends, "difference": mean, "half": half, "p": p, "paired": paired, "n": n}


def _paired(d: np.ndarray) -> float:
    """Of the paired t-test; where all differences are equal, 1 where they are 0, else nan.

    Accuracies are steps of a test point: equal differences of few seeds are chance, and their spread is not 0.
    """
    if np.ptp(d) == 0:
        return 1.0 if d[0] == 0 else math.nan
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def welch(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Mean of x less that of y, half the width of its 95 % interval, and p, by Welch's t-test; inf, nan for one run."""
    difference = float(x.mean() - y.mean())
    if min(len(x), len(y)) < 2 or not np.isfinite(np.concatenate([x, y])).all():
        return difference, math.inf, math.nan
    if np.ptp(x) == np.ptp(y) == 0:
        return (difference, 0.0, 1.0) if difference == 0 else (difference, math.inf, math.nan)
    test = stats.ttest_ind(x, y, equal_var=False)
    low, high = test.confidence_interval(1 - LEVEL)
    return difference, float(high - low) / 2, float(test.pvalue)


def holm(p: Iterable[float]) -> list[float]:
    """p-values after Holm's correction: ``max_{j <= k} min(1, (n - j + 1) p_(j))``; what is nan stays so."""
    values = np.asarray(list(p), dtype=float)
    order = np.argsort(values)  # nan last
    n = int(np.isfinite(values).sum())
    adjusted = np.full(len(values), math.nan)
    adjusted[order[:n]] = np.maximum.accumulate(np.minimum(1.0, values[order[:n]] * np.arange(n, 0, -1)))
    return adjusted.tolist()


def sentence(row: pd.Series, metric: str, setting: Sequence[str]) -> str:
    """``sd is better than gd by 5.2 points [2.0, 8.3] in test_robust_acc (eps = 0.2, 5 seeds, paired; p = 0.009 ...)``.

    Better only where p, after Holm's correction, is below 0.05: else undecided. Of gaps and losses less is better; of a
    metric that is no accuracy, margin, gap or loss it says which is larger.
    """
    scale, number, unit = (100, ".1f", " points") if is_share(metric) else (1, ".3g", "")
    lower = any(word in metric for word in _LOWER)
    good = is_share(metric) or "margin" in metric or lower
    seeds = f"{row['n']} seed{'' if row['n'] == 1 else 's'}" + (", paired" if row["paired"] else ", not paired")
    p = "" if math.isnan(row["holm"]) else f"; p = {row['holm']:.2g} after Holm"
    tail = f"in {metric} ({', '.join([*where(row, setting), seeds])}{p})"
    flip = row["difference"] < 0
    one, other = (row["second"], row["first"]) if flip else (row["first"], row["second"])
    size = bracketed(scale * abs(row["difference"]), scale * row["half"], number, unit)
    if math.isnan(row["holm"]) or row["holm"] >= LEVEL:
        open_end = "one seed decides nothing" if row["n"] < 2 else "undecided, all seeds alike"
        why = "undecided" if math.isfinite(row["half"]) else open_end
        return f"{why}: {one} - {other} {size} {tail}"
    best, rest = (other, one) if lower else (one, other)
    word = ("is better than" if good else "has more than") if not lower else "is better, with less, than"
    return f"{best} {word} {rest} by {size} {tail}"


def unlike(frame: pd.DataFrame, key: str = "") -> list[str]:
    """What makes runs hard to compare by ``key`` beside their losses: other radii, points that they do not separate."""
    tested = "eval_eps_absolute"
    radii = sorted(frame.groupby(key, dropna=False)[tested].mean().unique()) if key in frame and tested in frame else []
    found = []
    if len(radii) > 1 and key in ("eps", "eval_eps", "eps_unit", "p"):
        reach = f"{radii[0]:g} to {radii[-1]:g}"
        found = [f"runs were tested at different radii, {reach}: their robust accuracies differ by that (eval_eps=...)"]
    return [*found, *_unseparated(frame)]


def _unseparated(frame: pd.DataFrame) -> list[str]:
    column = "train_robust_acc"
    if column not in frame:
        return []
    short = frame[column] < 1
    if not short.any():
        return []
    says = f"{int(short.sum())} of {len(frame)} runs are not robust on all their training points"
    return [f"{says}, down to {100 * float(frame[column].min()):.1f} %"]
