"""A network of a user's own before strong attacks: robust accuracy, certificates where its layers are known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from robust_erm.attacks.attack import Attack
from robust_erm.core.errors import one_of, positive, require
from robust_erm.core.margins import margin
from robust_erm.core.norms import Norm
from robust_erm.core.streams import torch_stream
from robust_erm.evaluation.known import Known, known
from robust_erm.evaluation.net import Net, doubts_about, opened
from robust_erm.evaluation.options import attack_named, attack_names, ensemble
from robust_erm.evaluation.spent import Counted, Spent
from robust_erm.oracles.boundary import across, lengths, nearest
from robust_erm.training.points import FEW
from robust_erm.training.precision import strictly

_MUCH = 0.01  # share of points from which a difference is worth a warning


@dataclass(frozen=True)
class Judged:
    """What :func:`evaluate` found.

    Args:
        table: a row a threat: ``p``, ``eps``, ``points``, ``clean``, ``after_<attack>`` (each attacks what those before
            it have left), ``attacked``, and ``certified`` where the layers are known: shares of points. With several
            norms the last row is their union: the points that stand every one of them.
        margins: for each threat, (n,), the least margin that any attack has reached.
        certified: for each threat, lower bounds (n,) on the margins; empty where the layers are not known.
        distances: (n,) the least perturbation found that changes each label, 0 where it is wrong already; None where
            not asked for. ``robust_erm.evaluation.distances.curve`` makes robust accuracy at every radius of them.
        spent: a row an attack: ``queries`` and ``gradients``, points times passes, over all threats.
        warnings: what makes the numbers doubtful, a line each.
    """

    table: pd.DataFrame
    margins: dict[tuple[float, float], npt.NDArray[np.float64]]
    certified: dict[tuple[float, float], npt.NDArray[np.float64]]
    distances: npt.NDArray[np.float64] | None
    spent: pd.DataFrame
    warnings: tuple[str, ...]

    @property
    def robust_accuracy(self) -> float:
        """Under all attacks: of the only threat, the largest of several radii in one norm, or the union (last row)."""
        union = self.table["p"].isna().any()
        return float(self.table["attacked"].iloc[-1 if union else self.table["eps"].argmax()])


@strictly()
def evaluate(
    module: torch.nn.Module,
    x: Any,
    y: Any,
    eps: float | Sequence[float],
    p: float | Sequence[float] = math.inf,
    *,
    domain: tuple[float, float] | None = None,
    attacks: Sequence[str] = ("auto",),
    certify: bool = True,
    distance: bool = False,
    seed: int = 0,
    tick: Callable[[str], None] = lambda _: None,
    **options: dict[str, Any],
) -> Judged:
    """Strong attacks on ``module``, as ``python -m robust_erm.evaluate`` makes them on runs; no run is needed.

    Attacks ascend minus the margin (``y f``, or true minus best other logit), so that no scale of the logits hides a
    gradient. The module is used as it is, in its parameters' precision, on their device: call ``.eval()`` first.

    Args:
        module: x (n, ...) -> one logit (n,) or (n, 1), or C logits (n, C). Any callable on tensors will do.
        x: points (n, d) or (n, ...), in the shape that the module takes.
        y: labels (n,): -1 and +1, or 0 and 1, for one logit (1 is where it is positive); 0 to C - 1 for several.
        eps: radius; several for one p are several rows; with several p one radius for each.
        p: norm of the threat, inf, 2 or 1; several are a union of threats, judged point by point.
        domain: the interval that every number lives in, (0, 1) for images; attacks stay in it. None: nothing bounds x'.
        attacks: names of conf/attack; ``auto``: APGD on the margin (with several classes also on the DLR loss,
            targeted), FAB, in l_inf Square.
        certify: lower bounds on the margins, for ``nn.Linear`` and ``nn.Sequential`` with one hidden ReLU layer.
        distance: look for the least perturbation of each point too, for one p.
        seed: of the attacks' random numbers.
        tick: told what is done at the moment.
        options: of single attacks: ``square={"queries": 1000}``.

    Raises:
        ConfigError: shapes, labels or options that do not fit, or a net that cannot be judged: outputs that are not
            finite, that change from call to call or with the other points of a batch, gradients that are 0 everywhere.
    """
    net, flat, labels = opened(module, x, y)
    doubts = doubts_about(net, flat, labels)
    several = np.ndim(p) > 0
    norms, radii = _numbers("p", p), _numbers("eps", eps)
    fits = not several or len(norms) == len(radii)
    require(fits, "eps", radii, f"must be one radius for each of the {len(norms)} norms")
    for one in norms:
        require(one in (1, 2, math.inf), "p", one, "must be inf, 2 or 1")
    for radius in radii:
        positive("eps", radius)
    require(isinstance(seed, int) and seed >= 0, "seed", seed, "must be a whole number, 0 or more")
    box = None if domain is None else _numbers("domain", domain)
    ordered = box is None or (len(box) == 2 and box[0] < box[1])
    require(ordered, "domain", domain, "must be two numbers, the lower first, or None")
    inside = box is None or bool(((flat >= box[0]) & (flat <= box[1])).all())
    require(inside, "domain", domain, f"does not hold all points, which reach from {flat.min():g} to {flat.max():g}")
    domain = None if box is None else (box[0], box[1])
    attacks = [attacks] if isinstance(attacks, str) else attacks
    require(not distance or len(norms) == 1, "distance", "true", "is in one norm; name one p")
    bounds = known(module, flat.shape[1]) if certify else None
    spent: dict[str, Spent] = {}
    rows, margins, certified = [], {}, {}
    for norm, radius in zip(norms, radii, strict=True) if several else [(norms[0], radius) for radius in radii]:
        threat = _Threat(net, flat, labels, norm, radius, domain, seed)
        found, least = _attacked(threat, _attacks(attacks, net, norm, domain, options), spent, tick)
        margins[norm, radius] = least.double().cpu().numpy()
        row = {"p": norm, "eps": radius, "points": len(flat), **found}
        if bounds is not None:
            certified[norm, radius] = _certified(bounds, threat, least)
            row["certified"] = float((certified[norm, radius] > 0).mean())
        rows.append(row)
        doubts += [*_inverted(net, found), *_masked(found)]
    if several and len(norms) > 1:
        union: dict[str, Any] = {"p": math.nan, "eps": math.nan, "points": len(flat), "clean": rows[0]["clean"]}
        union["attacked"] = float((np.min(list(margins.values()), axis=0) > 0).mean())
        if certified:
            union["certified"] = float((np.min(list(certified.values()), axis=0) > 0).mean())
        rows.append(union)
    table = pd.DataFrame(rows)
    ends = [c for c in ("attacked", "certified") if c in table]
    table = table[[*(c for c in table if c not in ends), *ends]]
    away = _distances(net, flat, labels, norms[0], domain, tick) if distance else None
    counted = pd.DataFrame([{"attack": name, **dataclasses.asdict(one)} for name, one in spent.items()])
    return Judged(table, margins, certified, away, counted, tuple(dict.fromkeys(doubts)))


def _numbers(key: str, value: Any) -> list[float]:
    """One number or several."""
    try:
        found = np.asarray(value, dtype=np.float64).ravel().tolist() if not isinstance(value, str) else []
    except (TypeError, ValueError):
        found = []
    require(bool(found), key, repr(value), "must be a number, or several")
    return [float(one) for one in found]


def _inverted(net: Net, found: dict[str, float]) -> list[str]:
    """Of one logit, whose sign is a convention."""
    if net.classes > 1 or found["clean"] >= 0.5:
        return []
    right = 100 * found["clean"]
    return [f"right on {right:.0f} % of the clean points, less than by chance: are the labels the other way round?"]


@dataclass(frozen=True)
class _Threat:
    net: Net
    x: Tensor
    y: Tensor
    p: float
    eps: float
    domain: tuple[float, float] | None
    seed: int


def _attacks(
    names: Sequence[str], net: Net, p: float, domain: tuple[float, float] | None, options: dict[str, dict[str, Any]]
) -> dict[str, Attack]:
    says = 'must be options of an attack: square={"queries": 1000}'
    for name, given in options.items():
        require(isinstance(given, dict) and name in attack_names(), name, given, says)
    found: dict[str, Attack] = {}
    for name in [each for given in names for each in (ensemble(net.classes, p) if given == "auto" else [given])]:
        one_of("attacks", name, attack_names())
        attack = attack_named(name, p, options)
        require(not attack.closed_form, "attacks", name, "is exact for linear models alone; certificates have that")
        require(getattr(attack, "keeps_ball", True), "attacks", name, "leaves the l_p ball; pgd does not")
        attack.check_fits(net.classes)
        found[name] = dataclasses.replace(attack, box=domain is not None) if hasattr(attack, "box") else attack
    return found


def _attacked(
    threat: _Threat, attacks: dict[str, Attack], spent: dict[str, Spent], tick: Callable[[str], None]
) -> tuple[dict[str, float], Tensor]:
    """Accuracy after each attack, each on the points that those before it have left, and the least margins (n,)."""
    x, y, eps = threat.x, threat.y, threat.x.new_tensor(threat.eps)
    with torch.no_grad():
        least = torch.cat([margin(threat.net(a), b) for a, b in zip(_pieces(x), _pieces(y), strict=True)])
    found = {"clean": float((least > 0).double().mean())}
    for name, attack in attacks.items():
        mine = spent.setdefault(name, Spent())
        left = (least > 0).nonzero().squeeze(-1)
        for k, some in enumerate(_pieces(left)):
            tick(f"p = {threat.p:g}, eps = {threat.eps:g}: {name}, {k * FEW}/{len(left)} points")
            victim = Counted(threat.net, x[some], y[some], threat.domain, None, mine)
            generator = torch_stream(threat.seed, f"eval from {k}")
            with torch.no_grad():  # of the parameters; those of the inputs are asked for where they are needed
                moved = attack.perturb(victim, eps, attack.draw(len(some), x.shape[1], generator).to(x))
            far = float(Norm(threat.p).value(moved - victim.x).max())
            rounding = torch.finfo(x.dtype).eps * (1e3 * threat.eps + 8 * float(x.abs().max()))
            if far > threat.eps + rounding:
                raise ArithmeticError(f"{name} has left the ball of radius {threat.eps:g}: {far:g}")
            with torch.no_grad():
                least[some] = torch.minimum(least[some], margin(threat.net(moved), y[some]))
        found[f"after_{name}"] = float((least > 0).double().mean())
    return {**found, "attacked": float((least > 0).double().mean())}, least


def _pieces(x: Tensor) -> list[Tensor]:
    """So many rows at once as runs are attacked with."""
    return [x[k : k + FEW] for k in range(0, len(x), FEW)]


def _certified(bounds: Known, threat: _Threat, least: Tensor) -> npt.NDArray[np.float64]:
    low, size = bounds.certified(threat.x, threat.y, threat.p, threat.eps, threat.domain)
    high = least.double()
    if bool(((low > 0) & (high < -1e3 * torch.finfo(threat.x.dtype).eps * size)).any()):
        raise ArithmeticError("a certified point has been broken: a certificate or an attack is wrong")
    found: npt.NDArray[np.float64] = torch.where(high > 0, low, low.clamp_max(0)).cpu().numpy()
    return found


def _masked(found: dict[str, float]) -> list[str]:
    """What an attack without gradients breaks beyond those with them."""
    names = list(found)
    if "after_square" not in names:
        return []
    beyond = found[names[names.index("after_square") - 1]] - found["after_square"]
    says = f"Square, which needs no gradients, breaks {100 * beyond:.1f} points beyond the others: masked gradients?"
    return [says] if beyond > _MUCH else []


def _distances(
    net: Net, x: Tensor, y: Tensor, p: float, domain: tuple[float, float] | None, tick: Callable[[str], None]
) -> npt.NDArray[np.float64]:
    norm, found = Norm(p), []
    for k, (some, theirs) in enumerate(zip(_pieces(x), _pieces(y), strict=True)):
        tick(f"distances, {k * FEW}/{len(x)} points")
        starts = across(some, theirs, x, y, norm)
        with torch.no_grad():
            found.append(lengths(norm, nearest(net, some, theirs, p, starts=starts, box=domain)))
    away: npt.NDArray[np.float64] = torch.cat(found).double().cpu().numpy()
    return away
