"""What tsilivis2024 Sec. 5.2 says of GD and SD on nets, judged at each eps; then what theory says of every geometry.

``last`` is one row a run, its last measurement, as :func:`robust_erm.papers.tsilivis2024.fig3_left_7.table` makes it.
"""

from __future__ import annotations

import pandas as pd
from scipy.stats import fisher_exact

from robust_erm.papers import strong
from robust_erm.papers.claims import FAILS, HOLDS, UNDECIDED, Claim, above, every, spread, stated, within

UNIT = "GD, unit steps"  # steps of constant length: GD's path, faster where the loss is small
LONG = "SD, longer"  # SD's path, further on
PAPER = ("GD", "SD", UNIT, LONG)  # what Sec. 5.2 is about
PLAIN = {r"$\ell_{1.5}$": "l_1.5", r"$\ell_3$": "l_3"}  # without formulas
UNFIT = "not all runs have reached 100 % robust train accuracy (or have kept it): it is what comes after that counts"


def claims(table: pd.DataFrame) -> list[Claim]:
    """All claims that the runs of ``table`` can decide."""
    last = table.groupby("folder").tail(1)
    found: list[Claim] = []
    for eps, some in _by_radius(last):
        if {"GD", "SD"} <= set(some["algorithm"]):
            found += _robust(some, eps) if eps > 0 else _standard(some)
            found.append(_fitted(some, eps))
        if eps > 0:
            found += _trusted(some, eps)
    found += [*_wider(last), *_easier(last)]
    for name in table["algorithm"].unique():
        found.append(_rises(PLAIN.get(name, name), table[table["algorithm"] == name]))
    return [*found, *_nearest(last)]


def _by_radius(last: pd.DataFrame) -> list[tuple[float, pd.DataFrame]]:
    return [(float(eps), last[last["eps"] == eps]) for eps in sorted(last["eps"].unique())]


def by_algorithm(last: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column for each algorithm, a row for each seed."""
    return last.pivot_table(index="seed", columns="algorithm", values=column, dropna=False)


def fit(last: pd.DataFrame) -> pd.Series:
    """Which runs end robust on all training points, and not by way of having diverged."""
    return (last["train_robust_acc"] == 1) & (last["status"] != "diverged")


def _all_fit(some: pd.DataFrame, *names: str) -> bool:
    return bool(fit(some)[some["algorithm"].isin(names)].all())


def _where(some: pd.DataFrame, eps: float) -> str:
    """The paper's place; it has MNIST and eps = 0, 0.2, 0.3."""
    places = {0.0: "Sec. 5.2, Fig. 3 left top", 0.2: "Sec. 5.2, Fig. 3 left", 0.3: "Fig. 7"}
    return places.get(eps, "as Sec. 5.2") if (some["data"] == "mnist").all() else "as Sec. 5.2"


def _after(some: pd.DataFrame, name: str) -> str:
    """``SD after 15,000 steps of 3e-05``: GD and SD differ in these."""
    own = some[some["algorithm"] == name]
    return f"{PLAIN.get(name, name)} after {own['step'].max():,} steps of {own['eta'].max():g}"


def _standard(some: pd.DataFrame) -> list[Claim]:
    claim = "in ERM the choice of the algorithm does not affect the generalization error much"
    final = by_algorithm(some, "test_robust_acc")
    edge, text = (final["SD"] - final["GD"]).dropna(), f"{_after(some, 'SD')} - {_after(some, 'GD')}: "
    if not _all_fit(some, "GD", "SD"):
        return [stated(claim, _where(some, 0.0), f"{text}{spread(edge)}; {UNFIT}", None)]
    return [within(claim, _where(some, 0.0), edge, 0.02, text)]


def _outperforms(some: pd.DataFrame, column: str, one: str, other: str, claim: str, where: str, text: str) -> Claim:
    """Whether ``one`` has more of ``column`` than ``other``, seed by seed; undecided where not all runs have fitted."""
    final = by_algorithm(some, column)
    edge = (final[one] - final[other]).dropna()
    if not _all_fit(some, one, other):
        return stated(claim, where, f"{text}{spread(edge)}; {UNFIT}", None)
    return above(claim, where, edge, 0.0, text)


def _robust(some: pd.DataFrame, eps: float) -> list[Claim]:
    """SD against GD, and what each algorithm loses after its best step."""
    found, names, where = [], set(some["algorithm"]), _where(some, eps)
    for one, other in (("SD", "GD"), (LONG, "GD"), ("SD", UNIT)):
        if {one, other} <= names:
            number = "(paper: 4.11) " if where == "Sec. 5.2, Fig. 3 left" and other == "GD" else ""
            claim = f"eps = {eps:g}: {one} significantly outperforms {other}"
            place, text = "ours" if other == UNIT else where, f"{_after(some, one)} - {_after(some, other)}: {number}"
            found.append(_outperforms(some, "test_robust_acc", one, other, claim, place, text))
    lost = by_algorithm(some.assign(lost=some["best"] - some["test_robust_acc"]), "lost")
    others = [n for n in some["algorithm"].unique() if n not in PAPER]
    for name in [*(n for n in PAPER if n in names), *others]:
        steepest = name in ("SD", LONG)
        claim = f"eps = {eps:g}: {PLAIN.get(name, name)} {'avoids' if steepest else 'shows'} robust overfitting"
        place = "ours" if name == UNIT or name in others else where
        text = f"{_after(some, name)}: best along training - last: "
        if not _all_fit(some, name):
            found.append(stated(claim, place, UNFIT, None))
        elif steepest:
            found.append(within(claim, place, lost[name].dropna(), 0.01, text))
        else:
            found.append(above(claim, place, lost[name].dropna(), 0.01, text))
    return found


def _fitted(some: pd.DataFrame, eps: float) -> Claim:
    both = some[some["algorithm"].isin(["GD", "SD"])]
    diverged = both["status"] == "diverged"
    claim = f"eps = {eps:g}: GD and SD reach 100 % robust train accuracy"
    text = f"{int(diverged.sum())} diverged; " if diverged.any() else ""
    where = _where(some, eps)
    reached = both["train_robust_acc"].mask(diverged, 0.0)
    return every(claim, where if eps == 0.2 else "as Sec. 5.2", reached, 1.0, f"{text}robust train accuracy: ")


def _wider(last: pd.DataFrame) -> list[Claim]:
    """|SD - GD| at each eps > 0 against that at 0: what the captions of Figs 3 and 7 say."""
    edges = {}
    for eps, some in _by_radius(last):
        if {"GD", "SD"} <= set(some["algorithm"]) and _all_fit(some, "GD", "SD"):
            one = LONG if LONG in set(some["algorithm"]) and _all_fit(some, LONG) else "SD"
            final = by_algorithm(some, "test_robust_acc")
            edges[eps] = (one, (final[one] - final["GD"]).abs())
    if 0.0 not in edges or len(edges) < 2:
        return []
    found = []
    for eps, (one, edge) in edges.items():
        if eps > 0:
            claim = f"the gap between the algorithms is larger in robust ERM (eps = {eps:g}) than in ERM"
            text = f"|{one} - GD| less |SD - GD| at eps = 0: "
            found.append(above(claim, _where(last, eps), (edge - edges[0.0][1]).dropna(), 0.0, text))
    return found


def _easier(last: pd.DataFrame) -> list[Claim]:
    """How many runs of each algorithm fit, by Fisher's exact test; Adam is no steepest descent."""
    fits = fit(last).groupby(last["algorithm"])
    good, of = fits.sum().to_dict(), fits.count().to_dict()
    names = [n for n in good if n not in ("GD", UNIT, LONG, "Adam")]
    if "SD" not in names or len(names) < 2:
        return []
    verdicts = set()
    for name in (n for n in names if n != "SD"):
        counts = [[good[n], of[n] - good[n]] for n in ("SD", name)]
        better = good["SD"] / of["SD"] > good[name] / of[name]
        verdicts.add(UNDECIDED if fisher_exact(counts).pvalue >= 0.05 else HOLDS if better else FAILS)
    holds = False if FAILS in verdicts else True if verdicts == {HOLDS} else None
    each = [f"{PLAIN.get(str(n), n)} {good[n]} of {of[n]}" for n in names]
    text = f"runs that reach 100 % robust train accuracy: {', '.join(each)} (CD starts at PyTorch's initialisation)"
    claim = "it is easier to train with SD than with any other steepest descent besides GD"
    return [stated(claim, "Sec. 5.2", f"{text}; each against SD by Fisher's exact test, p < 0.05", holds)]


def _trusted(some: pd.DataFrame, eps: float) -> list[Claim]:
    """What the strong attacks leave of all this at one eps."""
    known = some.dropna(subset=["test_attacked"])
    if known.empty:
        return []
    near = f"eps = {eps:g}: the attack of training is close to the strong ones"
    found = []
    for whose, own in (("", known["algorithm"].isin(PAPER)), (" on other geometries", ~known["algorithm"].isin(PAPER))):
        if own.any():
            found.append(strong.close(near + whose, known[own], PLAIN))
    if not {"GD", "SD"} <= set(known["algorithm"]):
        return found
    for one in (n for n in ("SD", LONG) if n in set(known["algorithm"])):
        claim = f"eps = {eps:g}: {one} outperforms GD under the strong attacks too"
        found.append(_outperforms(some, "test_attacked", one, "GD", claim, "ours", f"{one} - GD: "))
    both = known.loc[known["algorithm"].isin(["GD", "SD"]), "train_attacked"]
    claim = f"eps = {eps:g}: GD and SD are robust on all training points under the strong attacks too"
    return [*found, every(claim, "ours", both, 1.0, "robust train accuracy: ")]


def _rises(word: str, some: pd.DataFrame) -> Claim:
    """Whether the margin over the own norm ends where it is greatest, in the runs where it ever is positive."""
    diverged = some.loc[some["status"] == "diverged", "folder"].nunique()
    margins = some[some["status"] != "diverged"].sort_values("step").groupby("folder")["margin"]
    greatest = margins.max()
    ever = greatest > 0
    claim = f"{word}: the robust margin over its own norm squared ends where it is greatest"
    where = "ours; lyu2022 Thm 4" if word == "GD" else "ours"
    left_out = f"{diverged} runs have diverged; " if diverged else ""
    if not ever.any():
        return stated(claim, where, f"{left_out}all {len(ever)} runs never have a positive one", None)
    never = "" if ever.all() else f"{int((~ever).sum())} of {len(ever)} runs never have a positive one; "
    ratios = (margins.last() / greatest)[ever]
    return every(claim, where, ratios, 0.99, f"{left_out}{never}last / greatest: ")


def _nearest(last: pd.DataFrame) -> list[Claim]:
    """GD's stationarity residual against the least of the others', at each eps and seed where all are feasible.

    Left out are the further runs of GD and SD, and algorithms that are feasible in less than half of these.
    """
    each = last.pivot_table(index=["eps", "seed"], columns="algorithm", values="kkt", dropna=False)
    each = each.drop(columns=[UNIT, LONG], errors="ignore").dropna(axis=1, thresh=-(-len(each) // 2))
    if "GD" not in each or each.shape[1] < 2:
        return []
    paired = each.dropna()
    means = ", ".join(f"{PLAIN.get(str(n), n)} {v:.2f}" for n, v in paired.mean().sort_values().items())
    text = f"mean residuals {means}, of {len(paired)} of {len(each)} pairs of eps and seed where all are robust; "
    edge = (paired.drop(columns="GD").min(axis=1) - paired["GD"]).groupby(level="seed").mean()
    claim = "of these algorithms GD ends nearest to stationarity in the l_2 robust max-margin problem"
    return [above(claim, "ours; lyu2022 Thm 5", edge, 0.0, f"{text}least of the others - GD, in hundredths: ")]
